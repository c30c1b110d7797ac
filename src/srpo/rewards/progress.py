"""The progress reward: a failure is worth more the nearer it came to a success, seen by a world model.

Source: SRPO, arXiv 2511.15605, section 3 (world progress reward); differences are noted where they are made. The
largest is the default distance, coverage (`srpo.rewards.coverage`): the paper's, between whole episodes, has next to no
rank correlation with true progress on recorded failures, and coverage has 0.75 (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import expit

from srpo.rewards.clustering import CLUSTERINGS, cluster_means, success_centres
from srpo.rewards.coverage import coverage_scale, covered_progress, few
from srpo.types import SrpoError

FORMULAS = ("paper", "siirl")


@dataclass(frozen=True)
class ProgressRewards:
    """What `progress_rewards` found.

    Attributes:
        reward: (N,) float64; 1 for successes, below alpha for failures.
        distance: (N,) float64, the share of the successes' moments that is missing (coverage), or the distance to the
            nearest centre (squared in the paper's formula); NaN for successes and where the task has no reference.
        n_clusters: task -> number of centres, or of references (coverage); 0 where the task has no reference.
        reached: (N, M) float64, None unless asked for: the grade of a failure that ended at each moment of the episode,
            by the task's successes in other groups and the references; NaN where there are none, and for a task
            without two failures that differ, whose mean and std of d could grade.
    """

    reward: np.ndarray
    distance: np.ndarray
    n_clusters: dict[Any, int]
    reached: np.ndarray | None = None


def progress_rewards(
    embeddings: np.ndarray,
    success: np.ndarray | Sequence[bool],
    task: np.ndarray | Sequence[Hashable],
    *,
    formula: str = "paper",
    alpha: float = 0.8,
    clustering: str = "coverage",
    references: tuple[np.ndarray, np.ndarray | Sequence[Hashable]] | None = None,
    group: np.ndarray | Sequence[int] | None = None,
) -> ProgressRewards:
    """Grade the failures of a batch by their distance to the successes of the same task.

    ``clustering="coverage"``: an episode is M moments in time order, and its distance is ``1 - covered_progress``
    (`srpo.rewards.coverage`, not in the paper).

    Any other clustering, the paper's way: an episode is one vector, d = min over centres of the squared L2 distance.

    ``formula="paper"`` (section 3, and `paper_failure_rewards`): g = alpha * sigmoid(-(d - mean) / std) over the task's
    failures. The paper prints the sigmoid without the minus, but its text needs it: nearer is better.

    ``formula="siirl"`` gives the numbers of the authors' public code (`siirl_failure_rewards`): with
    ``clustering="dbscan"`` fixed-radius DBSCAN on standardised embeddings, plain L2 distance, min-max scaling, a
    ceiling of 0.6 (``alpha`` is not used).

    A task without a success here and among the references gives its failures 0: nothing is known about them.

    Args:
        embeddings: (N, M, E) float for coverage, from `srpo.world_models.moments`; else (N, D), one vector per episode.
        success: (N,) bool.
        task: (N,) task of each episode: strings, integers or other hashables.
        formula: ``"paper"`` or ``"siirl"``.
        alpha: in (0, 1], supremum of a failure's reward (the paper's best value: 0.8).
        clustering: ``"coverage"``; or ``"dbscan"``, ``"nearest"``, ``"mean"`` or ``"k-medoids"``, see
            `success_centres`; ``"dbscan"`` means the public code's own one under ``formula="siirl"``.
        references: further successes, from outside this batch: (R embeddings like the others, (R,) tasks).
        group: (N,) group of each episode: tell the grade reached at every moment too (``ProgressRewards.reached``),
            which no outcome of an episode's own group has a part in, but for the mean and std of the task's failures,
            and whether there are two that differ; coverage only.

    Raises:
        SrpoError: shapes do not fit, an unknown option, or an embedding that is zero (but for coverage, where it says
            that nothing has moved) or not finite.
    """
    _check_options(formula, alpha, clustering)
    covering = clustering == "coverage"
    points, tasks = _checked("embeddings", embeddings, task, covering)
    succeeded = _checked_success(success, len(points))
    known, known_tasks = _reference_set(points, succeeded, tasks, references, covering)

    groups = np.arange(len(points)) if group is None else np.asarray(group)
    if groups.shape != succeeded.shape:
        raise SrpoError(f"group has the shape {groups.shape} for {len(points)} embeddings: pass one per episode.")
    reward = succeeded.astype(np.float64)
    distance = np.full(len(points), np.nan)
    n_clusters: dict[Any, int] = {}
    reached = np.full(points.shape[:2], np.nan) if covering and group is not None else None
    for name in dict.fromkeys(tasks):
        mine = np.array([t == name for t in known_tasks], bool)
        of_task = known[mine]
        failed = np.flatnonzero([t == name and not s for t, s in zip(tasks, succeeded, strict=True)])
        n_clusters[name] = 0
        if not len(of_task):
            continue
        siirl = formula == "siirl"
        if covering:
            n_clusters[name] = len(of_task)
            if not len(failed):
                continue
            scale = coverage_scale(of_task)
            missing = np.stack([1.0 - covered_progress(points[i], of_task, scale) for i in failed])
            d = distance[failed] = missing[:, -1]
            reward[failed] = _grades(formula, alpha, d)
            if reached is None or not differ(formula, d):
                continue
            batch_index = np.append(np.flatnonzero(succeeded), np.full(len(known) - succeeded.sum(), -1))[mine]
            so_far = dict(zip(failed.tolist(), missing, strict=True))
            episodes = np.flatnonzero([t == name for t in tasks])
            for one in np.unique(groups[episodes]):
                members = episodes[groups[episodes] == one].tolist()
                other = np.flatnonzero(~np.isin(batch_index, members))
                if not len(other):
                    continue
                if len(other) < len(of_task):  # else the group's are all failures, compared already
                    others = of_task[few(other)]
                    scale = coverage_scale(others)
                    so_far |= {i: 1.0 - covered_progress(points[i], others, scale) for i in members}
                reached[members] = _grades(formula, alpha, d, np.stack([so_far[i] for i in members]))
            continue
        own = siirl and clustering == "dbscan"
        centres = siirl_centres(of_task) if own else success_centres(of_task, clustering)
        n_clusters[name] = len(centres)
        if not len(failed):
            continue
        d = distance[failed] = cdist(points[failed], centres, "euclidean" if siirl else "sqeuclidean").min(1)
        reward[failed] = _grades(formula, alpha, d)
    return ProgressRewards(reward, distance, n_clusters, reached)


def _grades(formula: str, alpha: float, distance: np.ndarray, graded: np.ndarray | None = None) -> np.ndarray:
    if formula == "siirl":
        return siirl_failure_rewards(distance, graded)
    return paper_failure_rewards(distance, alpha, graded)


def differ(formula: str, distance: np.ndarray) -> bool:
    """Whether a task's failures are not all equally far."""
    return bool(np.ptp(distance) >= 1e-6 if formula == "siirl" else distance.std() > 1e-6 * distance.mean())


