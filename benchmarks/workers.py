"""What a rollout worker costs: its start, a task new to it, the next episode, and the memory of many.

    python benchmarks/workers.py --suite libero_spatial --workers 16

Seconds are wall-clock, one worker alone; models come from the disk cache. Memory: all workers have one environment open
and a policy loaded, after an episode each; the sum of their proportional set sizes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from memory import descendants_memory
from srpo.types import EpisodeRequest, InitialState


def starts(suite: str, repeats: int) -> None:
    """Print the table of times; run in a process of its own, which is the worker."""
    begin = time.perf_counter()
    from srpo.envs.libero import LiberoEnv, tasks
    from srpo.policies.compact import CompactConfig
    from srpo.rollout.runner import PolicyRunner, RolloutConfig

    runner = PolicyRunner(RolloutConfig(), "srpo.policies.compact:CompactPolicy", CompactConfig())
    assert isinstance(runner.envs.get(tasks(suite, [0])[0]), LiberoEnv)
    runner.envs.get(tasks(suite, [0])[0]).reset(InitialState("published", 0))
    print(f"| start of a worker, imports and first task to its first pictures | {time.perf_counter() - begin:.2f} s |")
    new = []
    for task in tasks(suite)[1:4]:
        begin = time.perf_counter()
        runner.envs.get(task).reset(InitialState("published", 0))
        new.append(time.perf_counter() - begin)
    print(f"| a task new to the worker, to its first pictures | {np.median(new):.2f} s (worst {max(new):.2f}) |")
    task, other, again = tasks(suite)[0], [], []
    for index in range(1, repeats + 1):
        for times in (other, again):
            begin = time.perf_counter()
            runner.envs.get(task).reset(InitialState("published", index))
            times.append(1e3 * (time.perf_counter() - begin))
    group = [(a + 7 * b) / 8 for a, b in zip(other, again, strict=True)]
    print(f"| next episode within groups of 8, mean | {np.mean(group):.0f} ms |")
    for name, times in (("another initial state", other), ("the same initial state", again)):
        print(f"| next episode, {name}, to its first pictures | {np.median(times):.0f} ms (worst {max(times):.0f}) |")


def memory(suite: str, workers: int) -> None:
    """Print the memory of ``workers`` workers."""
    from srpo.envs.libero import tasks
    from srpo.policies.compact import CompactConfig, CompactPolicy
    from srpo.rollout.collector import Collector
    from srpo.rollout.runner import RolloutConfig

    every = tasks(suite)
    requests = [EpisodeRequest(every[i % len(every)], InitialState("published", 0), i, i, 0.0) for i in range(workers)]
    policy = CompactPolicy(CompactConfig())
    with Collector(policy, RolloutConfig(max_steps=16, max_environments=1), workers) as collector:
        collector.collect(policy, requests)
        gib = descendants_memory() / 2**30
    print(f"| {workers} workers, an environment each | {gib:.2f} GiB ({1024 * gib / workers:.0f} MiB each) |")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="libero_spatial")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--starts", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.starts:
        starts(options.suite, options.repeats)
        return
    print(f"| {options.suite} | |\n|---|---|", flush=True)
    command = [sys.executable, __file__, "--starts", "--suite", options.suite, "--repeats", str(options.repeats)]
    subprocess.run(command, check=True)
    memory(options.suite, options.workers)


if __name__ == "__main__":
    main()
