"""Episodes per minute: a lock-step loop on stock LIBERO, as the public implementations have it, and ours.

    python benchmarks/rollouts.py --policy runs/sft/policy --suite libero_spatial --task 0

The lock-step loop: one stock ``OffScreenRenderEnv`` per worker process; every episode builds its model anew, renders
both cameras at every control step (settling included) and runs to the suite's step limit, finished or not; after every
chunk all environments wait for each other and for one batched forward of the policy. Ours:
`srpo.rollout.collector.Collector` as ``srpo train`` uses it, same policy, initial states, size of pictures, number of
workers and step limit, decoding by the median in both. Its workers and models are warm; building theirs is part of
every episode of the other loop.

The episodes of the lock-step loop all last equally long, so a few tell the rate (``--baseline-episodes``).
"""

from __future__ import annotations

import argparse
import os
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")

import numpy as np
import torch

from srpo.evaluation.intervals import wilson
from srpo.policies.base import sample_tokens
from srpo.policies.compact import CompactPolicy
from srpo.types import EpisodeRequest, InitialState, Observation

SETTLE = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]


def stock_worker(pipe: Connection, suite: str, task_index: int, size: int) -> None:
    """Serves ("reset", state index) and ("chunk", actions): answers with images, proprioception and success."""
    from libero.libero import benchmark, get_libero_path
    from libero.libero.envs.env_wrapper import OffScreenRenderEnv

    from srpo.envs.libero import axis_angle

    tasks = benchmark.get_benchmark_dict()[suite]()
    task = tasks.get_task(task_index)
    bddl = Path(get_libero_path("bddl_files")) / task.problem_folder / task.bddl_file
    env: Any = None
    while True:
        order, argument = pipe.recv()
        success = False
        if order == "reset":
            if env is not None:
                env.close()
            env = OffScreenRenderEnv(
                bddl_file_name=str(bddl), camera_heights=size, camera_widths=size, ignore_done=True
            )
            env.seed(0)
            env.reset()
            env.set_init_state(tasks.get_task_init_states(task_index)[argument])
            actions = [SETTLE] * 10
        elif order == "chunk":
            actions = argument
        else:
            return
        for action in actions:
            seen, _, done, _ = env.step(action)
            success = success or bool(done)
        images = {c: seen[f"{n}_image"][::-1] for c, n in (("agentview", "agentview"), ("wrist", "robot0_eye_in_hand"))}
        x, y, z, w = seen["robot0_eef_quat"]
        rotation = axis_angle(np.array([w, x, y, z]))
        state = np.concatenate([seen["robot0_eef_pos"], rotation, seen["robot0_gripper_qpos"]])
        pipe.send((images, state.astype(np.float32), success))


def lock_step(policy: CompactPolicy, task: Any, episodes: int, workers: int) -> tuple[float, int]:
    """Seconds and successes of ``episodes`` episodes (a multiple of ``workers``), in waves of one per worker."""
    context, rng = get_context("spawn"), np.random.default_rng(0)
    pipes, processes = [], []
    for _ in range(workers):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=stock_worker, args=(theirs, task.suite, task.index, policy.config.image_size), daemon=True
        )
        process.start()
        pipes.append(ours)
        processes.append(process)
    successes, start = 0, 0.0
    for wave in range(-1, episodes // workers):  # wave -1 warms up: imports, compilation
        if wave == 0:
            start, successes = time.perf_counter(), 0
        for i, pipe in enumerate(pipes):
            pipe.send(("reset", (max(wave, 0) * workers + i) % 50))
        won = np.zeros(workers, bool)
        limit = task.max_steps if wave >= 0 else policy.chunk
        for taken in range(0, limit, policy.chunk):
            answers = [pipe.recv() for pipe in pipes]
            won |= [a[2] for a in answers]
            rows = [policy.prepare(Observation(a[0], a[1], task.instruction)) for a in answers]
            batch = {k: torch.from_numpy(np.stack([r[k] for r in rows])) for k in rows[0]}
            with torch.inference_mode():
                logits = policy.logits(batch).numpy()
            tokens = np.stack([sample_tokens(row, 1.0, rng, median=True)[0] for row in logits])
            for pipe, actions in zip(pipes, policy.actions(tokens), strict=True):
                pipe.send(("chunk", actions[: limit - taken]))
        won |= [pipe.recv()[2] for pipe in pipes]
        successes += int(won.sum())
    seconds = time.perf_counter() - start
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(("close", None))
        process.join(10)
    return seconds, successes


def ours(policy: CompactPolicy, task: Any, episodes: int, workers: int) -> tuple[float, int]:
    """Seconds and successes of ``episodes`` episodes."""
    from srpo.rollout.collector import Collector
    from srpo.rollout.runner import RolloutConfig

    states = [InitialState("published", i % 50) for i in range(episodes)]
    requests = [EpisodeRequest(task, state, i, i, 1.0, median=True) for i, state in enumerate(states)]
    with Collector(policy, RolloutConfig(), workers) as collector:
        collector.collect(policy, requests[:workers])
        start = time.perf_counter()
        done = collector.collect(policy, requests)
        return time.perf_counter() - start, sum(e.success for e in done)


def main() -> None:
    """See the module's docstring."""
    from srpo.envs import libero_suites

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--suite", default="libero_spatial")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--baseline-episodes", type=int, default=4)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    options.baseline_episodes = -(-options.baseline_episodes // options.workers) * options.workers
    policy = CompactPolicy.from_pretrained(options.policy).eval()
    task = libero_suites.tasks(options.suite, [options.task])[0]
    rates = []
    print("| loop | episodes | success | seconds | episodes/min |\n|---|---|---|---|---|")
    for name, loop, count in (("ours", ours, options.episodes), ("lock-step", lock_step, options.baseline_episodes)):
        seconds, won = loop(policy, task, count, options.workers)
        low, high = wilson(won, count)
        rates.append(60 * count / seconds)
        print(f"| {name} | {count} | {won} [{low:.0%}, {high:.0%}] | {seconds:.1f} | {rates[-1]:.2f} |", flush=True)
    print(f"\nours / lock-step: {rates[0] / rates[1]:.1f} ({options.workers} workers)")


if __name__ == "__main__":
    main()
