"""SRPO against GRPO from a policy that mostly fails: every task of a suite by itself, until it is solved.

    python benchmarks/hard_start.py --suite libero_spatial --policy runs/suite/libero_spatial/hard/sft_0/policy \\
        --demos runs/suite/libero_spatial/demos --methods srpo grpo --seeds 0 --steps 4 8 12

The policy is one that ``libero_suite.py --starts hard`` has cloned. Every task is practised from it with the same seed
by every method, with the settings of ``specialists.py``: no demonstration is cloned again. A run goes on to the next of
``--steps`` unless `SOLVED` of its last 32 single attempts (16 a RL step, at initial states not seen before) succeeded.
Everything is resumable: run it again to continue, or with more ``--steps`` to go on.

"Episodes to 90 %" of a task is the first step at which 29 of its last 32 single attempts, which are sampled, succeeded,
times 80; "to 90 % held out" the first evaluation in which nine tenths did, by the median, so that ``--steps`` says how
finely that is known. Methods are compared by the ratio of their sums over the tasks and seeds that both have practised,
from two on with a bootstrap interval over them; where one of a pair is not there, both count no further than it went.
Writes RESULTS/SUITE/hard_METHOD_SEED, ``hard_start.md`` and ``hard_start.png``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from itertools import chain, cycle
from pathlib import Path

import numpy as np

from libero_suite import KEPT
from specialists import kept, line, train
from srpo import presets
from suite_methods import METHODS, PRESET
from suite_results import episodes_of, rows_of, single_outcomes

WINDOW, SOLVED = 32, 30
LEVELS = (0.5, 0.7, 0.8, 0.9)
HELD_OUT = 0.9
TASKS = range(10)


def single_attempts(run: Path) -> list[list[int]]:
    """The outcomes (0 or 1) of a run's single attempts, step by step."""
    return [outcomes for _, outcomes in sorted(single_outcomes(run).items())]


def recent(outcomes: list[list[int]]) -> np.ndarray:
    """(steps,) share of successes among the last `WINDOW` single attempts after every step; before there are as many,
    the missing ones count as failures."""
    seen = [list(chain(*outcomes[: s + 1]))[-WINDOW:] for s in range(len(outcomes))]
    return np.array([sum(s) / WINDOW for s in seen])


def steps_to(outcomes: list[list[int]], level: float) -> int | None:
    """RL steps until `recent` is at ``level``; None if it never is."""
    there = np.flatnonzero(recent(outcomes) >= level)
    return int(there[0]) + 1 if len(there) else None


def held_out(run: Path) -> dict[int, tuple[int, int]]:
    """RL steps -> (successes, attempts) of the evaluations that are kept."""
    found = {}
    for file in run.glob("eval_*.json"):
        after = file.stem.removeprefix("eval_")
        rate = json.loads(file.read_text())["overall"]
        named = {"before": 0, "after": len(rows_of(run)["episodes"])}
        found[named[after] if after in named else int(after)] = (rate["successes"], rate["episodes"])
    return dict(sorted(found.items()))


def steps_to_held_out(run: Path, level: float) -> int | None:
    """RL steps until the first kept evaluation with a success of ``level``; None if there is none."""
    return next((steps for steps, (won, n) in held_out(run).items() if won >= level * n), None)


def as_far(there: tuple[int | None, ...], lengths: tuple[int, ...]) -> list[int]:
    """RL steps of two runs to a level; of one that never is there, as many as the shorter such run has, and of the
    other no more than that."""
    limit = min((n for n, s in zip(lengths, there, strict=True) if s is None), default=max(lengths))
    return [min(limit if s is None else s, limit) for s in there]


def solved(run: Path) -> bool:
    """Whether practice may end."""
    return bool((recent(single_attempts(run))[-1:] >= SOLVED / WINDOW).any())


