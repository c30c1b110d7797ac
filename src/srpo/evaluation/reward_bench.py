"""How well a world model's progress reward measures progress, on recorded episodes with known true progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srpo.data.episodes import RecordedEpisode
from srpo.evaluation import reward_quality as quality
from srpo.evaluation.intervals import Interval, stratified_bootstrap
from srpo.evaluation.progress_curves import coverage_curves, left_out_distances, progress_curves, window_embeddings
from srpo.rewards import progress_rewards
from srpo.types import SrpoError
from srpo.world_models import WorldModel
from srpo.world_models.base import moments, trace

#: Measure -> what it is, in the order of the table.
MEASURES = {
    "rank": "rank correlation of the failures' reward with their true progress at the end, mean over tasks",
    "rank_best": "the same with the largest true progress they reached",
    "rank_pooled": "rank correlation over the failures of all tasks together",
    "auc": "AUC of success against failure by distance to the task's other successes, mean over tasks",
    "length_share": "share of that separation (in ranks, squared) that the episode's length alone explains",
    "time": "Spearman of progress with time, successes (SC)",
    "monotonicity": "share of rising steps, successes (Mono)",
    "mmd": "MMD of final progress, successes against failures",
    "js": "Jensen-Shannon divergence of the same, bits",
    "smd": "standardised mean difference of the same",
}


@dataclass
class Graded:
    """A set of episodes as one world model sees it; N episodes.

    Attributes:
        success: (N,) bool.
        task: (N,) task ids.
        length: (N,) control steps.
        truth: (N,) true progress at the end; best: (N,) the largest on the way.
        reward: (N,) progress reward, 1 for successes.
        distance: (N,) squared distance to the nearest centre of the task's *other* successes.
        curves: N arrays (T_i,), progress of growing windows, scaled per episode as in the paper.
        final: (N,) progress at the end on a scale common to the task.
    """

    success: np.ndarray
    task: np.ndarray
    length: np.ndarray
    truth: np.ndarray
    best: np.ndarray
    reward: np.ndarray
    distance: np.ndarray
    curves: list[np.ndarray]
    final: np.ndarray


def grade(
    episodes: Sequence[RecordedEpisode],
    world_model: WorldModel,
    *,
    formula: str = "paper",
    clustering: str = "coverage",
    references: int | None = None,
    seed: int = 0,
) -> Graded:
    """Embed episodes and grade the failures, as training would.

    Args:
        episodes: N recorded episodes, successes and failures.
        world_model: embeds.
        formula, clustering: see `srpo.rewards.progress_rewards`.
        references: successes per task that the reward may know, drawn with ``seed``; None: all.
        seed: of that draw.

    Raises:
        SrpoError: no task has both a success and a failure.
    """
    success = np.array([e.success for e in episodes], dtype=bool)
    task = np.array([e.task.id for e in episodes])
    if not any(success[task == t].any() and not success[task == t].all() for t in set(task.tolist())):
        raise SrpoError("No task has both a success and a failure: record more episodes, of a half-trained policy.")
    features = [np.stack([world_model.frame_features(f, {}) for f in e.frames]) for e in episodes]
    covering = clustering == "coverage"
    windows = [] if covering else window_embeddings(world_model, features)
    whole = moments(world_model, features) if covering else np.stack([w[-1] for w in windows])
    known = _reference_rows(success, task, references, seed)
    graded = np.where(success, 1.0, np.nan)
    failed = np.flatnonzero(~success)
    found = progress_rewards(
        whole[failed],
        success[failed],
        task[failed],
        formula=formula,
        clustering=clustering,
        references=(whole[known], task[known]),
    )
    graded[failed] = found.reward
    if covering:
        curves = coverage_curves([trace(world_model, f) for f in features], success, task)
        final = np.array([c[-1] for c in curves])
        distance = 1.0 - final
    else:
        curves = progress_curves(windows, success, task, clustering=clustering)
        final = np.array([c[-1] for c in progress_curves(windows, success, task, clustering=clustering, scale="task")])
        distance = left_out_distances(whole, success, task, clustering)
    return Graded(
        success=success,
        task=task,
        length=np.array([e.n_steps for e in episodes], np.float64),
        truth=np.array([e.true_progress[-1] for e in episodes], np.float64),
        best=np.array([e.true_progress.max() for e in episodes], np.float64),
        reward=graded,
        distance=distance,
        curves=curves,
        final=final,
    )


def measure(graded: Graded, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """`MEASURES` of graded episodes with bootstrap 95 % intervals, episodes drawn anew within task and outcome.

    Failures of tasks without a success, and episodes without known true progress, are left out.
    """
    g = graded
    strata = [f"{t} {s}" for t, s in zip(g.task, g.success, strict=True)]
    seen = np.isfinite(g.distance) & np.isfinite(g.final)

    def failures(rows: np.ndarray) -> np.ndarray:
        return rows[~g.success[rows] & seen[rows] & np.isfinite(g.truth[rows])]

    def finals(compare: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray], float]:
        def of(rows: np.ndarray) -> float:
            rows = rows[seen[rows]]
            return compare(g.final[rows[g.success[rows]]], g.final[rows[~g.success[rows]]])

        return of

    def rank(rows: np.ndarray, truth: np.ndarray) -> quality.RankCorrelation:
        rows = failures(rows)
        return quality.rank_correlation(g.reward[rows], truth[rows], g.task[rows])

    def separation(rows: np.ndarray) -> float:
        rows = rows[seen[rows]]
        return quality.mean_auc(-g.distance[rows], g.success[rows], g.task[rows])

    def share(rows: np.ndarray) -> float:
        rows = rows[seen[rows]]
        return quality.length_share(-g.distance[rows], g.success[rows].astype(float), g.length[rows]).share

    def of_successes(what: Callable[[list[np.ndarray]], float]) -> Callable[[np.ndarray], float]:
        return lambda rows: what([g.curves[i] for i in rows if g.success[i]])

    functions: dict[str, Callable[[np.ndarray], float]] = {
        "rank": lambda rows: rank(rows, g.truth).per_task,
        "rank_best": lambda rows: rank(rows, g.best).per_task,
        "rank_pooled": lambda rows: rank(rows, g.truth).pooled,
        "auc": separation,
        "length_share": share,
        "time": of_successes(quality.time_correlation),
        "monotonicity": of_successes(quality.monotonicity),
        "mmd": finals(quality.maximum_mean_discrepancy),
        "js": finals(quality.jensen_shannon),
        "smd": finals(quality.standardised_mean_difference),
    }
    return {name: stratified_bootstrap(functions[name], strata, resamples=resamples, seed=seed) for name in MEASURES}


def table(rows: Mapping[str, Mapping[str, Interval]], measures: Sequence[str] = tuple(MEASURES)) -> str:
    """Markdown: one line a world model, value and interval of each measure; "-" where nothing is known."""
    lines = ["| | " + " | ".join(measures) + " |", "|---|" + "---|" * len(measures)]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(row[m]) for m in measures) + " |")
    return "\n".join(lines)


def _cell(interval: Interval) -> str:
    if np.isnan(interval.value):
        return "-"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _reference_rows(success: np.ndarray, task: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """Rows of the successes that the reward may know."""
    if count is None:
        return np.flatnonzero(success)
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(success & (task == t)) for t in dict.fromkeys(task.tolist())]
    return np.sort(np.concatenate([rng.permutation(r)[:count] for r in rows]))
