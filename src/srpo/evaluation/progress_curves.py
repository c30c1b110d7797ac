"""Progress along an episode, seen by a world model, and distances that do not know the outcome."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.spatial.distance import cdist

from srpo.evaluation.intervals import rows_by
from srpo.rewards import coverage_scale, covered_progress, progress_curve, success_centres
from srpo.types import SrpoError
from srpo.world_models import WorldModel
from srpo.world_models.base import evenly


def window_embeddings(world_model: WorldModel, features: Sequence[np.ndarray], shortest: int = 2) -> list[np.ndarray]:
    """Embeddings of the growing windows 0..t of each episode.

    Args:
        world_model: embeds.
        features: N arrays (F_i, ...) of frame features.
        shortest: frames of the first window; a world model that compares moments makes nothing of one.

    Returns:
        N arrays (T_i, E) float32 with T_i = F_i - shortest + 1, at least 1; the last row is the embedding of the whole
        episode.
    """
    first = [min(shortest, len(episode)) for episode in features]
    return [
        world_model.embed([episode[:end] for end in range(start, len(episode) + 1)])
        for episode, start in zip(features, first, strict=True)
    ]


def progress_curves(
    windows: Sequence[np.ndarray],
    success: np.ndarray | Sequence[bool],
    task: Sequence[Hashable] | np.ndarray,
    *,
    clustering: str = "dbscan",
    scale: str = "episode",
) -> list[np.ndarray]:
    """Progress of growing windows (paper, offline part): `srpo.rewards.progress_curve` for a set of episodes.

    A success is compared with the embedding of its own whole, a failure with the centres of its task's successes.

    Args:
        windows: N arrays (T_i, E), see `window_embeddings`.
        success: (N,) bool.
        task: (N,).
        clustering: see `srpo.rewards.success_centres`.
        scale: ``"episode"`` as in the paper: the farthest window of an episode is 0, its nearest 1, so that a failure
            too reaches 1 somewhere; ``"task"``: the farthest window of all episodes of the task is 0 and distance 0 is
            1, so that curves can be compared.

    Returns:
        N arrays (T_i,) float64 in [0, 1]; of NaN for a failure whose task has no success.

    Raises:
        SrpoError: unknown scale, shapes that do not fit, or an embedding that is zero or not finite.
    """
    if scale not in ("episode", "task"):
        raise SrpoError(f"No scale named '{scale}': choose episode or task.")
    won = np.asarray(success, dtype=bool)
    if won.shape != (len(windows),):
        raise SrpoError(f"{len(windows)} episodes and success of shape {won.shape} do not fit: pass one each.")
    curves = [np.full(len(w), np.nan) for w in windows]
    for rows in rows_by(task, len(windows)):
        references: dict[int, np.ndarray] = {int(i): np.asarray(windows[i])[-1:] for i in rows if won[i]}
        if references:
            whole = np.concatenate(list(references.values())).astype(np.float64)
            centres = success_centres(whole, clustering)
            references |= {int(i): centres for i in rows if not won[i]}
        limits = None
        if scale == "task" and references:
            far = [cdist(np.asarray(windows[i], np.float64), c, "sqeuclidean").min(1) for i, c in references.items()]
            limits = (0.0, max(float(d.max()) for d in far))
        for i, reference in references.items():
            curves[i] = progress_curve(windows[i], reference, limits)
    return curves


def coverage_curves(
    traces: Sequence[np.ndarray], success: np.ndarray | Sequence[bool], task: Sequence[Hashable] | np.ndarray
) -> list[np.ndarray]:
    """Progress of growing windows by `srpo.rewards.covered_progress`, successes measured by the *other* successes.

    Args:
        traces: N arrays (T_i, E), a vector a frame.
        success: (N,) bool.
        task: (N,).

    Returns:
        N arrays (T_i,) float64 in [0, 1]; of NaN where the task has no (other) success.
    """
    won = np.asarray(success, dtype=bool)
    curves = [np.full(len(t), np.nan) for t in traces]
    for rows in rows_by(task, len(traces)):
        known = {int(j): evenly(np.asarray(traces[j])) for j in rows if won[j]}
        scale = coverage_scale(np.stack(list(known.values()))) if known else None
        for i in rows:
            others = [stages for j, stages in known.items() if j != i]
            if others:
                curves[i] = covered_progress(np.asarray(traces[i]), np.stack(others), scale)
    return curves


def left_out_distances(
    embeddings: np.ndarray,
    success: np.ndarray | Sequence[bool],
    task: Sequence[Hashable] | np.ndarray,
    clustering: str = "dbscan",
) -> np.ndarray:
    """Squared distance of every episode to the nearest centre of the *other* successes of its task.

    Computed alike for successes and failures, so that it may be asked how well it tells them apart.

    Args:
        embeddings: (N, D) float.
        success: (N,) bool.
        task: (N,).
        clustering: see `srpo.rewards.success_centres`.

    Returns:
        (N,) float64; NaN where the task has no other success.
    """
    points = np.asarray(embeddings, dtype=np.float64)
    won = np.asarray(success, dtype=bool)
    distances = np.full(len(points), np.nan)
    for rows in rows_by(task, len(points)):
        of_task = rows[won[rows]]
        failed = rows[~won[rows]]
        if len(of_task) and len(failed):
            centres = success_centres(points[of_task], clustering)
            distances[failed] = cdist(points[failed], centres, "sqeuclidean").min(1)
        if len(of_task) > 1:
            for row in of_task:
                centres = success_centres(points[of_task[of_task != row]], clustering)
                distances[row] = cdist(points[row : row + 1], centres, "sqeuclidean").min()
    return distances
