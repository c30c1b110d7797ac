"""Do recorded expert episodes end the same way in stock LIBERO and in ours?

    python benchmarks/outcomes.py --states 4

For every suite, the scripted expert acts in `srpo.envs.libero.LiberoEnv` from published initial states of all tasks
that it can attempt; its actions are then repeated in LIBERO's own environment (``ControlEnv``: robosuite's controller
and observables, no camera). Compared: success, the step in which it was reached, and the joints and objects at the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np

from srpo.types import InitialState, SrpoError, Task

SETTLE = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
SUITES = ["libero_spatial", "libero_object", "libero_goal", "libero_10"]


def compare(task: Task, states: int) -> list[dict[str, Any]]:
    """One row an episode; none if the expert cannot attempt the task."""
    from srpo.envs.experts import expert_for
    from srpo.envs.libero import LiberoEnv

    env = LiberoEnv(task, cameras=())
    try:
        expert = expert_for(env)
        env.reset(InitialState("published", 0))
        expert.reset()
        expert.act()
    except SrpoError:  # the goal is none of putting something somewhere, or the object cannot be grasped
        return []
    stock, published = _stock(task)
    rows = []
    for index in range(states):
        env.reset(InitialState("published", index))
        expert.reset()
        actions = []
        while len(actions) < task.max_steps:
            actions.append(np.clip(expert.act(), -1.0, 1.0))
            if env.step(actions[-1]):
                break
        success, steps, qpos = _repeat(stock, published[index], actions)
        rows.append(
            {
                "suite": task.suite,
                "ours": (env.success, len(actions)),
                "stock": (success, steps),
                "difference": float(np.abs(qpos - env.data.qpos).max()),
            }
        )
    return rows


def _stock(task: Task) -> tuple[Any, np.ndarray]:
    from libero.libero import benchmark
    from libero.libero.envs.env_wrapper import ControlEnv

    from srpo.envs.libero_suites import bddl_file

    env = ControlEnv(
        bddl_file_name=str(bddl_file(task)),
        has_offscreen_renderer=False,
        use_camera_obs=False,
        hard_reset=False,
        ignore_done=True,
    )
    return env, np.asarray(benchmark.get_benchmark_dict()[task.suite]().get_task_init_states(task.index))


def _repeat(env: Any, state: np.ndarray, actions: list[np.ndarray]) -> tuple[bool, int, np.ndarray]:
    """Success, steps taken, and the positions at the end."""
    env.seed(0)
    env.reset()
    robot = env.robots[0]
    robot.gripper.current_action = np.zeros(robot.gripper.dof)  # as after stock's hard reset, which builds all anew
    env.set_init_state(state)
    for _ in range(10):
        env.step(SETTLE)
    for step, action in enumerate(actions):
        if env.step(action)[2]:
            return True, step + 1, env.sim.data._data.qpos
    return False, len(actions), env.sim.data._data.qpos


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown, a line a suite."""
    yield "| suite | episodes | solved (ours) | same outcome | same step | end positions differ by, median (worst) |"
    yield "|---|---|---|---|---|---|"
    for suite in [*SUITES, "all"]:
        part = [r for r in rows if suite in (r["suite"], "all")]
        if not part:
            continue
        outcome = sum(r["ours"][0] == r["stock"][0] for r in part)
        step = sum(r["ours"] == r["stock"] for r in part)
        difference = [r["difference"] for r in part]
        yield (
            f"| {suite} | {len(part)} | {sum(r['ours'][0] for r in part)} | {outcome} | {step} "
            f"| {np.median(difference):.1e} ({max(difference):.1e}) |"
        )


def main() -> None:
    """See the module's docstring."""
    from srpo.envs.libero import tasks

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", default=SUITES)
    parser.add_argument("--states", type=int, default=4, help="published initial states a task")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    wanted = [t for s in options.suites for t in tasks(s)]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(compare, wanted, [options.states] * len(wanted)):
            rows += part
            print(f"{len(rows)} episodes", end="\r", flush=True)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
