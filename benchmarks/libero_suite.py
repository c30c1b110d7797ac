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
are options of ``srpo train`` (`suite_methods.METHODS`).
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from srpo import presets
from suite_methods import CLI, METHODS, PRESET, PROGRAMS, STARTS
from suite_results import compared, episodes_of, figure, folders, outcomes, per_task, single_attempts, table

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
    """What is kept of a file: its text with ``paths`` of this machine replaced, of an evaluation the outcomes of
    its attempts instead of all that is known of them."""
    text = file.read_text()
    for path, short in paths.items():
        text = text.replace(path, short)
    if file.name.startswith("eval"):
        result = json.loads(text)
        result["outcomes"] = outcomes(result)
        result.pop("episodes", None)
        text = json.dumps(result, indent=1) + "\n"
    return text


def evaluated(policy: Path, out: Path, options: list[str], log: Path, times: Path) -> Path:
    """The result of ``srpo eval``, which runs unless there is one that is newer than the policy."""
    result = out / "eval.json"
    if not result.is_file() or result.stat().st_mtime < (policy / "model.safetensors").stat().st_mtime:
        stage(["eval", str(policy), *options, "--out", str(out)], log, times)
    return result


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
