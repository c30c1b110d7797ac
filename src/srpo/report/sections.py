"""The report's sections, as plain values and SVG for the template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from markupsafe import Markup

from srpo.report import charts
from srpo.report.charts import Axes, Line, Point
from srpo.report.run import Rate, Run, percent
from srpo.tracking.console import duration
from srpo.tracking.csv import number

_MULTIPLES = (
    (
        "reward_failure_mean",
        "Reward of failures",
        "Mean and one standard deviation; 0 is far from the successes.",
    ),
    ("groups_informative", "Groups that teach", "Groups of the same start whose episodes differ in reward."),
    ("approx_kl", "KL per step", "How far one update moved the policy; spikes mean instability."),
    ("clip_fraction", "Clipped share", "Action tokens at which the clip of the PPO objective took effect."),
    ("entropy", "Entropy (nats)", "Of the action tokens; near 0 the policy no longer explores."),
    ("grad_norm", "Gradient norm", "Before clipping."),
    ("ratio_max", "Largest ratio", "New over old probability of one action token, at most."),
    ("n_clusters", "Clusters of successes", "Ways of succeeding told apart; with coverage, all known successes."),
    ("episodes_per_s", "Episodes per second", "Of the rollout."),
)
_NAMES = {
    "command": "Command",
    "git_commit": "Commit",
    "cpu": "Processor",
    "platform": "System",
    "seed": "Seed",
}


def interval(rate: Rate) -> str:
    """``33.0 to 59.6 %``."""
    low, high = rate.interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """(name, value, detail) of the key figures."""
    out = [("RL steps", str(run.last_step), f"of {run.planned_steps}" if run.planned_steps else "")]
    episodes = number(run.rows[-1].get("episodes"))
    if episodes is not None:
        out.append(("Training episodes", f"{episodes:,.0f}", ""))
    steps = [v for v in run.column("env_steps") if v is not None]
    if steps:
        out.append(("Simulator steps", f"{sum(steps):,.0f}", ""))
    total = sum(v or 0 for v in run.column("seconds_total"))
    if total:
        out.append(("Training time", duration(total), ""))
    both, gained, lost = run.paired()
    if both:
        out.append(("Starts newly solved", str(gained), f"{lost} lost, of {both}"))
    return out


def learning(run: Run) -> dict[str, Any]:
    """The learning curve in two shapes, and its legend."""
    training, evaluation = run.training_curve(), run.evaluation_curve()
    legend = [("train", "training rollouts (sampled)")] if training else []
    if run.before:
        legend.append(("before", "evaluation before"))
    if len(evaluation) > (run.before is not None):
        legend.append(("after", "evaluation on the way and after"))
    title = "Success rate per RL step with 95 % intervals. " + "; ".join(
        f"step {step}: {percent(rate.share)}" for step, rate in evaluation or training
    )
    legend.append(("other", "bars and band: Wilson 95 % interval"))
    draw = {
        name: Markup(charts.chart(_learning_axes(run, *size), *_learning_marks(run), title=title, y_format=_percent))
        for name, size in (("wide", (980, 400)), ("narrow", (390, 330)))
    }
    return {"legend": legend, **draw}


def _learning_axes(run: Run, width: int, height: int) -> Axes:
    steps = [step for step, _ in [*run.training_curve(), *run.evaluation_curve()]] or [0, 1]
    return Axes(
        width,
        height,
        x=(0, max(1, *steps)) if run.before else (min(steps), max(steps)),
        y=(0, 1),
        right=24,
        left=52,
    )


def _learning_marks(run: Run) -> tuple[list[Line], list[Point]]:
    curve = run.training_curve()
    lines = []
    if curve:
        bounds = [rate.interval for _, rate in curve]
        lines.append(
            Line(
                [step for step, _ in curve],
                [rate.share for _, rate in curve],
                "train",
                [low for low, _ in bounds],
                [high for _, high in bounds],
                dots=len(curve) <= 60,
                label="training rollouts",
            )
        )
    points = []
    evaluation = run.evaluation_curve()
    for i, (step, rate) in enumerate(evaluation):
        first = i == 0 and run.before is not None
        label = f"evaluation at step {step}: {rate.successes} of {rate.episodes}, {interval(rate)}"
        tag = percent(rate.share) if first or i == len(evaluation) - 1 else ""
        points.append(Point(step, rate.share, *rate.interval, "before" if first else "after", label, tag))
    return lines, points


def tasks(run: Run) -> list[dict[str, Any]]:
    """One row per task, and one for all if there are several; empty without evaluations."""
    rows = []
    for task, instruction in run.instructions.items():
        rates = [part.by_task.get(task) if part else None for part in (run.before, run.after)]
        rows.append(_task_row(instruction, task, *rates))
    if len(rows) > 1:
        before = run.before.overall if run.before else None
        after = run.after.overall if run.after else None
        total = _task_row("All tasks", f"{len(rows)} tasks", before, after)
        rows.append(total | {"all": True})
    return rows


def _task_row(name: str, task: str, before: Rate | None, after: Rate | None) -> dict[str, Any]:
    change = ""
    if before and after:
        points = round(100 * (after.share - before.share))
        change = f"{points:+d} points".replace("-", "−") if points else "±0 points"
    bar = charts.interval_bar(_span(before), _span(after), f"{name}: 95 % intervals before and after")
    return {
        "name": name,
        "id": task,
        "before": _rate_cell(before),
        "after": _rate_cell(after),
        "change": change,
        "bar": Markup(bar),
        "all": False,
    }


def _span(rate: Rate | None) -> tuple[float, float, float] | None:
    return None if rate is None else (rate.interval[0], rate.share, rate.interval[1])


def _rate_cell(rate: Rate | None) -> dict[str, str] | None:
    if rate is None:
        return None
    return {
        "percent": percent(rate.share),
        "count": f"{rate.successes}/{rate.episodes}",
        "interval": interval(rate),
    }


def tasks_text(run: Run) -> str:
    """What the table's numbers are."""
    return "Successes of all evaluation episodes, with Wilson 95 % intervals."