def paper_failure_rewards(distance: np.ndarray, alpha: float, graded: np.ndarray | None = None) -> np.ndarray:
    """alpha * sigmoid(-(d - mean_d) / std_d), mean and std over the failures of a task (paper, section 3).

    The std is the population's. A lone failure, or failures that are all equally far (std below 1e-6 of the
    mean distance), are at the mean: alpha / 2.

    Args:
        distance: (F,) >= 0, F >= 1.
        alpha: supremum of the reward.
        graded: distances to grade by the mean and std of ``distance``; None: these themselves.

    Returns:
        float64 in (0, alpha), of the shape of ``graded``.
    """
    graded = distance if graded is None else graded
    if not differ("paper", distance):
        return np.full(graded.shape, alpha * 0.5)
    mean, std = distance.mean(), distance.std()
    return alpha * expit((mean - graded) / std)


def siirl_failure_rewards(distance: np.ndarray, graded: np.ndarray | None = None) -> np.ndarray:
    """0.6 * sigmoid(10 * (0.5 - d)) with d scaled to [0, 1] over the failures of a task.

    The formula of the authors' public code; a range of the distances below 1e-6 counts as d = 0.5.

    Args:
        distance: (F,), F >= 1.
        graded: distances to grade by the least and largest of ``distance``; None: these themselves.

    Returns:
        float64 in (0, 0.6), of the shape of ``graded``; the best failure of several always gets 0.596, a lone one 0.3.
    """
    graded = distance if graded is None else graded
    if not differ("siirl", distance):
        return np.full(graded.shape, 0.6 * 0.5)
    scaled = (graded - distance.min()) / np.ptp(distance)
    return 0.6 * expit(10.0 * (0.5 - scaled))


def siirl_centres(points: np.ndarray) -> np.ndarray:
    """Centres as in the authors' public code: DBSCAN(eps 0.5, min_samples 2) on standardised embeddings.

    The centre of a cluster is the mean of its members (not standardised); noise is dropped; without a
    cluster, which is the rule in high dimensions, there is one centre, the mean of all.

    Args:
        points: (S, D) float64, S >= 1.

    Returns:
        (C, D) float64.
    """
    from sklearn.cluster import DBSCAN
    from sklearn.preprocessing import StandardScaler

    labels = DBSCAN(eps=0.5, min_samples=2).fit_predict(StandardScaler().fit_transform(points))
    return cluster_means(points, labels) if (labels >= 0).any() else points.mean(0, keepdims=True)


