"""``srpo reward bench`` and ``srpo reward score``: the progress reward without the trainer."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from srpo.data.episodes import EpisodeSet, RecordedEpisode, every_nth
from srpo.evaluation import reward_bench
from srpo.evaluation.intervals import Interval
from srpo.evaluation.progress_curves import coverage_curves, progress_curves, window_embeddings
from srpo.provenance import provenance, write_json
from srpo.rewards import progress_rewards
from srpo.tracking import Console
from srpo.types import InitialState, SrpoError, Task
from srpo.world_models import create
from srpo.world_models.base import moments, trace


def bench(options: argparse.Namespace) -> int:
    """How well world models tell progress, on recorded episodes."""
    from srpo.report.reward_figures import distances_png, progress_png

    names = [n for n in options.world_models.split(",") if n]
    models = {name: create(name) for name in names}
    episodes = list(EpisodeSet(options.episodes))
    if not episodes:
        raise SrpoError(f"{options.episodes} holds no recorded episodes yet: see benchmarks/episode_set.py.")
    console = Console()
    graded, rows = {}, {}
    for name, model in models.items():
        with console.phase(name, None, "world model"):
            graded[name] = reward_bench.grade(
                episodes, model, formula=options.formula, clustering=options.clustering, references=options.references,
                seed=options.seed,
            )  # fmt: skip
            rows[name] = reward_bench.measure(graded[name], options.resamples, options.seed)
    won = sum(e.success for e in episodes)
    tasks = len({e.task.id for e in episodes})
    console.message(f"{len(episodes)} episodes of {tasks} tasks, {won} successes\n")
    console.message(reward_bench.table(rows))
    console.message("\n" + "\n".join(f"{key}: {what}" for key, what in reward_bench.MEASURES.items()))
    if options.out:
        out = Path(options.out)
        write_json(
            out / "reward_bench.json",
            {
                "episodes": {"folder": str(options.episodes), "meta": EpisodeSet(options.episodes).meta()},
                "formula": options.formula,
                "clustering": options.clustering,
                "references": options.references,
                "measures": {name: {k: _plain(v) for k, v in row.items()} for name, row in rows.items()},
                "provenance": provenance(options.seed),
            },
        )
        for name, one in graded.items():
            progress_png(out / f"progress_{name.replace(':', '_').replace('/', '_')}.png", episodes, one, name)
        distances_png(out / "distances.png", graded)
        console.message(f"\nwritten: {out}")
    return 0


def score(options: argparse.Namespace) -> int:
    """Reward of every episode and progress of every frame, for use in other frameworks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    episodes, names = read_episodes(Path(options.episodes), options.every)
    model = create(options.world_model)
    console = Console()
    with console.phase("embed", len(episodes), "episodes") as phase:
        covering = options.clustering == "coverage"
        windows, whole = [], []
        for episode in episodes:
            features = np.stack([model.frame_features(f, {}) for f in episode.frames])
            windows += [trace(model, features)] if covering else window_embeddings(model, [features])
            whole.append(moments(model, [features])[0] if covering else windows[-1][-1])
            phase.advance(1)
    success = np.array([e.success for e in episodes])
    task = np.array([e.task.id for e in episodes])
    graded = progress_rewards(np.stack(whole), success, task, formula=options.formula, clustering=options.clustering)
    if covering:
        curves = coverage_curves(windows, success, task)
    else:
        curves = progress_curves(windows, success, task, clustering=options.clustering)
    without = sorted({t for t in task.tolist() if not success[task == t].any()})
    if without:
        console.warning(f"no success of {', '.join(without)}: their failures have reward 0 and no progress")
    # A window needs two frames, so the first frame has the progress of the first window.
    frames = [np.concatenate([c[:1].repeat(len(e.frames) - len(c)), c]) for e, c in zip(episodes, curves, strict=True)]
    table = pa.table(
        {
            "episode": names,
            "task": task.tolist(),
            "success": success.tolist(),
            "reward": graded.reward.tolist(),
            "distance": graded.distance.tolist(),
            "progress": [f.astype(np.float32).tolist() for f in frames],
        },
        metadata={"world_model": options.world_model, "formula": options.formula, "clustering": options.clustering},
    )
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out / "scores.partial.parquet")
    (out / "scores.partial.parquet").replace(out / "scores.parquet")
    _plot(out / "progress.png", frames, success)
    console.message(f"{len(episodes)} episodes, {int(success.sum())} successes; written: {out / 'scores.parquet'}")
    return 0


def _plain(interval: Interval) -> dict[str, float | None]:
    """JSON has no NaN and no infinity."""
    return {k: v if np.isfinite(v) else None for k, v in asdict(interval).items()}


def read_episodes(source: Path, every: int) -> tuple[list[RecordedEpisode], list[str]]:
    """Episodes and their names, from a folder of recorded episodes or from a list of videos.

    Args:
        source: a folder written by `srpo.data.episodes.EpisodeSet`, or a .csv file with the columns ``video`` (path,
            relative to the file), ``task`` and ``success`` (0 or 1).
        every: of a video, every how many frames are read (the last one always is).

    Raises:
        SrpoError: there is no such file, or a column, a video or a verdict is missing.
    """
    if source.is_dir():
        folder = EpisodeSet(source)
        numbers = folder.numbers()
        folder.meta()
        return [folder.read(n) for n in numbers], [str(n) for n in numbers]
    if not source.is_file():
        raise SrpoError(f"There is no {source}: give a folder of recorded episodes or a .csv list of videos.")
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise SrpoError(f"{source} lists no episodes: it needs the columns video, task, success and a line for each.")
    return [_of_video(source, number, row, every) for number, row in enumerate(rows)], [r["video"] for r in rows]


def _of_video(source: Path, number: int, row: dict[str, str], every: int) -> RecordedEpisode:
    from srpo.report.video import read_mp4

    missing = [c for c in ("video", "task", "success") if not row.get(c)]
    if missing or row["success"] not in ("0", "1"):
        what = f"lacks {', '.join(missing)}" if missing else f"has success '{row['success']}', not 0 or 1"
        raise SrpoError(f"{source}, line {number + 2} {what}: the columns are video, task, success.")
    path = source.parent / row["video"]
    if not path.is_file():
        raise SrpoError(f"{source}, line {number + 2}: there is no video {path}.")
    frames = read_mp4(path)
    kept = every_nth(len(frames), every)
    return RecordedEpisode(
        task=Task("video", 0, row["task"], row["task"], len(frames)),
        initial_state=InitialState("published", number),
        seed=0,
        policy="unknown",
        success=row["success"] == "1",
        n_steps=len(frames),
        frames=frames[kept],
        true_progress=np.full(len(kept), np.nan, np.float32),
    )


def _plot(path: Path, curves: Sequence[np.ndarray], success: np.ndarray) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve, won in zip(curves, success, strict=True):
        axes.plot(np.linspace(0, 1, len(curve)), curve, color="#0a7d5f" if won else "#b35a00", alpha=0.35, lw=1)
    axes.set(xlabel="share of the episode", ylabel="progress seen", ylim=(-0.02, 1.02))
    axes.set_title("green: successes, orange: failures", fontsize=10)
    figure.savefig(path)