def multiples(run: Run) -> list[dict[str, Any]]:
    """Small charts of the training's own numbers; columns without values are left out."""
    steps = [number(row.get("step")) or 0.0 for row in run.rows]
    out = []
    for column, title, text in _MULTIPLES:
        values = run.column(column)
        if all(v is None for v in values):
            continue
        low = high = None
        if column == "reward_failure_mean":
            spread = run.column("reward_failure_std")
            low = [None if v is None else max(0.0, v - (s or 0)) for v, s in zip(values, spread, strict=True)]
            high = [None if v is None else v + (s or 0) for v, s in zip(values, spread, strict=True)]
        line = Line(steps, values, "train", low, high, label=title)
        share = column == "clip_fraction"
        axes = Axes(
            330, 190, (steps[0], steps[-1]), charts.extent([*values, *(low or []), *(high or [])]), right=8, bottom=26
        )
        svg = charts.chart(
            axes, [line], title=title, x_label="", y_format=_fine_percent if share else _compact, y_ticks=3
        )
        out.append({"title": title, "text": text, "chart": Markup(svg)})
    return out


def graded(run: Run, embed: Callable[[str], str | None]) -> dict[str, Any] | None:
    """Progress curves of graded episodes, with frames where the run kept them; None without curves."""
    values = run.graded or {}
    curves = [curve for curve in values.get("curves", []) if curve.get("progress")]
    if not curves:
        return None
    lines = [_progress_line(curve) for curve in sorted(curves, key=lambda c: c["label"] != "success")]
    x = (0.0, float(max(max(line.x) for line in lines)))
    y = charts.extent([v for line in lines for v in line.y])
    y = (min(0.0, y[0]), max(1.0, y[1]))
    draw = {
        name: Markup(
            charts.chart(
                Axes(width, height, x, y, right=24),
                lines,
                title="Progress over control steps",
                x_label="control step",
            )
        )
        for name, width, height in (("wide", 980, 330), ("narrow", 390, 280))
    }
    strips = []
    for curve in curves:
        frames = [source for name in curve.get("thumbnails", []) if (source := embed(name))]
        if frames:
            axes = Axes(440, 120, x, y, left=36, right=8, bottom=24)
            svg = charts.chart(axes, [_progress_line(curve)], title=curve["label"], x_label="", y_ticks=2)
            title = f"{curve['label'].capitalize()}, reward {curve['reward']:.2f}"
            strips.append({"title": title, "chart": Markup(svg), "frames": frames})
    shared = [source for name in values.get("thumbnails", []) if (source := embed(name))]
    return {"text": _graded_text(run, values, curves), "strips": strips, "shared": shared, **draw}


