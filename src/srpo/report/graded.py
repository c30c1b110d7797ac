"""Progress curves of graded episodes, ``graded.json`` with thumbnails, for the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from srpo.provenance import write_json
from srpo.rewards import progress_curve, success_centres
from srpo.types import Episode
from srpo.world_models import WorldModel

_THUMBNAILS = 6


def write_graded(
    run: Path,
    episodes: list[Episode],
    reward: np.ndarray,
    embeddings: np.ndarray,
    world_model: WorldModel,
    failures: int = 4,
) -> Path | None:
    """Progress over time of one success and of failures from the best to the worst graded.

    The task is the first one that has a success and filmed failures. Progress is `srpo.rewards.progress_curve` of
    growing windows.

    Args:
        run: run folder.
        episodes: N episodes with frame features; only filmed ones (``keep_frames``) are shown.
        reward: (N,).
        embeddings: (N, E) of the same episodes.
        world_model: made the embeddings.
        failures: how many failures to show.

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
        centres = success_centres(embeddings[mine & success], "dbscan")
        curves = []
        for number, i in enumerate(shown):
            reference = embeddings[i] if success[i] else centres
            curve = _curve(episodes[i], world_model, reference)
            curve |= {"label": "success" if success[i] else "failure", "reward": float(reward[i])}
            curve["thumbnails"] = _thumbnails(run, number, episodes[i])
            curves.append(curve)
        path = run / "graded.json"
        write_json(path, {"task": task, "curves": curves})
        return path
    return None


def _curve(episode: Episode, world_model: WorldModel, reference: np.ndarray) -> dict:
    assert episode.frame_features is not None
    length = len(episode.frame_features)
    windows = world_model.embed([episode.frame_features[:t] for t in range(2, length + 1)])
    steps = np.cumsum(episode.executed)[: len(windows)]
    return {"progress": progress_curve(windows, reference).round(4).tolist(), "steps": [int(s) for s in steps]}


def _thumbnails(run: Path, number: int, episode: Episode) -> list[str]:
    frames = episode.frames["agentview"]
    names = []
    (run / "graded").mkdir(parents=True, exist_ok=True)
    for k, t in enumerate(np.linspace(0, len(frames) - 1, _THUMBNAILS).round().astype(int)):
        name = f"graded/{number}_{k}.png"
        Image.fromarray(frames[t]).save(run / name)
        names.append(name)
    return names
