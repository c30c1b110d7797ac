"""From the clone to one policy for all: the stages of `libero_suite.py` and then `specialists.py`, of what is there.

    python benchmarks/stages.py --suite libero_spatial

Writes RESULTS/SUITE/stages.md and stages.png: for every method and seed that got to one policy for all, held-out
success (Wilson's 95 % interval) at the start, after the joint run and of the final policies, against the training
episodes and RL steps (of 80 episodes) behind them. Hours are wall-clock and CPU hours from the clone on, with the
evaluations by the median before, between and after; of several final policies, each has its own cloning only.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

from srpo.evaluation.intervals import wilson
from suite_methods import PRESET, STARTS
from suite_results import rows_of

COLOURS = {"srpo": "#0a7d5f", "grpo": "#b35a00", "sparse": "#5566cc"}


class Stage(NamedTuple):
    """A policy on the way: RL steps, episodes, wall-clock and CPU seconds behind it; held-out attempts."""

    name: str
    steps: int
    episodes: int
    wall: float
    cpu: float
    successes: int
    attempts: int


def seconds(file: Path) -> dict[str, tuple[float, float]]:
    """Wall-clock and CPU seconds of each command in a ``times.json``."""
    return {k: (v["wall"], v["cpu"]) for k, v in json.loads(file.read_text()).items()}


def overall(*files: Path) -> tuple[int, int]:
    """Successes and attempts of evaluations, summed."""
    found = [json.loads(file.read_text())["overall"] for file in files]
    return sum(f["successes"] for f in found), sum(f["episodes"] for f in found)


def stages(folder: Path, joint: Path) -> list[Stage]:
    """What led to the policies of a folder of ``specialists.py``, from the joint run that it went on from."""
    rows = rows_of(joint)
    steps, episodes = int(rows["step"][-1]), int(rows["episodes"][-1])
    wall, cpu = seconds(joint / "times.json")["train"]
    tasks = sorted(folder.glob("task_*"))
    found = [
        Stage("clone", 0, 0, 0.0, 0.0, *overall(joint / "eval_before.json")),
        Stage("practised jointly", steps, episodes, wall, cpu, *overall(*(t / "eval_before.json" for t in tasks))),
    ]
    spent = {"distil": (0.0, 0.0), "eval": (0.0, 0.0)}
    for number in sorted(int(f.parent.name[4:]) for f in folder.glob("one_*/times.json")):
        one = folder / f"one_{number}"
        settings = json.loads((one / "distil_config.json").read_text())["distil"]["distil"]
        attempts = settings["rounds"] * settings["attempts"] * len(tasks)
        now = seconds(one / "times.json")
        total = [now["train"][i] + sum(now[k][i] - spent[k][i] for k in spent) for i in (0, 1)]
        spent = {k: now[k] for k in spent}
        behind = (steps + number, episodes + 80 * number + attempts, wall + total[0], cpu + total[1])
        found.append(Stage("one for all", *behind, *overall(one / "eval.json")))
    return found


def table(runs: dict[tuple[str, str], list[Stage]]) -> str:
    """Markdown, a line a policy."""
    lines = ["| method | seed | policy | RL steps | episodes | held out | hours | CPU hours |", "|---" * 8 + "|"]
    for (method, seed), found in runs.items():
        for s in found:
            low, high = wilson(s.successes, s.attempts)
            won = f"{s.successes} of {s.attempts} [{low:.0%}, {high:.0%}]"
            hours = f"{s.wall / 3600:.2f} | {s.cpu / 3600:.2f}" if s.steps else "- | -"
            lines.append(f"| {method} | {seed} | {s.name} | {s.steps} | {s.episodes} | {won} | {hours} |")
    return "\n".join(lines) + "\n"


def figure(runs: dict[tuple[str, str], list[Stage]], path: Path) -> None:
    """Held-out success against episodes: a line a run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6.4, 4.0), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots()
    for (method, seed), found in runs.items():
        rates = [s.successes / s.attempts for s in found]
        bounds = [wilson(s.successes, s.attempts) for s in found]
        below = [r - low for r, (low, _) in zip(rates, bounds, strict=True)]
        above = [high - r for r, (_, high) in zip(rates, bounds, strict=True)]
        axes.errorbar(
            [s.episodes for s in found], rates, yerr=[below, above], label=f"{method}, seed {seed}", marker="o", ms=4,
            lw=1.2, capsize=3, color=COLOURS[method], ls=("-", "--", ":", "-.")[int(seed) % 4],
        )  # fmt: skip
    axes.axhline(0.97, color="#999999", lw=0.8, ls=":")
    axes.set(xlabel="training episodes", ylabel="held-out success", ylim=(0, 1.01))
    axes.legend(frameon=False, loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    drawing.savefig(path)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=tuple(PRESET), default="libero_spatial")
    parser.add_argument("--start", choices=tuple(STARTS), default="easy", help="of the joint runs")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    results = options.results / options.suite
    runs = {}
    for folder in sorted({file.parents[1] for file in results.glob("specialists_*/one_*/times.json")}):
        method, _, seed = folder.name.removeprefix("specialists_").rpartition("_")
        method = method or "srpo"
        runs[method, seed] = stages(folder, results / options.start / f"{method}_{seed}")
    if not runs:
        sys.exit(f"{results} holds no final policy of benchmarks/specialists.py yet.")
    (results / "stages.md").write_text(table(runs))
    figure(runs, results / "stages.png")
    print(table(runs), end="")


if __name__ == "__main__":
    main()