def _graded_text(run: Run, values: dict[str, Any], curves: list[dict[str, Any]]) -> str:
    task = run.instructions.get(values.get("task", ""), values.get("task", ""))
    rewards = [float(c["reward"]) for c in curves if c["label"] != "success"]
    text = f"Progress of {len(curves)} episodes" + (f" of “{task}”" if task else "")
    if values.get("clustering") == "coverage":
        text += ", by the share of the moments of this step's successes that the episode so far has had too"
        text += " (rewards know earlier successes as well, and may rank otherwise)."
    else:
        text += ", by the distance of the episode so far to the successes in the world model's latent space"
        text += " (1: the nearest any of them came, 0: the farthest)."
    if rewards:
        span = f"from {min(rewards):.2f} to {max(rewards):.2f}" if len(rewards) > 1 else f"{rewards[0]:.2f}"
        text += f" The failures were rewarded {span}, a success always 1."
    return text


def _progress_line(curve: dict[str, Any]) -> Line:
    style = "won" if curve["label"] == "success" else "lost"
    label = f"{curve['label']}, reward {curve['reward']:.2f}"
    return Line(curve["steps"], [number(v) for v in curve["progress"]], style, label=label)


def times(run: Run) -> dict[str, Any]:
    """Seconds per phase as a bar; empty without times."""
    names = sorted({c for row in run.rows for c in row if c.startswith("seconds_") and c != "seconds_total"})
    sums = {name.removeprefix("seconds_"): sum(v or 0 for v in run.column(name)) for name in names}
    total = sum(v or 0 for v in run.column("seconds_total")) or sum(sums.values())
    if not total:
        return {"phases": []}
    rest = total - sum(sums.values())
    if rest > 0.005 * total:
        sums["other"] = rest
    order = sorted((item for item in sums.items() if item[1] > 0), key=lambda item: -item[1])
    styles = ["train", "after", "third", *["other"] * len(order)]
    phases = [
        {"name": name, "style": style, "duration": duration(seconds), "percent": percent(seconds / total)}
        for (name, seconds), style in zip(order, styles, strict=False)
    ]
    bar = charts.stacked_bar(
        [(style, seconds / total) for (_, seconds), style in zip(order, styles, strict=False)],
        "time per phase",
    )
    count = len(run.rows)
    text = f"{duration(total)} for {count} RL step{'' if count == 1 else 's'}, {total / count:.1f} s each."
    evaluations = sum(number(e.get("seconds")) or 0 for part in (run.before, run.after) if part for e in part.episodes)
    if evaluations:
        text += f" The evaluations took another {duration(evaluations)}, summed over the rollout processes."
    return {"phases": phases, "time_bar": Markup(bar), "time_text": text}


def origin(run: Run) -> dict[str, Any]:
    """Versions, machine, seed, command and all settings."""
    values = dict(run.provenance)
    command = values.pop("command", None)
    evaluation = run.after or run.before
    rows = [(_NAMES.get(name, name), _text(value)) for name, value in values.items() if value is not None]
    if evaluation:
        for name in ("checkpoint", "protocol", "decoding"):
            if evaluation.values.get(name):
                rows.append((f"Evaluated {name}", _text(evaluation.values[name])))
    return {"origin": rows, "recorded": bool(run.provenance), "command": command, "settings": list(_flat(run.config))}


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _percent(y: float) -> str:
    return f"{100 * y:.0f} %"


def _fine_percent(y: float) -> str:
    return f"{100 * y:g} %"


def _compact(y: float) -> str:
    return f"{y:.3g}"
