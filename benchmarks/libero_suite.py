"""SRPO against GRPO on a whole LIBERO suite, from one or two demonstrations a task.

    python benchmarks/libero_suite.py --suite libero_spatial --starts easy hard --seeds 0 1 2

Per start: the preset's demonstrations, a language-conditioned policy cloned from them (easy: the preset's gradient
steps, hard: fewer), one for all seeds unless ``--clone-seed`` says which; then every method from this checkpoint with
the same seeds and the same number of episodes, evaluated on held-out initial states before and after. Methods that
grade failures practise most what fails most; those with the 0/1 reward, to which a group that all fails says nothing,
what is most uncertain. A new policy is cloned from the own successes after 15 steps, by all methods alike but those
that say so. Everything is resumable: run it again to continue, or with a larger ``--episodes`` to go on from where a
run ended, as the larger number at once would have.
Small files of every run (settings, CSV, evaluations, the commit that made them) are kept under ``results/``, with a
table and the learning curves; checkpoints and videos under ``--work``.

Policies are evaluated by the median of each token's distribution, and sampled at the temperature of practice. Success
during training is that of sampled episodes from initial states not seen before, of each task's last 16 (32 without
probes), mean over the tasks (``success_recent``); "episodes to 80 %" is the first step at which it is there. Methods
are options of ``srpo train`` (`METHODS`).
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import numpy as np
from scipy import stats

from srpo import presets
from srpo.evaluation.intervals import wilson
from srpo.tracking import read_csv

PRESET = {"libero_spatial": "libero-spatial", "libero_object": "libero-object"}
#: Gradient steps of cloning, where not the preset's. (A clone that was stopped early gains from the demonstrations when
#: they are cloned again: compare with one that was not, or set --distil.demonstration-weight 0.)
STARTS: dict[str, dict[str, int]] = {"easy": {}, "hard": {"libero_spatial": 200, "libero_object": 150}}
_DEMOS = ["--demonstrations", "DEMOS"]  # the folder is put in
_EPISODE = ["--credit", "episode", "--normalise-std", "True"]
_NO_DISTIL = ["--distil.every", "0"]
_PAPER = [*_DEMOS, "--clustering", "dbscan", "--replay", "64", "--normalise-std", "True", "--fade-grades", "False"]
_SPARSE = ["--reward", "sparse", "--task-sampling", "uncertain"]
METHODS: dict[str, list[str]] = {
    "srpo": _DEMOS,
    "grpo": [*_DEMOS, *_SPARSE, *_EPISODE],
    "sparse": [*_DEMOS, *_SPARSE],  # GRPO with credit by decision
    "srpo-no-distil": [*_DEMOS, *_NO_DISTIL],
    "grpo-no-distil": [*_SPARSE, *_EPISODE, *_NO_DISTIL],
    # Nothing but new policies, to the end.
    "clone-only": [*_DEMOS, *_SPARSE, "--learner.learning-rate", "0", "--distil.last", "0"],
    "paper": _PAPER,
    "paper-siirl": [*_PAPER, "--formula", "siirl"],
    "paper-nearest": [*_PAPER, "--clustering", "nearest"],
    "srpo-pixels": [*_DEMOS, "--rollout.world-model", "pixels"],
    "srpo-random": [*_DEMOS, "--rollout.world-model", "image-random"],
    "srpo-image-proprio": [*_DEMOS, "--rollout.world-model", "image-proprio"],
    "srpo-true": [*_DEMOS, "--rollout.true-progress", "True"],
    "srpo-ungraded": [*_DEMOS, "--reward", "sparse"],  # everything else as in SRPO
    "srpo-dbscan": [*_DEMOS, "--clustering", "dbscan"],
    "srpo-siirl": [*_DEMOS, "--formula", "siirl"],
    "srpo-alpha-0.3": [*_DEMOS, "--alpha", "0.3"],
    "srpo-no-fade": [*_DEMOS, "--fade-grades", "False"],
    "srpo-new-states": [*_DEMOS, "--revisit", "0", "--probes", "0", "--groups", "10"],
    "srpo-constant-rate": [*_DEMOS, "--schedule", "constant"],
    "srpo-uncertain": [*_DEMOS, "--task-sampling", "uncertain"],
    "srpo-fresh-noise": [*_DEMOS, "--rollout.noise-persistence", "0", "--temperature", "0.25"],
    "srpo-all-weights": [*_DEMOS, "--learner.frozen", ""],
    "srpo-no-replay": [*_DEMOS, "--replay", "0"],
    "srpo-std": [*_DEMOS, "--normalise-std", "True"],
    "srpo-lambda-1": [*_DEMOS, "--gae-lambda", "1"],
    "srpo-equal-tokens": [*_DEMOS, "--token-weights", "equal"],
    "srpo-one-temperature": [*_DEMOS, "--gripper-temperature", "none"],
}
CLI = ("-m", "srpo.cli")
#: What runs ``srpo train`` of a method, where not the command itself.
PROGRAMS = {"srpo-true": (str(Path(__file__).with_name("true_grades.py")),)}
KEPT = ("config.json", "metrics.csv", "groups.csv", "provenance.json")
KEPT_SFT = ("sft.csv", "sft_config.json", "sft_provenance.json")


def stage(command: list[str], log: Path, times: Path, program: tuple[str, ...] = CLI) -> None:
    """One command of ``srpo``; its wall-clock and CPU seconds are added to those of earlier tries."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("a") as file:
            child = subprocess.Popen([sys.executable, *program, *command], stdout=file, stderr=file)
            try:
                code = child.wait()
            except KeyboardInterrupt:
                child.terminate()  # and not killed: its workers' CPU seconds are known once it has waited for them
                child.wait()
                raise
    finally:  # an interrupted try counts too
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = json.loads(times.read_text()) if times.is_file() else {}
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        old = spent.get(command[0], {"wall": 0.0, "cpu": 0.0})
        wall = old["wall"] + time.monotonic() - start
        spent[command[0]] = {"wall": round(wall, 1), "cpu": round(old["cpu"] + cpu, 1)}
        times.write_text(json.dumps(spent) + "\n")
    if code:
        sys.exit(f"srpo {command[0]} failed; its last words are in {log}. Run the same command again to continue.")


