"""Figures of how a world model grades episodes: progress curves with the frames under them, and distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from srpo.data.episodes import RecordedEpisode
from srpo.evaluation.reward_bench import Graded

_SUCCESS, _FAILURES = "#0a7d5f", ("#b35a00", "#2a62c4", "#8a3ffc", "#9f1853")
_FRAMES = 7


def telling_episodes(graded: Graded) -> list[int]:
    """One success and up to four failures of one task, spread over the failures' true progress.

    The task is the one whose failures differ most in true progress, among those with a success.
    """
    best: tuple[float, list[int]] = (-1.0, [])
    for name in dict.fromkeys(graded.task.tolist()):
        rows = np.flatnonzero(graded.task == name)
        won, lost = rows[graded.success[rows]], rows[~graded.success[rows]]
        if not len(won) or not len(lost):
            continue
        order = lost[np.argsort(np.nan_to_num(graded.truth[lost]), kind="stable")]
        picks = order[np.unique(np.linspace(0, len(order) - 1, 4).round().astype(int))]
        spread = float(np.nan_to_num(graded.truth[order[-1]] - graded.truth[order[0]]))
        best = max(best, (spread, [int(won[0]), *map(int, picks)]), key=lambda b: b[0])
    return best[1]


def progress_png(path: str | Path, episodes: Sequence[RecordedEpisode], graded: Graded, name: str) -> Path:
    """Progress seen by the world model and true progress of one success and four failures, frames underneath.

    Args:
        path: the .png file.
        episodes: N episodes.
        graded: of the same episodes.
        name: of the world model, for the title.
    """
    rows = telling_episodes(graded)
    figure = _figure(16, 2.1 * len(rows) + 0.6)
    grid = figure.add_gridspec(len(rows), 2, width_ratios=[1, 2.6])
    for line, row in enumerate(rows):
        episode, curve = episodes[row], graded.curves[row]
        color = _SUCCESS if graded.success[row] else _FAILURES[(line - 1) % len(_FAILURES)]
        axes = figure.add_subplot(grid[line, 0])
        time = np.arange(len(curve)) + len(episode.frames) - len(curve)
        axes.plot(time, curve, color=color, label="seen")
        axes.plot(np.arange(len(episode.frames)), episode.true_progress, color="#57616c", ls="--", label="true")
        axes.set(ylim=(-0.05, 1.05), xlabel="decision" if line == len(rows) - 1 else "", ylabel="progress")
        reward = "success" if graded.success[row] else f"failure, reward {graded.reward[row]:.2f}"
        axes.set_title(f"{reward}, true progress {graded.truth[row]:.2f}", fontsize=9, loc="left")
        if line == 0:
            axes.legend(frameon=False, fontsize=8)
        shown = np.linspace(0, len(episode.frames) - 1, _FRAMES).round().astype(int)
        film = figure.add_subplot(grid[line, 1])
        film.imshow(np.concatenate(list(episode.frames[shown]), axis=1))
        film.set_axis_off()
    instruction = episodes[rows[0]].task.instruction if rows else "no task has both outcomes"
    figure.suptitle(f"{name}: {instruction}", fontsize=11)
    return _save(figure, path)


def distances_png(path: str | Path, graded: Mapping[str, Graded]) -> Path:
    """Histograms of the distance to the nearest centre of the task's other successes, a panel a world model.

    Distances are divided by the median of the task's failures, so that tasks can be put together.
    """
    figure = _figure(3.2 * len(graded), 2.8)
    for place, (name, g) in enumerate(graded.items()):
        scaled = np.full(len(g.distance), np.nan)
        for task in set(g.task.tolist()):
            rows = g.task == task
            failed = g.distance[rows & ~g.success & np.isfinite(g.distance)]
            scale = np.median(failed) if len(failed) else 0.0
            if scale > 0:
                scaled[rows] = g.distance[rows] / scale
        axes = figure.add_subplot(1, len(graded), place + 1)
        bins = np.linspace(0, 3, 31).tolist()
        for won, color, label in ((True, _SUCCESS, "successes"), (False, _FAILURES[0], "failures")):
            values = np.clip(scaled[(g.success == won) & np.isfinite(scaled)], 0, 3)
            if len(values):
                axes.hist(values, bins, color=color, alpha=0.6, label=label, density=True)
        axes.set(title=name, xlabel="distance / median of failures", yticks=[])
        if not np.isfinite(scaled).any():
            axes.text(0.5, 0.5, "no failure is at\nany distance", ha="center", va="center", transform=axes.transAxes)
        elif place == 0:
            axes.legend(frameon=False, fontsize=8)
    return _save(figure, path)


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial.png")
    figure.savefig(partial)
    partial.replace(path)
    return path
