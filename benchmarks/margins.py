"""How narrowly attempts succeed: where the hand takes the object, and where the object lies on its target in the end.

    python benchmarks/margins.py --policy results/libero_spatial/easy/srpo_0/policy \
        --demos runs/suite/libero_spatial/demos

LIBERO's predicate "on" is true up to 3 cm from the target's middle, a bowl can be held by any part of its rim, and a
success is a success however near to the limit. At so many training states of each task (that no preset reaches), the
policy attempts the task, with the preset's noise or by the median, and so does the scripted expert; all are carried out
again without pictures, and measured:

* grip: where the hand is when the gripper is first told to close, relative to the object, and how far that is from
  where the expert's is on average (cm): median and 90th percentile.
* offset: of successes, horizontal distance of the object's origin from the target's at the end (cm): median and 90th
  percentile, and the length of the mean vector. Where that is large the offset is a habit, not scatter.
* unlikeness: Spearman's correlation over the policy's successes between the offset and how unlike the last two
  decisions are to the demonstrations: squared L2 distance of the frozen features of the wrist camera (stride 8) from
  the nearest moment of a demonstration of the task (``--demos``). A policy without the simulator's state can know that.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from srpo.data.demonstrations import DemonstrationSet
from srpo.envs import libero_suites
from srpo.envs.experts import expert_for
from srpo.envs.libero import LiberoEnv
from srpo.policies.compact import CompactPolicy
from srpo.presets import PRESETS, preset
from srpo.rollout.collector import Collector
from srpo.sampler import train_state
from srpo.types import Episode, EpisodeRequest, InitialState, Task

FIRST = 900_000  # training states from here on


@dataclass
class Measured:
    """One attempt: ``offset`` (2,) at its end and ``grip`` (3,), in cm (NaN if the gripper never closes)."""

    success: bool
    offset: np.ndarray
    grip: np.ndarray


class Scene:
    """The environment of a task whose one goal is "this object on that one", as the simulator knows it."""

    def __init__(self, task: Task) -> None:
        self.env = LiberoEnv(task, cameras=(), quality="fast")
        (goal,) = self.env.problem.parsed_problem["goal_state"]
        self.object, self.target = (self.env.problem.obj_body_id[name] for name in goal[1:])
        self.hand = self.env.problem.robots[0].eef_site_id

    def carry_out(self, state: InitialState, actions: Iterable[np.ndarray]) -> Measured:
        """What the actions, the first of which is asked for after the reset, come to."""
        self.env.reset(state)
        data, grip, success = self.env.data, np.full(3, np.nan), False
        for action in actions:
            if action[-1] > 0 and np.isnan(grip).any():
                grip = 100.0 * (data.site_xpos[self.hand] - data.xpos[self.object])
            success = self.env.step(action)
            if success:
                break
        return Measured(success, 100.0 * (data.xpos[self.object] - data.xpos[self.target])[:2], grip)


def scripted(env: LiberoEnv) -> Iterator[np.ndarray]:
    """The actions of the scripted expert."""
    expert = expert_for(env)
    expert.reset()
    for _ in range(env.task.max_steps):
        yield np.clip(expert.act(), -1.0, 1.0)


def recorded(policy: CompactPolicy, episode: Episode) -> np.ndarray:
    """(T, 7) the actions that an episode carried out."""
    chunks = zip(policy.actions(episode.tokens), episode.executed, strict=True)
    return np.concatenate([actions[:count] for actions, count in chunks])


def unlikeness(episode: Episode, shown: np.ndarray) -> float:
    """Mean over the last two decisions of the squared distance to the nearest of ``shown`` (M, E)."""
    seen = episode.inputs["wrist_s8"][-2:].reshape(-1, shown.shape[1]).astype(np.float32)
    return float(cdist(seen, shown, "sqeuclidean").min(1).mean())


def moments(policy: CompactPolicy, demos: Path) -> dict[str, np.ndarray]:
    """Task id -> (M, E) float32 wrist features of all moments of its demonstrations."""
    found: dict[str, list[np.ndarray]] = {}
    for one in DemonstrationSet(demos):
        features = policy.prepare_batch(one.images, one.states, one.task.instruction)["wrist_s8"]
        found.setdefault(one.task.id, []).append(features.reshape(len(features), -1).astype(np.float32))
    return {task: np.concatenate(rows) for task, rows in found.items()}


def cells(found: list[Measured], usual: np.ndarray, succeeded: bool = True) -> str:
    """Number, grip and offset of a line of the table; ``usual`` (3,): the expert's mean grip."""
    if not found:
        return "0 | - | - | -"
    away = np.array([np.linalg.norm(m.grip - usual) for m in found])
    held = "{:.1f}, {:.1f}".format(*np.nanpercentile(away, [50, 90])) if np.isfinite(away).any() else "-"
    if not succeeded:
        return f"{len(found)} | {held} | - | -"
    offsets = np.stack([m.offset for m in found])
    middle, most = np.percentile(np.linalg.norm(offsets, axis=1), [50, 90])
    return f"{len(found)} | {held} | {middle:.1f}, {most:.1f} | {np.linalg.norm(offsets.mean(0)):.1f}"


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=[n for n in PRESETS if n.startswith("libero")], default="libero-spatial")
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--demos", type=Path, default=None, help="for the last column")
    parser.add_argument("--states", type=int, default=20)
    parser.add_argument("--tasks", type=int, nargs="*", default=None)
    parser.add_argument("--median", action="store_true", help="by the median instead of the preset's noise")
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    config = preset(options.preset).train
    policy = CompactPolicy.from_pretrained(options.policy).eval()
    shown = moments(policy, options.demos) if options.demos else {}
    tasks = libero_suites.tasks(config.suite, options.tasks or None)
    states = [train_state("held-out", FIRST + i) for i in range(options.states)]
    limited = [replace(t, max_steps=config.train_max_steps or t.max_steps) for t in tasks]
    requests = [
        EpisodeRequest(
            task, state, -1, 10_000 * task.index + i, 1.0 if options.median else config.temperature, options.median,
            gripper_temperature=None if options.median else config.gripper_temperature,
        )
        for task in limited
        for i, state in enumerate(states)
    ]  # fmt: skip
    with Collector(policy, replace(config.rollout, world_model=None), options.workers) as collector:
        episodes = collector.collect(policy, requests)
    print("| task | attempts | number | grip: median, 90 % | offset: median, 90 % | of the mean | unlikeness |")
    print("|---|---|---|---|---|---|---|")
    for task in tasks:
        scene = Scene(task)
        expert = [m for state in states if (m := scene.carry_out(state, scripted(scene.env))).success]
        usual = np.nanmean([m.grip for m in expert], 0)
        mine = [e for e in episodes if e.request.task.id == task.id]
        own = [scene.carry_out(e.request.initial_state, recorded(policy, e)) for e in mine]
        if [m.success for m in own] != [e.success for e in mine]:
            raise SystemExit(f"{task.id}: an attempt ends otherwise when it is carried out again.")
        good = [m for m in own if m.success]
        told = "-"
        if task.id in shown and len(good) > 2:
            unlike = [unlikeness(e, shown[task.id]) for e in mine if e.success]
            told = f"{spearmanr(unlike, [np.linalg.norm(m.offset) for m in good])[0]:.2f}"
        print(f"| {task.id} | expert | {cells(expert, usual)} | |")
        print(f"| {task.id} | policy, successes | {cells(good, usual)} | {told} |")
        print(
            f"| {task.id} | policy, failures | {cells([m for m in own if not m.success], usual, False)} | |", flush=True
        )
        scene.env.close()


if __name__ == "__main__":
    main()