def progress_curve(
    window_embeddings: np.ndarray, reference: np.ndarray, scale: tuple[float, float] | None = None
) -> np.ndarray:
    """Progress R_t along one episode, from the embeddings of growing windows (paper, offline part).

    d_t = min over references of the squared L2 distance of window 0..t, R_t = (max d - d_t) / (max d - min
    d): the farthest window has progress 0, the nearest 1. For a success the reference is the embedding of the
    whole episode, for a failure the success centres (`success_centres`). If all windows are equally far
    (range of the distances below 1e-9 of the largest), no progress is seen and all R_t are 0.

    Args:
        window_embeddings: (T, D) float, embedding of the first t + 1 moments in row t.
        reference: (D,) or (C, D) float.
        scale: squared distances that count as progress 1 and 0, for episodes that are to be compared with each other;
            None: min and max of this episode, as in the paper.

    Returns:
        (T,) float64 in [0, 1].

    Raises:
        SrpoError: shapes do not fit, or an embedding is zero or not finite.
    """
    windows = _checked_embeddings("window_embeddings", window_embeddings, False)
    centres = _checked_embeddings("reference", np.atleast_2d(np.asarray(reference)), False)
    if windows.shape[1] != centres.shape[1] or not len(centres):
        raise SrpoError(
            f"The windows have the shape {windows.shape} and the reference {centres.shape}: embed both with "
            "the same world model, and pass at least one reference."
        )
    if not len(windows):
        return np.zeros(0)
    distance = cdist(windows, centres, "sqeuclidean").min(1)
    near, far = scale or (float(distance.min()), float(distance.max()))
    if far - near <= 1e-9 * far:
        return np.zeros(len(distance))
    return np.clip((far - distance) / (far - near), 0.0, 1.0)


def _reference_set(
    points: np.ndarray,
    succeeded: np.ndarray,
    tasks: list[Hashable],
    references: tuple[np.ndarray, np.ndarray | Sequence[Hashable]] | None,
    covering: bool,
) -> tuple[np.ndarray, list[Hashable]]:
    """(R embeddings, R tasks): this batch's successes and the references from outside."""
    known, known_tasks = points[succeeded], [t for t, s in zip(tasks, succeeded, strict=True) if s]
    if references is None or not len(references[0]):
        return known, known_tasks
    extra, extra_tasks = _checked("references", *references, covering)
    if extra.shape[1:] != points.shape[1:]:
        raise SrpoError(
            f"The references have the shape {extra.shape} and the embeddings {points.shape}: use one world model for "
            "both, or start with an empty replay."
        )
    return np.concatenate([known, extra]), known_tasks + extra_tasks


def _check_options(formula: str, alpha: float, clustering: str) -> None:
    if formula not in FORMULAS:
        raise SrpoError(f"No reward formula named '{formula}': choose {' or '.join(FORMULAS)}.")
    if clustering not in CLUSTERINGS:
        raise SrpoError(f"No clustering named '{clustering}': choose {', '.join(CLUSTERINGS)}.")
    if not 0.0 < alpha <= 1.0:
        raise SrpoError(f"alpha is {alpha}: a failure must stay below a success, choose a value in (0, 1].")


def _checked(name: str, embeddings: Any, task: Any, covering: bool) -> tuple[np.ndarray, list[Hashable]]:
    points = _checked_embeddings(name, embeddings, covering)
    tasks = task.tolist() if isinstance(task, np.ndarray) else list(task)
    if len(tasks) != len(points):
        raise SrpoError(f"{len(points)} {name} but {len(tasks)} tasks: pass one task per episode.")
    if any(not isinstance(t, Hashable) for t in tasks):
        raise SrpoError(f"The tasks of the {name} are not one label per episode: pass strings or integers, shape (N,).")
    return points, tasks


def _checked_embeddings(name: str, embeddings: Any, covering: bool) -> np.ndarray:
    """Float64, refused where not finite, or where all zeros unless these may mean that nothing has moved."""
    points = np.asarray(embeddings, dtype=np.float64)
    if points.ndim != (3 if covering else 2):
        wanted = (
            "coverage compares moments, shape (N, M, E) from srpo.world_models.moments; for one vector per episode, "
            "shape (N, D), choose clustering='dbscan'"
            if covering
            else "pass one vector per episode, shape (N, D)"
        )
        raise SrpoError(f"{name} has the shape {points.shape}: {wanted}.")
    norms = np.sqrt(np.square(points).sum(tuple(range(1, points.ndim))))
    bad = np.flatnonzero(~np.isfinite(norms) | ((norms == 0.0) & (not covering)))
    if len(bad):
        what = "all zeros" if norms[bad[0]] == 0.0 else "not finite (NaN or infinity)"
        raise SrpoError(
            f"{name}: row {bad[0]} ({len(bad)} of {len(points)} rows in all) is {what}; the world model did "
            "not encode that episode, so check its frames and the world model's weights."
        )
    return points


def _checked_success(success: Any, n: int) -> np.ndarray:
    array = np.asarray(success)
    if array.shape != (n,):
        raise SrpoError(f"success has the shape {array.shape} for {n} embeddings: pass one True or False per episode.")
    return array.astype(bool)
