"""What ``libero_suite.py`` keeps of its runs, read again: tables and the learning curves."""

from __future__ import annotations

import csv
import json
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from srpo.evaluation.intervals import wilson
from srpo.tracking import read_csv
from suite_methods import METHODS, STARTS


def episodes_of(folder: Path) -> int:
    """Training episodes that a run has behind it."""
    return int(rows_of(folder)["episodes"][-1]) if (folder / "metrics.csv").is_file() else 0


def rows_of(folder: Path) -> dict[str, np.ndarray]:
    """The columns of ``metrics.csv``."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {k: np.array([float(r[k] or "nan") for r in rows]) for k in rows[0]}


def episodes_to(rows: dict[str, np.ndarray], level: float) -> int | None:
    """Episodes until ``success_recent`` is at ``level``; None if it never is."""
    there = np.flatnonzero(rows["success_recent"] >= level)
    return int(rows["episodes"][there[0]]) if len(there) else None


def folders(results: Path) -> list[Path]:
    """The runs' folders of a suite's results: START/METHOD_SEED."""
    return sorted(f.parent for start in STARTS for f in (results / start).glob("*/metrics.csv"))


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    """Of an evaluation, of every task, "1" (a success) or "0" an attempt, in the order of the initial states; empty if
    neither its episodes nor their outcomes were kept."""
    found: dict[str, str] = dict(result.get("outcomes", {}))
    if not found:
        for episode in result.get("episodes", []):
            found[episode["task"]] = found.get(episode["task"], "") + str(int(episode["success"]))
    return found


def table(results: Path) -> str:
    """Markdown, one line a run."""
    levels = (0.5, 0.7, 0.8, 0.9, 0.95)
    phases = {"before": "before", "after": "after", "before_sampled": "before, sampled",
              "after_sampled": "after, sampled", "practised": "after, practised states"}  # fmt: skip
    head = ["start", "method", "seed", "episodes", *phases.values(), "practice, recent"]
    head += [f"to {level:.0%}" for level in levels] + ["hours of RL steps", "CPU hours"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for folder in folders(results):
        rows = rows_of(folder)
        method, _, seed = folder.name.rpartition("_")
        cells = [folder.parent.name, method, seed, str(int(rows["episodes"][-1]))]
        for phase in phases:
            if not (folder / f"eval_{phase}.json").is_file():  # of a run older than that evaluation
                cells.append("-")
                continue
            overall = json.loads((folder / f"eval_{phase}.json").read_text())["overall"]
            low, high = wilson(overall["successes"], overall["episodes"])
            cells.append(f"{overall['successes']}/{overall['episodes']} [{low:.0%}, {high:.0%}]")
        cells.append(f"{rows['success_recent'][-1]:.0%}")
        cells += [str(episodes_to(rows, level) or "-") for level in levels]
        spent = json.loads((folder / "times.json").read_text())["train"]
        cells += [f"{rows['seconds_total'].sum() / 3600:.2f}", f"{spent['cpu'] / 3600:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compared(results: Path, baseline: str = "grpo") -> str:
    """Markdown: of every method and level, the episodes it needs as a share of the baseline's, paired by seed;
    geometric mean and, from two seeds on, Student's 95 % interval. Empty where no seed has both."""
    levels = (0.5, 0.7, 0.8, 0.9, 0.95)
    lines = []
    for start in sorted({f.parent.name for f in folders(results)}):
        methods = sorted({f.name.rpartition("_")[0] for f in folders(results) if f.parent.name == start} - {baseline})
        for method in methods:
            cells = [start, method]
            for level in levels:
                logs = []
                for folder in sorted((results / start).glob(f"{method}_[0-9]*")):
                    other = folder.with_name(f"{baseline}_{folder.name.rpartition('_')[2]}")
                    if (other / "metrics.csv").is_file():
                        reached = [episodes_to(rows_of(f), level) for f in (folder, other)]
                        if all(reached):
                            logs.append(np.log(reached[0] / reached[1]))
                if not logs:
                    cells.append("-")
                    continue
                mean, text = float(np.mean(logs)), f" (n={len(logs)})"
                if len(logs) > 1:
                    half = stats.t.ppf(0.975, len(logs) - 1) * np.std(logs, ddof=1) / np.sqrt(len(logs))
                    text = f" [{np.exp(mean - half):.2f}, {np.exp(mean + half):.2f}]" + text
                cells.append(f"{np.exp(mean):.2f}{text}")
            if set(cells[2:]) != {"-"}:
                lines.append("| " + " | ".join(cells) + " |")
    if not lines:
        return ""
    head = ["start", f"episodes, as a share of {baseline}'s", *(f"to {level:.0%}" for level in levels)]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines])