def run(options: argparse.Namespace, start: str, method: str, seed: int) -> None:
    """One seed of one method from one start, to the end of its budget."""
    name = PRESET[options.suite]
    chosen = presets.preset(name)
    place = Path(options.suite) / start
    work = options.work / place
    demos = options.work / options.suite / "demos"
    cloned = work / f"sft_{options.clone_seed}"
    if not (cloned / "policy/model.safetensors").is_file():
        # Of demonstrations that are there, none is made again.
        stage(["collect", name, "--out", str(demos)], demos.parent / "collect.log", demos.parent / "times.json")
        steps = STARTS[start].get(options.suite, chosen.sft.steps)
        cloned.mkdir(parents=True, exist_ok=True)
        stage(
            ["sft", name, "--seed", str(options.clone_seed), "--steps", str(steps), "--demos", str(demos), "--run",
             str(cloned), "--resume"], cloned.with_suffix(".log"), cloned / "times.json",
        )  # fmt: skip
    folder = work / f"{method}_{seed}"
    kept = options.results / place / f"{method}_{seed}"
    per_step = chosen.train.episodes_per_step
    steps = options.episodes // per_step if options.episodes else chosen.train.steps
    shared = work / f"before_{options.clone_seed}_{options.states}.json"  # the same for all
    if episodes_of(folder) < steps * per_step or not (folder / "eval_after.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        if shared.is_file() and not (folder / "eval_before.json").is_file():
            (folder / "eval_before.json").write_bytes(shared.read_bytes())
        stage(
            ["train", name, "--seed", str(seed), "--policy", str(cloned / "policy"), "--run", str(folder), "--resume",
             "--steps", str(steps), "--evaluation-states", str(options.states),
             *(str(demos) if o == "DEMOS" else o for o in METHODS[method]), *options.train],
            work / f"{method}_{seed}.log", folder / "times.json", PROGRAMS.get(method, CLI),
        )  # fmt: skip
        shared.write_bytes((folder / "eval_before.json").read_bytes())
    kept.mkdir(parents=True, exist_ok=True)
    paths = {f"{options.work.resolve()}/": "runs/suite/"}
    for source in [*(folder / file for file in KEPT), *(cloned / file for file in KEPT_SFT)]:
        (kept / source.name).write_text(small(source, paths))
    log, times = work / f"{method}_{seed}.log", folder / "times.json"
    states = ["--suite", options.suite, "--states", str(options.states)]
    sampled = [*states, "--decoding", "sample", "--temperature", str(chosen.train.temperature)]
    at_practice = [*states, "--decoding", chosen.train.decoding, "--practised", str(folder)]
    results = {"before": folder / "eval_before.json", "after": folder / "eval_after.json"}
    if not options.brief:
        results |= {
            "before_sampled": evaluated(cloned / "policy", shared.with_suffix("") / "sampled", sampled, log, times),
            "after_sampled": evaluated(folder / "policy", folder / "sampled", sampled, log, times),
            "practised": evaluated(folder / "policy", folder / "practised", at_practice, log, times),
        }
    for name, file in results.items():
        (kept / f"eval_{name}.json").write_text(small(file, paths))
    (kept / "times.json").write_text(json.dumps(json.loads(times.read_text())) + "\n")


def small(file: Path, paths: dict[str, str]) -> str:
    """What is kept of a file: its text with ``paths`` of this machine replaced, of an evaluation without its
    episodes."""
    text = file.read_text()
    for path, short in paths.items():
        text = text.replace(path, short)
    if file.name.startswith("eval"):
        result = json.loads(text)
        result.pop("episodes", None)
        text = json.dumps(result, indent=1) + "\n"
    return text


def evaluated(policy: Path, out: Path, options: list[str], log: Path, times: Path) -> Path:
    """The result of ``srpo eval``, which runs unless there is one that is newer than the policy."""
    result = out / "eval.json"
    if not result.is_file() or result.stat().st_mtime < (policy / "model.safetensors").stat().st_mtime:
        stage(["eval", str(policy), *options, "--out", str(out)], log, times)
    return result


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
    empty with a single seed."""
    runs = [rows_of(folder) for folder in sorted(place.glob(f"{method}_[0-9]*"))]
    if len(runs) < 2:
        return np.empty(0), np.empty(0), np.empty(0)
    shortest = min((r["episodes"] for r in runs), key=len)
    curves = np.stack([r["success_recent"][: len(shortest)] for r in runs])
    half = stats.t.ppf(0.975, len(runs) - 1) * curves.std(0, ddof=1) / np.sqrt(len(runs))
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
        named = set()
        for folder in (f for f in folders(results) if f.parent.name == start):
            method, rows = folder.name.rpartition("_")[0], rows_of(folder)
            label = method if method not in named else None
            named.add(method)
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


def main() -> None:
    """See the module's docstring."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=tuple(PRESET), default="libero_spatial")
    parser.add_argument("--starts", nargs="+", choices=tuple(STARTS), default=["easy", "hard"])
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=["srpo", "grpo"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clone-seed", type=int, default=0, help="of the clone that all runs start from")
    parser.add_argument("--episodes", type=int, default=None, help="training episodes of a run; default: the preset's")
    parser.add_argument("--states", type=int, default=50, help="held-out initial states a task")
    parser.add_argument("--brief", action="store_true", help="evaluate by the median and on held-out states only")
    parser.add_argument("--work", type=Path, default=Path("runs/suite"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--figures", action="store_true", help="only the table and the figure, of what is there")
    options, options.train = parser.parse_known_args()
    results = options.results / options.suite
    if not options.figures:
        for seed in options.seeds:
            for start in options.starts:
                for method in options.methods:
                    try:
                        run(options, start, method, seed)
                    except KeyboardInterrupt:
                        sys.exit("Stopped; what is done is kept. Run the same command again to continue.")
                    print(f"{options.suite} {start} {method} {seed}: done", flush=True)
    if not folders(results):
        sys.exit(f"{results} holds no results yet.")
    tables = [t for t in (table(results), compared(results), per_task(results), single_attempts(results)) if t]
    (results / "table.md").write_text("\n\n".join(tables) + "\n")
    figure(results, results / "learning_curves.png")
    print((results / "table.md").read_text())


if __name__ == "__main__":
    main()
