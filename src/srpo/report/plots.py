"""Figures as PNG, for a README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srpo.report.charts import ticks
from srpo.report.run import Run, load_run, percent

_TRAIN, _BEFORE, _AFTER, _INK, _SOFT, _GRID = "#2a62c4", "#b35a00", "#0a7d5f", "#16191d", "#57616c", "#e2e6ea"


def learning_curve_png(run: str | Path, path: str | Path, title: str | None = None) -> Path:
    """Success per RL step: training rollouts with their Wilson 95 % band, evaluations with their intervals.

    Args:
        run: run folder.
        path: the .png file (1600 x 800 px), written under a temporary name and renamed.
        title: above the plot; None: "From 46 % to 95 % ..." where both evaluations exist.

    Raises:
        SrpoError: the run has no metrics.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    record = load_run(run)
    figure = Figure(figsize=(8, 4), dpi=200, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw(axes, record)
    axes.set_title(_title(record) if title is None else title, loc="left", fontsize=12, color=_INK, pad=12)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png")
    partial.replace(path)
    return path


def _title(run: Run) -> str:
    if not (run.before and run.after):
        return "Success in training"
    text = f"From {percent(run.before.overall.share)} to {percent(run.after.overall.share)}"
    if len(run.instructions) == 1:
        text += f': "{next(iter(run.instructions.values()))}"'
    return text.replace("$", r"\$")


def _draw(axes: Any, run: Run) -> None:
    from matplotlib.ticker import PercentFormatter

    curve = run.training_curve()
    if curve:
        steps = [step for step, _ in curve]
        bounds = [rate.interval for _, rate in curve]
        low, high = [b[0] for b in bounds], [b[1] for b in bounds]
        axes.fill_between(steps, low, high, color=_TRAIN, alpha=0.15, linewidth=0)
        axes.plot(steps, [rate.share for _, rate in curve], color=_TRAIN, linewidth=2, label="training rollouts")
    evaluation = run.evaluation_curve()
    for i, (step, rate) in enumerate(evaluation):
        first = i == 0 and run.before is not None
        color = _BEFORE if first else _AFTER
        label = "evaluation before" if first else ("evaluation" if i == len(evaluation) - 1 else None)
        below, above = rate.share - rate.interval[0], rate.interval[1] - rate.share
        axes.errorbar(
            step, rate.share, yerr=[[max(0, below)], [max(0, above)]], color=color, marker="o", markersize=7,
            elinewidth=2, linestyle="none", label=label, zorder=5,
        )  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xticks(ticks(0, max([1, *(step for step, _ in [*curve, *evaluation])]), 8, whole=True))
    axes.set_xlabel("RL step", color=_SOFT)
    axes.set_ylabel("success", color=_SOFT)
    axes.tick_params(colors=_SOFT, length=0)
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(frameon=False, loc="lower right", labelcolor=_INK)
