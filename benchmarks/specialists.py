"""One policy a task, then one for all: practise every task of a suite by itself, and clone what succeeded.

    python benchmarks/specialists.py --suite libero_spatial --policy results/libero_spatial/easy/srpo_0/policy \\
        --practised results/libero_spatial/easy/srpo_0 --demos runs/suite/libero_spatial/demos --steps 40

A step of a joint run has about one group a task, and what teaches one task does little for the others. Here every task
has a run of its own from the same policy (``srpo train --tasks K``), RL steps by its share of the failures among the
last single attempts of the run that made the policy (none of these is an evaluation); then ``srpo distil`` clones one
policy from the successes of all ten, labelled by the policies that practised. Each run evaluates its task on held-out
initial states before and after, and ``srpo eval`` the policy for all. Everything is resumable: run it again to
continue.

Writes RESULTS/SUITE/specialists_SEED: settings and CSV of every run, evaluations, ``table.md``, times.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

import numpy as np

from libero_suite import KEPT, PRESET, stage
from srpo import presets
from srpo.evaluation.intervals import wilson
from srpo.tracking import read_csv

#: As the demo, which practises one task; but noise lasts over decisions, so that less of it does.
SETTINGS = [
    "--temperature", "0.3", "--learner.learning-rate", "5e-5", "--learner.target-kl", "0.1", "--learner.warmup", "0",
    "--schedule", "constant", "--distil.every", "0", "--distil.keep", "True", "--videos", "0",
]  # fmt: skip


def shares(practised: Path, tasks: int, last: int = 32) -> np.ndarray:
    """Every task's share of the failures among its ``last`` newest single attempts (a share is never nothing)."""
    failed = np.ones(tasks)
    for k in range(tasks):
        groups = [r for r in read_csv(practised / "groups.csv") if str(r["task"]).endswith(f"/{k}")]
        single = [r["successes"] for r in groups if r["episodes"] == 1][-last:]
        failed[k] += len(single) - sum(single)
    return failed / failed.sum()


def allotted(total: int, share: np.ndarray, least: int = 2) -> list[int]:
    """RL steps a task: ``least``, and of what remains its share, by the largest remainders."""
    spare = (total - least * len(share)) * share
    steps = np.floor(spare).astype(int)
    for k in np.argsort(steps - spare)[: total - least * len(share) - steps.sum()]:
        steps[k] += 1
    return (steps + least).tolist()


def kept(source: Path, target: Path, names: tuple[str, ...], machine: Path) -> None:
    """Copy small files, paths of this machine shortened."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        text = (source / name).read_text().replace(f"{machine}/", "runs/specialists/")
        if name.startswith("eval"):
            result = json.loads(text)
            result.pop("episodes", None)
            text = json.dumps(result, indent=1) + "\n"
        (target / name).write_text(text)


def line(label: str, counts: list[tuple[int, int]]) -> str:
    """A row of the table, with its sum."""
    won, of = (sum(c[i] for c in counts) for i in (0, 1))
    low, high = wilson(won, of)
    return f"| {label} | {' | '.join(str(w) for w, _ in counts)} | {won} of {of} [{low:.0%}, {high:.0%}] |"


def main() -> None:
    """See the module's docstring."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=tuple(PRESET), default="libero_spatial")
    parser.add_argument("--policy", type=Path, required=True, help="where every task's practice starts")
    parser.add_argument("--practised", type=Path, required=True, help="the run that made it, for its groups.csv")
    parser.add_argument("--demos", type=Path, required=True, help="folder of srpo collect")
    parser.add_argument("--steps", type=int, default=40, help="RL steps of 80 episodes, of all tasks together")
    parser.add_argument("--distil-steps", type=int, default=6000, help="gradient steps of the final cloning")
    parser.add_argument("--states", type=int, default=40, help="held-out initial states a task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/specialists"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    options, more = parser.parse_known_args()
    name, n_tasks = PRESET[options.suite], 10
    if options.steps < 2 * n_tasks:
        sys.exit(f"--steps must be {2 * n_tasks} or more: two for every task.")
    work = options.work.resolve() / f"{options.suite}_{options.seed}"
    steps = allotted(options.steps, shares(options.practised, n_tasks))
    seed, times = ["--seed", str(options.seed)], work / "times.json"
    print("RL steps a task:", *steps, flush=True)
    try:
        for k in np.argsort(steps)[::-1]:  # where most is to be learnt first
            run = work / f"task_{k}"
            if not (run / "eval_after.json").is_file():
                stage(
                    ["train", name, *seed, "--policy", str(options.policy), "--run", str(run), "--resume", "--tasks",
                     str(k), "--steps", str(steps[k]), "--evaluation-states", str(options.states), "--demonstrations",
                     str(options.demos), *SETTINGS, *more], work / "log.txt", times,
                )  # fmt: skip
            after = json.loads((run / "eval_after.json").read_text())["overall"]
            print(f"task {k}: {after['successes']} of {after['episodes']}", flush=True)
        runs = [str(work / f"task_{k}") for k in range(n_tasks)]
        if not (work / "one/policy").is_dir():
            stage(
                ["distil", name, *seed, "--runs", *runs, "--run", str(work / "one"), "--distil.steps",
                 str(options.distil_steps), "--distil.demonstration-weight", "10"], work / "log.txt", times,
            )  # fmt: skip
        if not (work / "one/eval.json").is_file():
            decoding = presets.preset(name).train.decoding
            stage(
                ["eval", str(work / "one/policy"), "--suite", options.suite, "--states", str(options.states),
                 "--decoding", str(decoding), "--out", str(work / "one")], work / "log.txt", times,
            )  # fmt: skip
    except KeyboardInterrupt:
        sys.exit("Stopped; what is done is kept. Run the same command again to continue.")
    target = options.results / options.suite / f"specialists_{options.seed}"
    for k in range(n_tasks):
        kept(
            work / f"task_{k}", target / f"task_{k}", (*KEPT, "eval_before.json", "eval_after.json"),
            options.work.resolve(),
        )  # fmt: skip
    kept(work / "one", target, ("distil_config.json", "distil_provenance.json", "eval.json"), options.work.resolve())
    (target / "times.json").write_text(times.read_text())

    def counts(files: list[Path]) -> list[tuple[int, int]]:
        rates = {k: v for file in files for k, v in json.loads(file.read_text())["tasks"].items()}
        return [
            (rates[f"{options.suite}/{k}"]["successes"], rates[f"{options.suite}/{k}"]["episodes"])
            for k in range(n_tasks)
        ]

    lines = [f"| task | {' | '.join(map(str, range(n_tasks)))} | all |", "|---" * (n_tasks + 2) + "|"]
    lines.append(f"| RL steps | {' | '.join(map(str, steps))} | {sum(steps)} |")
    for label, phase in (("before", "before"), ("one policy a task", "after")):
        lines.append(line(label, counts([target / f"task_{k}/eval_{phase}.json" for k in range(n_tasks)])))
    lines.append(line("one policy for all", counts([target / "eval.json"])))
    (target / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