def practise(options: argparse.Namespace, more: list[str], method: str, seed: int, task: int, steps: int) -> None:
    """One task's run, to ``steps`` RL steps unless it is solved or has as many; its evaluation after fewer of them is
    kept as ``eval_STEPS.json``."""
    work = options.work.resolve() / options.suite / f"hard_{method}_{seed}"
    run, after = work / f"task_{task}", work / f"task_{task}/eval_after.json"
    done = episodes_of(run) // presets.preset(PRESET[options.suite]).train.episodes_per_step
    if after.is_file() and (done >= steps or solved(run)):
        return
    run.mkdir(parents=True, exist_ok=True)
    if after.is_file():
        after.rename(run / f"eval_{done}.json")
    shared = options.work / options.suite / f"before_{options.states}_{task}.json"  # the same policy for all
    if shared.is_file() and not (run / "eval_before.json").is_file():
        (run / "eval_before.json").write_bytes(shared.read_bytes())
    train(options, more, method, seed, task, max(steps, done), work)
    shared.write_bytes((run / "eval_before.json").read_bytes())
    overall = json.loads(after.read_text())["overall"]
    print(f"{method} {seed} task {task}, {steps} steps: {overall['successes']} of {overall['episodes']}", flush=True)


def keep(options: argparse.Namespace, method: str, seed: int) -> None:
    """The small files of a method's runs, into the results."""
    work = options.work.resolve() / options.suite / f"hard_{method}_{seed}"
    target = options.results / options.suite / work.name
    paths = {
        f"{options.work.resolve()}/": "runs/hard_start/",
        str(options.demos.resolve().parent): f"runs/suite/{options.suite}",
    }
    for task in TASKS:
        if (work / f"task_{task}/eval_after.json").is_file():
            names = (*KEPT, *(file.name for file in (work / f"task_{task}").glob("eval_*.json")))
            kept(work / f"task_{task}", target / f"task_{task}", names, paths)
    (target / "times.json").write_text((work / "times.json").read_text())


def folders(results: Path) -> list[Path]:
    """hard_METHOD_SEED, as far as there are any."""
    return sorted(f for f in results.glob("hard_*_[0-9]*") if f.is_dir())


def task_rows(results: Path) -> str:
    """Markdown: of every method and seed, by task: held out before and after, successes of all attempts of practice,
    episodes to the levels, RL steps."""
    lines = []
    for folder in folders(results):
        runs = {k: folder / f"task_{k}" for k in TASKS if (folder / f"task_{k}").is_dir()}
        label = folder.name.removeprefix("hard_").replace("_", ", seed ")
        lines += [f"| {label} | {' | '.join(map(str, runs))} | all |", "|---" * (len(runs) + 2) + "|"]

        def counts(phase: str, runs: dict[int, Path] = runs) -> list[tuple[int, int]]:
            rates = [json.loads((r / f"eval_{phase}.json").read_text())["overall"] for r in runs.values()]
            return [(rate["successes"], rate["episodes"]) for rate in rates]

        outcomes = [single_attempts(r) for r in runs.values()]
        lengths = [len(o) for o in outcomes]
        won = [rows_of(r)["n_success"] for r in runs.values()]
        fours = [" ".join(f"{n[k : k + 4].sum():.0f}" for k in range(0, len(n), 4)) for n in won]
        lines.append(line("before, held out", counts("before")))
        lines.append(f"| attempts that succeed, every 4 steps | {' | '.join(fours)} | {sum(map(sum, won)):.0f} |")
        for level in LEVELS:
            there = [steps_to(o, level) for o in outcomes]
            cells = [str(80 * s) if s else "-" for s in there]
            lines.append(f"| episodes to {level:.0%} | {' | '.join(cells)} | {sum(map(bool, there))} tasks |")
        lines.append(f"| RL steps | {' | '.join(map(str, lengths))} | {sum(lengths)} |")
        on_the_way = [", ".join(f"{k}: {won}" for k, (won, _) in held_out(r).items()) for r in runs.values()]
        lines.append(f"| held out after steps | {' | '.join(on_the_way)} | |")
        lines += [line("after, held out", counts("after")), ""]
    return "\n".join(lines)