def per_task(results: Path) -> str:
    """Markdown: held-out success of every task, summed over the seeds, before and after; the same evaluation of the
    clone that seeds have in common counts once."""
    counts: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    seen = set()
    for folder in folders(results):
        for phase in ("before", "after", "before_sampled", "after_sampled"):
            file = folder / f"eval_{phase}.json"
            key = (folder.parent.name, folder.name.rpartition("_")[0], phase.replace("_", ", "))
            rates = json.loads(file.read_text())["tasks"] if file.is_file() else {}
            if phase.startswith("before"):  # a clone made again is the same but for the date
                if (key, str(rates)) in seen:
                    continue
                seen.add((key, str(rates)))
            for task, rate in rates.items():
                cell = counts.setdefault(key, {}).setdefault(task.rpartition("/")[2], [0, 0])
                cell[0] += rate["successes"]
                cell[1] += rate["episodes"]
    if not counts:
        return ""
    tasks = sorted(next(iter(counts.values())), key=int)
    lines = ["| start | method | | " + " | ".join(tasks) + " |", "|---|---|---|" + "---|" * len(tasks)]
    for key, row in counts.items():
        lines.append("| " + " | ".join([*key, *(f"{row[t][0]}/{row[t][1]}" for t in tasks)]) + " |")
    return "\n".join(lines)


def single_outcomes(run: Path) -> dict[int, list[int]]:
    """RL step -> outcomes (0 or 1) of a run's single attempts, from its ``groups.csv``."""
    steps: dict[int, list[int]] = {}
    for row in read_csv(run / "groups.csv"):
        if row["episodes"] == 1:
            steps.setdefault(int(row["step"]), []).append(int(row["successes"]))
    return steps


def single_attempts(results: Path, length: int = 15) -> str:
    """Markdown: how many of the single attempts (as many of every task) succeed, by ``length`` steps."""
    counts: dict[tuple[str, str, str], list[list[int]]] = {}
    for folder in folders(results):
        for step, outcomes in (single_outcomes(folder) if (folder / "groups.csv").is_file() else {}).items():
            key = (folder.parent.name, *folder.name.rpartition("_")[::2])
            periods = counts.setdefault(key, [])
            period = (step - 1) // length
            periods.extend([0, 0] for _ in range(period + 1 - len(periods)))
            periods[period][0] += sum(outcomes)
            periods[period][1] += len(outcomes)
    if not counts:
        return ""
    most = max(map(len, counts.values()))
    heads = [f"steps {length * k + 1} to {length * (k + 1)}" for k in range(most)]
    lines = [f"| start | method | seed | {' | '.join(heads)} |", "|---|---|---|" + "---|" * most]
    for key, periods in counts.items():
        cells = [f"{won}/{of}" for won, of in periods] + ["-"] * (most - len(periods))
        lines.append("| " + " | ".join([*key, *cells]) + " |")
    return "\n".join(lines)


def over_seeds(place: Path, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Episodes, mean of ``success_recent`` over the seeds and half of Student's 95 % interval, as far as all seeds go;
    empty with a single seed. Of two the interval is NaN: 13 times their standard error, it would span the picture."""
    runs = [rows_of(folder) for folder in sorted(place.glob(f"{method}_[0-9]*"))]
    if len(runs) < 2:
        return np.empty(0), np.empty(0), np.empty(0)
    shortest = min((r["episodes"] for r in runs), key=len)
    curves = np.stack([r["success_recent"][: len(shortest)] for r in runs])
    half = stats.t.ppf(0.975, len(runs) - 1) * curves.std(0, ddof=1) / np.sqrt(len(runs))
    half = half if len(runs) > 2 else np.full_like(half, np.nan)
    return shortest, curves.mean(0), half


def figure(results: Path, path: Path) -> None:
    """Learning curves: a panel a start, a thin line a seed, the mean and its interval over seeds, methods by colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    starts = sorted({f.parent.name for f in folders(results)})
    shades = ("#0a7d5f", "#b35a00", "#5566cc", "#999999", "#cc6677", "#88ccee", "#ddcc77", "#aa4499")
    drawn = [m for m in METHODS if m in {f.name.rpartition("_")[0] for f in folders(results)}]
    colours = dict(zip(drawn, cycle(shades), strict=False))
    drawing = Figure(figsize=(5.2 * len(starts), 3.8), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(drawing)
    for axes, start in zip(drawing.subplots(1, len(starts), squeeze=False)[0], starts, strict=True):
        named: list[str] = []
        for folder in (f for f in folders(results) if f.parent.name == start):
            method, rows = folder.name.rpartition("_")[0], rows_of(folder)
            label = method if method not in named else None
            named += [method] if label else []
            axes.plot(rows["episodes"], rows["success_recent"], color=colours[method], lw=1, label=label)
        for method in named:
            episodes, mean, half = over_seeds(results / start, method)
            axes.plot(episodes, mean, color=colours[method], lw=2.5)
            axes.fill_between(episodes, mean - half, mean + half, color=colours[method], alpha=0.15, lw=0)
        axes.set(title=f"{start} start", xlabel="training episodes", ylabel="sampled success", ylim=(0, 1.01))
        axes.legend(frameon=False, loc="best")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path)
