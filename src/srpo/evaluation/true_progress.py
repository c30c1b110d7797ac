"""How far a LIBERO pick-and-place episode has really come, read from the simulator's state.

Only for judging rewards: no policy and no reward may see it. Each goal "put this object in / on that target" has five
stages of one fifth each, and within a stage progress is the distance gone of the distance there was to go:

    reach    1 - r / r0       r: from the point between the fingers to the object's nearest surface (m)
    grasp    0 or 1           both fingers touch the object, or are within 2 mm of it
    lift     min(1, h / 3 cm) h: height of the object's underside over the line from where it stood to its target
    carry    1 - c / c0       c: horizontal distance of the object from the target (m)
    release  (1 - g / 8 cm) / 2, and 1 once the goal's predicate is true
                              g: height (m) of the object's underside over the target, less 2 cm

r0 and c0 are the values at the beginning of the episode. An object that has not arrived over its target (c > 0) counts
as reached and lifted only while it is held: dropped half-way it keeps half of its carry stage and must be grasped
again. Once it has arrived, its first four stages are done whether it is held or not. A goal whose predicate is true
has 1.

The episode's progress is the mean over the task's goals. The hand can approach one object at a time: of the goals not
yet true, only the most advanced one counts its reach stage. Nothing is remembered but the beginning, so that progress
falls when something is undone. What a task needs besides (a drawer to be opened first) is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from srpo.envs.experts.grasp import collision_geoms
from srpo.envs.experts.pick_place import pick_place_goals
from srpo.types import SrpoError

LIFT = 0.03  # m
LOWER, RESTS = 0.08, 0.02  # m; so far above its target an object has still all to go, and nothing
TOUCH = 0.002  # m; contacts come and go from one physics step to the next
ARRIVED = 0.03  # m; an object counts as over another one within this distance: LIBERO's predicate "on" has it
_STAGES = 5


@dataclass(frozen=True)
class Stages:
    """Progress of one goal, each stage in [0, 1]."""

    reach: float
    grasp: float
    lift: float
    carry: float
    release: float

    @property
    def without_reach(self) -> float:
        """Progress in [0, 1] if the reach stage does not count."""
        return (self.grasp + self.lift + self.carry + self.release) / _STAGES

    @property
    def progress(self) -> float:
        """In [0, 1]."""
        return self.without_reach + self.reach / _STAGES


DONE = Stages(1.0, 1.0, 1.0, 1.0, 1.0)


def stages(
    reach: float, reach_start: float, held: bool, height: float, carry: float, carry_start: float, gap: float
) -> Stages:
    """The stages of a goal whose predicate is not true, from distances in metres (see the module's formula).

    Args:
        reach: hand to object; reach_start: at the beginning.
        held: both fingers touch the object.
        height: of the object over the line from its start to its target.
        carry: horizontally from object to target, 0 over the target; carry_start: at the beginning.
        gap: object over target, vertically.
    """
    if carry == 0.0 and carry_start > 0.0:
        lowered = 1.0 - float(np.clip((gap - RESTS) / LOWER, 0.0, 1.0))
        return Stages(1.0, 1.0, 1.0, 1.0, lowered / 2)
    approached = 1.0 if held else _gone(reach, reach_start)
    lift = float(np.clip(height / LIFT, 0.0, 1.0)) if held else 0.0
    return Stages(approached, float(held), lift, _gone(carry, carry_start), 0.0)


def combined(goals: list[Stages]) -> float:
    """Mean over the goals; only the most advanced of the unfinished ones counts its reach stage."""
    unfinished = [g for g in goals if g is not DONE]
    active = max((g.progress for g in unfinished), default=0.0)
    others = sum(g.without_reach for g in unfinished)
    bonus = max((g.reach for g in unfinished if g.progress == active), default=0.0) / _STAGES
    return (len(goals) - len(unfinished) + others + bonus) / len(goals)


class TrueProgress:
    """Reads true progress of the episode that an environment has just begun. It changes nothing in the simulation.

    Args:
        env: an :class:`srpo.envs.libero.LiberoEnv` after its reset, or anything with ``problem``, ``model``, ``data``.

    Raises:
        SrpoError: the environment is not LIBERO, or a goal of its task is not "object in / on something".
    """

    def __init__(self, env: Any) -> None:
        if not all(hasattr(env, name) for name in ("problem", "model", "data")):
            raise SrpoError(
                f"{type(env).__name__} does not show its simulator: true progress is known in LIBERO only, so switch "
                "it off (--rollout.true-progress False)."
            )
        self._env = env
        gripper = env.problem.robots[0].gripper
        self._hand = env.model.site(gripper.important_sites["grip_site"]).id
        self._fingers = [
            frozenset(env.model.geom(name).id for name in gripper.important_geoms[side])
            for side in ("left_finger", "right_finger")
        ]
        self._goals = [_Goal(env, goal, self._hand) for goal in pick_place_goals(env.problem)]

    def __call__(self) -> float:
        """Progress now, in [0, 1]; 1 exactly when all goal predicates are true."""
        return combined([self._stages(goal) for goal in self._goals])

    def _stages(self, goal: _Goal) -> Stages:
        if self._env.problem._eval_predicate(goal.predicate):
            return DONE
        return stages(
            goal.reach(self._hand), goal.reach_start, self._holds(goal), goal.height(), goal.carry(), goal.carry_start,
            goal.gap(),
        )  # fmt: skip

    def _holds(self, goal: _Goal) -> bool:
        pairs = self._env.data.contact.geom[: self._env.data.ncon]
        touching = {int(b if a in goal.geoms else a) for a, b in pairs if (a in goal.geoms) != (b in goal.geoms)}
        apart = [finger for finger in self._fingers if not finger & touching]
        return len(apart) < len(self._fingers) and all(self._nearly_touches(finger, goal) for finger in apart)

    def _nearly_touches(self, finger: frozenset[int], goal: _Goal) -> bool:
        import mujoco

        model, data = self._env.model, self._env.data
        between = ((a, b) for a in finger for b in goal.geoms)
        return any(mujoco.mj_geomDistance(model, data, a, b, 2 * TOUCH, None) < TOUCH for a, b in between)


class _Goal:
    """Geometry of one object and its target; positions are read anew with every call."""

    def __init__(self, env: Any, goal: list[str], hand: int) -> None:
        problem = env.problem
        self.predicate, (self.kind, name, self.target) = goal, goal
        self._model, self._data = env.model, env.data
        self._body = int(problem.obj_body_id[name])
        self._target_body = problem.obj_body_id.get(self.target)
        geoms = collision_geoms(self._model, self._body)
        self.geoms = frozenset(geoms.tolist())
        self._boxes = self._model.geom_aabb[geoms]
        self._ids = geoms
        self.reach_start, self.carry_start = self.reach(hand), self.carry()
        self._from, self._line = self._underside(), self._support()

    def reach(self, hand: int) -> float:
        """Distance (m) of a site from the boxes that bound the object's collision shapes."""
        away = self._data.site_xpos[hand] - self._data.geom_xpos[self._ids]
        rotations = self._data.geom_xmat[self._ids].reshape(-1, 3, 3)
        local = np.abs(np.einsum("gij,gi->gj", rotations, away) - self._boxes[:, :3])
        return float(np.linalg.norm(np.maximum(local - self._boxes[:, 3:], 0.0), axis=1).min())

    def carry(self) -> float:
        """Horizontal distance (m) of the object's origin from the target's region, 0 within it."""
        centre, half = self._region()
        return float(np.linalg.norm(np.maximum(np.abs(self._data.xpos[self._body] - centre)[:2] - half[:2], 0.0)))

    def height(self) -> float:
        """Of the underside (m) over the line from the object's beginning to where it shall stand."""
        gone = _gone(self.carry(), self.carry_start)
        return self._underside() - (self._from + gone * (self._line - self._from))

    def gap(self) -> float:
        """Vertical distance (m) of the underside from what the object shall stand on."""
        return self._underside() - self._support()

    def _region(self) -> tuple[np.ndarray, np.ndarray]:
        """Centre (3,) and half sizes (3,) in world axes, m."""
        if self._target_body is not None:
            return self._data.xpos[self._target_body], np.array([ARRIVED, ARRIVED, 0.0]) / np.sqrt(2.0)
        site = self._data.site(self.target)
        return site.xpos, np.abs(site.xmat.reshape(3, 3) @ self._model.site(self.target).size)

    def _support(self) -> float:
        """Height (m) of what the object shall stand on: a region's bottom ("in") or top ("on"), a body's origin."""
        centre, half = self._region()
        return float(centre[2] + (half[2] if self.kind == "on" else -half[2]))

    def _underside(self) -> float:
        """Height (m) of the object's lowest point."""
        rotations = self._data.geom_xmat[self._ids].reshape(-1, 3, 3)
        centres = self._data.geom_xpos[self._ids, 2] + np.einsum("gj,gj->g", rotations[:, 2], self._boxes[:, :3])
        return float((centres - np.einsum("gj,gj->g", np.abs(rotations[:, 2]), self._boxes[:, 3:])).min())


def _gone(now: float, start: float) -> float:
    """Share of a distance that has been covered, in [0, 1]; of no distance, nothing."""
    return float(np.clip(1.0 - now / start, 0.0, 1.0)) if start > 0.0 else 0.0
