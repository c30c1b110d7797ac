"""One policy a task, then one for all: practise every task of a suite by itself, and clone what succeeded.

    python benchmarks/specialists.py --suite libero_spatial --policy results/libero_spatial/easy/srpo_0/policy \\
        --practised results/libero_spatial/easy/srpo_0 --demos runs/suite/libero_spatial/demos --steps 60 --again 20

A step of a joint run has about one group a task, and what teaches one task does little for the others. Here every task
has a run of its own from the same policy (``srpo train --tasks K``), RL steps by its share of the failures among the
last single attempts of the run that made the policy (none of these is an evaluation), and ``--again`` more by its share
of the failures among the last attempts of its own run, as often as numbers are given; then ``srpo distil`` clones one
policy from the successes of all ten, labelled by the policies that practised; its weights start as those of the policy
that all started from, and in ``--rounds`` of 150 attempts it is corrected where it gets to itself. Each run evaluates
its task on held-out initial states before and after, and ``srpo eval`` the policy for all. Everything is resumable:
run it again to continue, or with one number more to ``--again`` to go on from where a run without it ended.

``--method grpo`` gives the tasks' runs that method's options (`suite_methods.METHODS`) in the same schedule; --policy
and --practised are then those of its own joint run.

Writes RESULTS/SUITE/specialists_SEED (of another method, specialists_METHOD_SEED): settings and CSV of every run,
evaluations, ``table.md``, times.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from libero_suite import KEPT, small, stage
from srpo import presets
from srpo.evaluation.intervals import wilson
from srpo.tracking import read_csv
from suite_methods import CLI, METHODS, PRESET, PROGRAMS
from suite_results import episodes_of

#: As the demo, which practises one task; but noise lasts over decisions, so that less of it does, and the rate is twice
#: as high at first and falls: docs/results.md has what a constant 5e-5 (``--schedule constant --learner.learning-rate
#: 5e-5 --learner.warmup 0``) came to.
SETTINGS = [
    "--temperature", "0.3", "--learner.learning-rate", "1e-4", "--learner.target-kl", "0.1", "--learner.warmup", "10",
    "--schedule", "sqrt", "--distil.every", "0", "--distil.keep", "True", "--videos", "0",
]  # fmt: skip


def failures(run: Path, task: int, last: int = 32) -> int:
    """How many of a task's ``last`` newest single attempts in a run failed."""
    groups = [r for r in read_csv(run / "groups.csv") if str(r["task"]).endswith(f"/{task}")]
    single = [r["successes"] for r in groups if r["episodes"] == 1][-last:]
    return len(single) - int(sum(single))


def allotted(total: int, weights: Sequence[int], least: int) -> list[int]:
    """RL steps a task: ``least``, and of what remains by weight, up to the largest remainders."""
    spare = (total - least * len(weights)) * np.array(weights) / max(1, sum(weights))
    steps = np.floor(spare).astype(int)
    for k in np.argsort(steps - spare, kind="stable")[: total - least * len(weights) - steps.sum()]:
        steps[k] += 1
    return (steps + least).tolist()


def kept(source: Path, target: Path, names: tuple[str, ...], paths: dict[str, str]) -> None:
    """Copy small files, ``paths`` of this machine replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        (target / name).write_text(small(source / name, paths))


def line(label: str, counts: list[tuple[int, int]]) -> str:
    """A row of the table, with its sum."""
    won, of = (sum(c[i] for c in counts) for i in (0, 1))
    low, high = wilson(won, of)
    return f"| {label} | {' | '.join(str(w) for w, _ in counts)} | {won} of {of} [{low:.0%}, {high:.0%}] |"


def train(
    options: argparse.Namespace, more: list[str], method: str, seed: int, task: int, steps: int, work: Path
) -> Path:
    """``srpo train`` of one task to ``steps`` RL steps in all; returns its evaluation afterwards."""
    run = work / f"task_{task}"
    stage(
        ["train", PRESET[options.suite], "--seed", str(seed), "--policy", str(options.policy), "--run", str(run),
         "--resume", "--tasks", str(task), "--steps", str(steps), "--evaluation-states", str(options.states),
         *(str(options.demos) if o == "DEMOS" else o for o in METHODS[method]), *SETTINGS, *more],
        work / "log.txt", work / "times.json", PROGRAMS.get(method, CLI),
    )  # fmt: skip
    return run / "eval_after.json"


def practise(options: argparse.Namespace, more: list[str], work: Path, task: int, steps: int) -> None:
    """A task's own run, to ``steps`` RL steps; its evaluation after fewer of them is kept as ``eval_STEPS.json``."""
    run = work / f"task_{task}"
    done = episodes_of(run) // presets.preset(PRESET[options.suite]).train.episodes_per_step
    after = run / "eval_after.json"
    if 0 < done < steps and after.is_file():
        after.rename(run / f"eval_{done}.json")
    if not after.is_file():
        train(options, more, options.method, options.seed, task, max(steps, done), work)
    overall = json.loads(after.read_text())["overall"]
    print(f"task {task}: {overall['successes']} of {overall['episodes']}", flush=True)


