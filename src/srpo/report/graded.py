"""Progress curves of graded episodes, ``graded.json`` with thumbnails, for the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.distance import cdist

from srpo.provenance import write_json
from srpo.rewards import covered_progress, progress_curve, success_centres
from srpo.types import Episode
from srpo.world_models import WorldModel
from srpo.world_models.base import trace

_THUMBNAILS = 6


def write_graded(
    run: Path,
    episodes: list[Episode],
    reward: np.ndarray,
    embeddings: np.ndarray,
    world_model: WorldModel,
    failures: int = 4,
    clustering: str = "coverage",
) -> Path | None:
    """Progress over time of one success and of failures from the best to the worst graded.

    The task is the first one that has a success and filmed failures. Progress is `srpo.rewards.progress_curve` of
    growing windows, all episodes on one scale: at 1 is the window nearest to a centre of the successes, at 0 the
    farthest. (On a scale of its own, as in the paper, a failure that never came near would reach 1 too.) With coverage
    it is `srpo.rewards.covered_progress`.

    Args:
        run: run folder.
        episodes: N episodes with frame features; only filmed ones (``keep_frames``) are shown.
        reward: (N,).
        embeddings: of the same episodes, as they were graded.
        world_model: made the embeddings.
        failures: how many failures to show.
        clustering: how they were graded.

    Returns:
        ``run/graded.json``, or None where no task has both a success and a filmed failure.
    """
    task_of = np.array([e.request.task.id for e in episodes])
    success = np.array([e.success for e in episodes])
    filmed = np.array([bool(e.frames) and e.frame_features is not None for e in episodes])
    for task in dict.fromkeys(task_of.tolist()):
        mine = task_of == task
        failed = np.flatnonzero(mine & ~success & filmed)
        if not (mine & success).any() or not len(failed):
            continue
        failed = failed[np.argsort(-reward[failed])]
        spread = np.unique(np.linspace(0, len(failed) - 1, min(failures, len(failed))).round().astype(int))
        shown = [*np.flatnonzero(mine & success & filmed)[:1], *failed[spread]]
        if clustering == "coverage":
            seen = _covered([episodes[i] for i in shown], embeddings[mine & success], world_model, embeddings[shown])
        else:
            seen = _by_distance([episodes[i] for i in shown], embeddings[mine & success], world_model)
        curves = []
        for number, i in enumerate(shown):
            progress = seen[number]
            curves.append(
                {
                    "label": "success" if success[i] else "failure",
                    "reward": float(reward[i]),
                    "progress": progress.round(4).tolist(),
                    "steps": np.cumsum(episodes[i].executed)[: len(progress)].tolist(),
                    "thumbnails": _thumbnails(run, number, episodes[i]),
                }
            )
        path = run / "graded.json"
        write_json(path, {"task": task, "clustering": clustering, "curves": curves})
        return path
    return None


def _by_distance(episodes: list[Episode], successes: np.ndarray, world_model: WorldModel) -> list[np.ndarray]:
    centres = success_centres(successes, "dbscan")
    windows = [_windows(e, world_model) for e in episodes]
    distance = cdist(np.concatenate(windows), centres, "sqeuclidean").min(1)
    scale = (float(distance.min()), float(distance.max()))
    return [progress_curve(w, centres, scale) for w in windows]


def _covered(
    episodes: list[Episode], successes: np.ndarray, world_model: WorldModel, own: np.ndarray
) -> list[np.ndarray]:
    """Coverage after each decision, of the successes other than the episode itself, if there are others."""
    curves = []
    for episode, embedding in zip(episodes, own, strict=True):
        others = successes[~(successes == embedding).all((1, 2))]
        assert episode.frame_features is not None
        seen = trace(world_model, episode.frame_features)
        curves.append(covered_progress(seen, others if len(others) else successes)[1:])
    return curves


def _windows(episode: Episode, world_model: WorldModel) -> np.ndarray:
    """(T, E) embeddings of the episode up to the end of each decision."""
    assert episode.frame_features is not None
    return world_model.embed([episode.frame_features[:t] for t in range(2, len(episode.frame_features) + 1)])


def _thumbnails(run: Path, number: int, episode: Episode) -> list[str]:
    frames = episode.frames["agentview"]
    names = []
    (run / "graded").mkdir(parents=True, exist_ok=True)
    for k, t in enumerate(np.linspace(0, len(frames) - 1, _THUMBNAILS).round().astype(int)):
        name = f"graded/{number}_{k}.png"
        Image.fromarray(frames[t]).save(run / name)
        names.append(name)
    return names
