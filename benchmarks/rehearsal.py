"""What rehearsals bring to a policy cloned from own successes, without any RL.

    python benchmarks/rehearsal.py --policy results/libero_spatial/easy/srpo_0/policy \\
        --demos runs/suite/libero_spatial/demos

The policy attempts new training states of every task, as in practice, until one attempt at each succeeds (eight at
most). A new network is cloned from these successes and the demonstrations, another one from repetitions of the
successes with disturbances (`srpo.rollout.rehearsal`) and the demonstrations, for the same number of gradient steps.
All three policies are evaluated on held-out states by the median. Whatever is finished under ``--out`` is not done
again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from srpo import presets
from srpo.data.demonstrations import DemonstrationSet
from srpo.data.successes import SuccessMemory
from srpo.distillation import distil, rehearsal_requests, rehearsed_decisions
from srpo.envs import libero
from srpo.evaluation import evaluate as evaluation
from srpo.policies.compact import CompactPolicy
from srpo.provenance import write_json
from srpo.rollout.collector import Collector
from srpo.rollout.rehearsal import RehearsalConfig
from srpo.sampler import train_state
from srpo.sft import decisions
from srpo.types import EpisodeRequest

FIRST_STATE = 500_000  # of the training states: none that the runs of the suite draw first
ATTEMPTS = 8


def attempt(options, preset, policy, tasks, collector, memory: SuccessMemory) -> None:
    """Fill the memory with a success at every state, as far as there is one."""
    train = preset.train
    done = options.out / "attempts.json"
    if done.is_file():
        return
    counts = []
    for number in range(ATTEMPTS):
        solved = {(t.index, state) for t in tasks for state, _ in memory.by_state(t, options.states)}
        requests = [
            EpisodeRequest(
                replace(task, max_steps=train.train_max_steps or task.max_steps), state, -1,
                int(np.random.default_rng([options.seed, task.index, i, number]).integers(2**31)),
                train.temperature, gripper_temperature=train.gripper_temperature,
            )
            for task in tasks
            for i in range(options.states)
            if (task.index, state := train_state("held-out", FIRST_STATE + i)) not in solved
        ]  # fmt: skip
        if not requests:
            break
        successes = 0
        for start in range(0, len(requests), 50):  # what is in the memory need not be attempted again
            episodes = collector.collect(policy, requests[start : start + 50])
            memory.add(number * 1000 + start // 50 + 1, episodes, policy.action_dim)
            successes += sum(e.success for e in episodes)
        counts.append({"attempts": len(requests), "successes": successes})
        print(f"attempt {number + 1}: {successes} of {len(requests)}", flush=True)
    write_json(done, counts)


def clone(options, preset, policy, tasks, collector, memory, kind: str) -> CompactPolicy:
    """A new policy of the successes as they were, or of their repetitions."""
    folder = options.out / kind / "policy"
    if (folder / "model.safetensors").is_file():
        return CompactPolicy.from_pretrained(folder).eval()
    rehearsed = None
    if kind == "rehearsed":
        config = RehearsalConfig(successes=options.states, times=options.times)
        requests = rehearsal_requests(policy, memory, tasks, config, [options.seed])
        results = collector.rehearse(requests)
        rehearsed = rehearsed_decisions(requests, results)
        counts = {
            "rehearsals": sum(r.attempts for r in results),
            "kept": {t.id: len(rehearsed.get(t, ())) for t in tasks},
            "env_steps": sum(r.env_steps for r in results),
        }
        print(counts, flush=True)
        write_json(options.out / kind / "rehearsals.json", counts)
    settings = replace(preset.train.distil, steps=options.steps, demonstration_weight=options.demonstration_weight)
    new = distil(policy, memory, tasks, settings, options.seed, rehearsed=rehearsed)
    assert new is not None
    new.save_pretrained(folder)
    return new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="libero-spatial", help="whose suite, sampling and pictures")
    parser.add_argument("--policy", required=True, help="a practised policy")
    parser.add_argument("--demos", required=True, help="the demonstrations it was cloned from")
    parser.add_argument("--out", type=Path, default=Path("runs/rehearsal"))
    parser.add_argument("--states", type=int, default=80, help="training states a task")
    parser.add_argument("--times", type=int, default=2, help="repetitions of each success")
    parser.add_argument("--steps", type=int, default=6500, help="gradient steps of a clone")
    parser.add_argument("--demonstration-weight", type=float, default=10.0)
    parser.add_argument("--evaluation-states", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    preset = presets.preset(options.preset)
    policy = CompactPolicy.from_pretrained(options.policy).eval()
    tasks = libero.tasks(preset.train.suite)
    memory = SuccessMemory(options.out / "successes", options.states)
    rows = {}
    with Collector(policy, replace(preset.train.rollout, world_model=None)) as collector:
        attempt(options, preset, policy, tasks, collector, memory)
        for number, one in enumerate(DemonstrationSet(Path(options.demos)), 1):
            if (options.out / "own/policy").is_dir():
                break
            shown = decisions(policy, one, number, preset.sft.augmentations, preset.sft.shift)
            memory.add_decisions(0, number, one.task, shown)
        for kind in ("start", "own", "rehearsed"):
            file = options.out / kind / "eval.json"
            if not file.is_file():
                new = policy if kind == "start" else clone(options, preset, policy, tasks, collector, memory, kind)
                requests = evaluation.evaluation_requests(
                    tasks, "held-out", options.evaluation_states, decoding=preset.train.decoding
                )
                episodes = evaluation.evaluate(collector, new, requests)
                result = evaluation.result(
                    episodes, checkpoint=str(options.out / kind), suite=preset.train.suite, protocol="held-out"
                )
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, result)
            rows[kind] = json.loads(file.read_text())
    print("| policy | " + " | ".join(str(t.index) for t in tasks) + " | all |")
    print("|---" * (len(tasks) + 2) + "|")
    for kind, result in rows.items():
        by_task = " | ".join(str(result["tasks"][t.id]["successes"]) for t in tasks)
        overall = result["overall"]
        low, high = overall["wilson_95"]
        print(f"| {kind} | {by_task} | {overall['successes']} of {overall['episodes']} [{low:.0%} to {high:.0%}] |")


if __name__ == "__main__":
    main()