def main() -> None:
    """See the module's docstring."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=tuple(PRESET), default="libero_spatial")
    parser.add_argument("--method", choices=("srpo", "grpo", "sparse"), default="srpo", help="of every task's own run")
    parser.add_argument("--policy", type=Path, required=True, help="where every task's practice starts")
    parser.add_argument("--practised", type=Path, required=True, help="the run that made it, for its groups.csv")
    parser.add_argument("--demos", type=Path, required=True, help="folder of srpo collect")
    parser.add_argument("--steps", type=int, default=60, help="RL steps of 80 episodes, of all tasks together")
    parser.add_argument("--again", type=int, nargs="+", default=[], help="then so many more, each planned anew")
    parser.add_argument("--distil-steps", type=int, default=6000, help="gradient steps of the final cloning")
    parser.add_argument("--rounds", type=int, default=0, help="how often the clone's own attempts are corrected")
    parser.add_argument("--states", type=int, default=40, help="held-out initial states a task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/specialists"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    options, more = parser.parse_known_args()
    name, tasks = PRESET[options.suite], range(10)
    if options.steps < 2 * len(tasks):
        sys.exit(f"--steps must be {2 * len(tasks)} or more: two for every task.")
    label = str(options.seed) if options.method == "srpo" else f"{options.method}_{options.seed}"
    work = options.work.resolve() / f"{options.suite}_{label}"
    one = work / f"one_{options.steps + sum(options.again)}"
    steps = allotted(options.steps, [1 + failures(options.practised, k) for k in tasks], least=2)
    print("RL steps a task:", *steps, flush=True)
    parts = [steps]

    def everyone(part: list[int]) -> None:
        for k in np.argsort(part, kind="stable")[::-1]:  # first where most is to be learnt
            practise(options, more, work, int(k), part[k])

    try:
        planned = f"again_{options.steps}"
        for number in options.again:
            planned += f"_{number}"
            plan = work / f"{planned}.json"  # what decides it changes while it is carried out: so it is written down
            if not plan.is_file():
                everyone(parts[-1])
                further = allotted(number, [failures(work / f"task_{k}", k) for k in tasks], least=0)
                plan.write_text(json.dumps([a + b for a, b in zip(parts[-1], further, strict=True)]) + "\n")
            parts.append(json.loads(plan.read_text()))
            print("then, in all:", *parts[-1], flush=True)
        everyone(parts[-1])
        if not (one / "policy").is_dir():
            stage(
                ["distil", name, "--seed", str(options.seed), "--policy", str(options.policy), "--runs",
                 *(str(work / f"task_{k}") for k in tasks), "--run", str(one), "--distil.steps",
                 str(options.distil_steps), "--distil.rounds", str(options.rounds), "--distil.demonstration-weight",
                 "10"], work / "log.txt", work / "times.json",
            )  # fmt: skip
        if not (one / "eval.json").is_file():
            decoding = presets.preset(name).train.decoding
            stage(
                ["eval", str(one / "policy"), "--suite", options.suite, "--states", str(options.states),
                 "--decoding", str(decoding), "--out", str(one)], work / "log.txt", work / "times.json",
            )  # fmt: skip
    except KeyboardInterrupt:
        sys.exit("Stopped; what is done is kept. Run the same command again to continue.")
    target = options.results / options.suite / f"specialists_{label}"
    paths = {
        f"{options.work.resolve()}/": "runs/specialists/",
        str(options.demos.resolve().parent): f"runs/suite/{options.suite}",  # the joint run's too
    }
    for k in tasks:
        evaluations = sorted(f.name for f in (work / f"task_{k}").glob("eval_*.json"))
        kept(work / f"task_{k}", target / f"task_{k}", (*KEPT, *evaluations), paths)
    files = ("distil_config.json", "distil_provenance.json", "eval.json")
    for folder in {work / f"one_{sum(part)}" for part in parts}:
        if (folder / "eval.json").is_file():
            kept(folder, target / folder.name, files, paths)
    (target / one.name / "times.json").write_text((work / "times.json").read_text())

    def counts(files: list[Path]) -> list[tuple[int, int]]:
        rates = {k: v for file in files for k, v in json.loads(file.read_text())["tasks"].items()}
        found = [rates[f"{options.suite}/{k}"] for k in tasks]
        return [(rate["successes"], rate["episodes"]) for rate in found]

    lines = [f"| task | {' | '.join(map(str, tasks))} | all |", "|---" * (len(tasks) + 2) + "|"]
    lines.append(line("before", counts([target / f"task_{k}/eval_before.json" for k in tasks])))
    for part in parts:
        lines.append(f"| RL steps | {' | '.join(map(str, part))} | {sum(part)} |")
        then = [target / f"task_{k}/eval_{part[k]}.json" for k in tasks]
        ended = [target / f"task_{k}/eval_after.json" for k in tasks]
        own = [file if file.is_file() else last for file, last in zip(then, ended, strict=True)]
        lines.append(line("one policy a task", counts(own)))
        together = target / f"one_{sum(part)}/eval.json"
        if together.is_file():
            lines.append(line("one policy for all", counts([together])))
    (target / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
