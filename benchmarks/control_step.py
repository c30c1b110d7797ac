"""What a control step costs without cameras: robosuite's Python path, the compiled one, and the bare physics.

Three ways of one 50 ms step (25 substeps of 2 ms), taken in turns on one core:

- stock: ``OffScreenRenderEnv.step`` of LIBERO, cameras off;
- compiled: ``CompiledControl.step`` and the success check;
- bare: ``mj_step(nstep=25)`` with the torques held, in the state and under the options that stock has.

Time is the thread's CPU time. One ratio per seed and repetition, from sums over an episode, then the median.

    python benchmarks/control_step.py [--suites libero_object libero_spatial] [--profile]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import mujoco
import numpy as np

from srpo.envs.osc import CompiledControl

SETTLE = np.array([0, 0, 0, 0, 0, 0, -1.0])
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


def build(suite: str, task_index: int) -> tuple[Any, np.ndarray]:
    """A stock environment without cameras, and the task's published initial states (N, D)."""
    from libero.libero import benchmark, get_libero_path
    from libero.libero.envs.env_wrapper import OffScreenRenderEnv

    tasks = benchmark.get_benchmark_dict()[suite]()
    task = tasks.get_task(task_index)
    bddl = Path(get_libero_path("bddl_files")) / task.problem_folder / task.bddl_file
    env = OffScreenRenderEnv(bddl_file_name=str(bddl), use_camera_obs=False, hard_reset=False, ignore_done=True)
    return env, np.asarray(tasks.get_task_init_states(task_index))


def begin(env: Any, initial_state: np.ndarray) -> None:
    """The published state, with a controller and a gripper that know of it."""
    env.seed(0)
    env.reset()
    env.set_init_state(initial_state)
    robot = env.robots[0]
    robot.gripper.current_action = np.zeros(robot.gripper.dof)
    robot.controller.update(force=True)
    robot.controller.reset_goal()


def actions_of(seed: int, steps: int) -> np.ndarray:
    """(steps, 7): a smooth random motion in which the gripper closes half-way."""
    walk = np.cumsum(np.random.default_rng(seed).normal(scale=0.25, size=(steps, 7)), axis=0)
    walk[:, 6] = np.where(np.arange(steps) < steps // 2, -1, 1)
    return np.clip(walk, -1, 1)


def timed(function: Any, *arguments: Any) -> float:
    begin_time = time.thread_time()
    function(*arguments)
    return time.thread_time() - begin_time


def episode(stock: Any, ours: Any, control: CompiledControl, seed: int, steps: int, states: np.ndarray) -> np.ndarray:
    """One episode, (4,): CPU seconds of stock, compiled, bare; largest joint difference at its end, rad."""
    for env in (stock, ours):
        begin(env, states[seed % len(states)])
    control.reset()
    model, data = stock.sim.model._model, stock.sim.data._data
    kept = np.empty(mujoco.mj_stateSize(model, STATE))
    seconds = np.zeros(3)

    def compiled(action: np.ndarray) -> None:
        control.step(action)
        ours.check_success()

    for count, action in enumerate([SETTLE] * 10 + list(actions_of(seed, steps))):
        mujoco.mj_getState(model, data, kept, STATE)
        bare = timed(mujoco.mj_step, model, data, 25)
        mujoco.mj_setState(model, data, kept, STATE)
        row = [timed(stock.step, action), timed(compiled, action), bare]
        if count >= 10:
            seconds += row
    joints = stock.robots[0]._ref_joint_pos_indexes
    apart = np.abs(data.qpos[joints] - ours.sim.data._data.qpos[joints]).max()
    return np.append(seconds, apart)


def profile(env: Any, control: CompiledControl) -> None:
    """Print MuJoCo's own timers for a compiled step, and the share of the control law."""
    data = env.sim.data._data
    begin(env, env.sim.get_state().flatten())
    control.reset()
    mujoco.set_mjcb_time(time.perf_counter)
    data.timer.duration[:] = 0
    for _ in range(20):
        control.step(SETTLE)
    mujoco.set_mjcb_time(None)
    for timer, seconds in enumerate(data.timer.duration):
        label = mujoco.mjtTimer(timer).name.removeprefix("mjTIMER_").lower()
        print(f"    {label:16s} {1e3 * seconds / 20:7.3f} ms a control step")
    control._kernel.control(control._sim, control._arm, control._state)
    law = timed(lambda: [control._kernel.control(control._sim, control._arm, control._state) for _ in range(2000)])
    print(f"    {'control law':16s} {1e3 * law / 2000 * 25:7.3f} ms a control step, called from Python")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--suites", nargs="+", default=["libero_object", "libero_spatial"])
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="timed control steps of an episode")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    args = parser.parse_args()

    print(f"mujoco {mujoco.__version__}, numpy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    for suite in args.suites:
        (stock, states), (ours, _) = build(suite, args.task), build(suite, args.task)
        begin(ours, states[0])
        control = CompiledControl(ours.env)
        control.step(SETTLE)  # compiles, or reads the cache
        rows = np.array(
            [
                episode(stock, ours, control, seed, args.steps, states)
                for _ in range(args.repetitions)
                for seed in args.seeds
            ]
        )
        ms = 1e3 * np.median(rows[:, :3], axis=0) / args.steps
        faster, above = rows[:, 0] / rows[:, 1], rows[:, 1] / rows[:, 2]
        print(f"{suite}/{args.task}: {len(rows)} episodes of {args.steps} steps")
        print(f"  ms a step: stock {ms[0]:.2f}, compiled {ms[1]:.2f}, bare physics {ms[2]:.2f}")
        for text, ratio in {"stock / compiled": faster, "compiled / bare physics": above}.items():
            print(f"  {text}: {np.median(ratio):.2f} (median; {ratio.min():.2f} to {ratio.max():.2f})")
        print(f"  joints apart at an episode's end: at most {rows[:, 3].max():.1e} rad")
        if args.profile:
            profile(ours, control)
        stock.close()
        ours.close()


if __name__ == "__main__":
    main()