def compared(results: Path, baseline: str = "grpo", draws: int = 10_000) -> str:
    """Markdown: the methods' episodes to a level as a share of the baseline's, see the module's docstring."""
    heads = [f"to {level:.0%}" for level in LEVELS] + [f"to {HELD_OUT:.0%} held out"]
    lines = ["| method, seeds | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    named = {f.name.removeprefix("hard_").rpartition("_")[0] for f in folders(results)} - {baseline}
    for method in sorted(named):
        pairs, seeds = [], []
        for folder in folders(results):
            name, _, seed = folder.name.removeprefix("hard_").rpartition("_")
            other = folder.with_name(f"hard_{baseline}_{seed}")
            if name == method and other.is_dir():
                seeds.append(seed)
                both = [k for k in TASKS if (folder / f"task_{k}").is_dir() and (other / f"task_{k}").is_dir()]
                pairs += [(folder / f"task_{k}", other / f"task_{k}") for k in both]
        if not pairs:
            continue
        cells = []
        for level in (*LEVELS, None):
            there = [
                tuple(steps_to(single_attempts(r), level) if level else steps_to_held_out(r, HELD_OUT) for r in pair)
                for pair in pairs
            ]
            lengths = [tuple(len(single_attempts(r)) for r in pair) for pair in pairs]
            steps = np.array([as_far(s, n) for s, n in zip(there, lengths, strict=True)], float)
            missing = [sum(s[i] is None for s in there) for i in (0, 1)]
            steps = steps[steps.any(1)]  # those that are there before any practice tell nothing
            if not len(steps):
                cells.append("-")
                continue
            text = f"{steps[:, 0].sum() / steps[:, 1].sum():.2f}"
            if len(steps) > 1:
                sums = steps[np.random.default_rng(0).integers(len(steps), size=(draws, len(steps)))].sum(1)
                low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
                text += f" [{low:.2f}, {high:.2f}]"
            cells.append(f"{text} (not there: {missing[0]} and {missing[1]} of {len(steps)})")
        lines.append(f"| {method}, {' '.join(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def figure(results: Path, path: Path) -> None:
    """A panel a task: successes of all attempts of a step, in per cent, against episodes; colours are methods, line
    styles seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = [(f.name.removeprefix("hard_"), r) for f in folders(results) for r in sorted(f.glob("task_*"))]
    tasks = sorted({int(r.name.removeprefix("task_")) for _, r in runs})
    shades = ("#b35a00", "#999999", "#88ccee", "#0a7d5f", "#cc6677", "#5566cc", "#ddaa33", "#222222", "#aa4499")
    methods, seeds = (list(dict.fromkeys(label.rpartition("_")[i] for label, _ in runs)) for i in (0, 2))
    colours = dict(zip(methods, cycle(shades), strict=False))
    styles = dict(zip(sorted(seeds, key=int), cycle(("-", "--", ":", "-.")), strict=False))
    columns = min(5, len(tasks))
    drawing = Figure(figsize=(4.6 * columns, 5.4 * -(-len(tasks) // columns)), dpi=130, layout="constrained")
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(-(-len(tasks) // columns), columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, task in zip(panels, tasks, strict=False):
        for label, run in runs:
            if run.name == f"task_{task}":
                rows, (method, _, seed) = rows_of(run), label.rpartition("_")
                share = 100 * rows["n_success"] / rows["n_episodes"]
                look = {"color": colours[method], "ls": styles[seed], "label": f"{method}, seed {seed}"}
                axes.plot(rows["episodes"], share, lw=2, **look)
        axes.set(title=f"task {task}", xlabel="training episodes", ylim=(0, 101))
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize="small")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_ylabel("attempts that succeed, %")
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    drawing.savefig(path)


def main() -> None:
    """See the module's docstring."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=tuple(PRESET), default="libero_spatial")
    parser.add_argument("--policy", type=Path, help="where every task's practice starts")
    parser.add_argument("--demos", type=Path, help="folder of srpo collect")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=["srpo", "grpo"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=list(TASKS), help="in this order")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 12], help="RL steps of 80 episodes")
    parser.add_argument("--states", type=int, default=20, help="held-out initial states a task")
    parser.add_argument("--work", type=Path, default=Path("runs/hard_start"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--figures", action="store_true", help="only the table and the figure, of what is there")
    options, more = parser.parse_known_args()
    results = options.results / options.suite
    if not options.figures:
        if not options.policy or not options.demos:
            sys.exit("Pass --policy and --demos (benchmarks/libero_suite.py --starts hard makes both), or --figures.")
        for seed in options.seeds:
            for steps in options.steps:
                for task in options.tasks:
                    for method in options.methods:
                        try:
                            practise(options, more, method, seed, task, steps)
                        except KeyboardInterrupt:
                            sys.exit("Stopped; what is done is kept. Run the same command again to continue.")
                        keep(options, method, seed)
    if not folders(results):
        sys.exit(f"{results} holds no results of a hard start yet.")
    text = "\n\n".join(t for t in (compared(results), task_rows(results)) if t)
    (results / "hard_start.md").write_text(text + "\n")
    figure(results, results / "hard_start.png")
    print(text)


if __name__ == "__main__":
    main()
