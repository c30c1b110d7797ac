"""A scripted expert that picks an object up and places it, with privileged access to the simulator's state.

It is a small state machine (reach, close, carry, release, retreat) whose motions are velocity fields: the
action is a function of where the gripper is, not of the time, so that a disturbed episode returns to it.
The same scene is always solved in the same way, so that a policy can be cloned from it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from srpo.envs.experts.grasp import (
    FINGERTIP,
    Grasp,
    GraspPlanner,
    collision_geoms,
    gripper_rotation,
    shape_points,
    surface_heights,
)
from srpo.types import SrpoError

GAIN = 30.0  # action per metre of distance: full speed (0.3 m/s) until 3 cm before the goal
SLEW = 0.25  # largest change of a translation component from one action to the next
NEAR_SPEED = 0.5  # action, near contact
WRIST_HEIGHT, WRIST_OFFSET = 0.2, 0.088  # m, of joint 6 above and behind grip_site
STRETCHING_BY_REACH = (0.55, 0.65), (1.0, 0.4)  # outward action by the distance from shoulder to wrist (m)
ROTATION_GAIN_BY_REACH = (0.54, 0.62), (1.5, 0.3)  # action per radian
COMFORTABLE_REACH = 0.7  # m, horizontally from the base
CLEARANCE = 0.02  # m, between what moves and what stands below
SLOPE, RISE = 0.8, 0.05  # of the funnel above a goal: rise per metre of distance, and at most (m)
SLIPPED = 0.04  # m, change of the distance between hand and object
CLOSE_STEPS = 5, 14  # at least, at most
STILL_FINGERS = 0.005  # m/s; slower fingers hold something
RELEASE_STEPS, RETREAT_STEPS = 8, 12


class Corridor:
    """Heights of the obstacles along a straight way, as a function of the distance that remains.

    Args:
        start, goal: (3,) or (2,) positions in world axes (m).
        half_width: how far to either side something may be hit (m).
        ignore: bodies that are no obstacles.
    """

    STEP = 0.015

    def __init__(
        self,
        model: Any,
        data: Any,
        start: np.ndarray,
        goal: np.ndarray,
        half_width: float,
        ignore: Collection[int],
    ) -> None:
        way = start[:2] - goal[:2]
        length = float(np.linalg.norm(way))
        along = way / length if length > 1e-6 else np.array([1.0, 0.0])
        side = np.array([-along[1], along[0]])
        self.distances = np.arange(0.0, length + self.STEP, self.STEP)
        widths = np.linspace(-half_width, half_width, 5)
        points = [goal[:2] + d * along + w * side for d in self.distances for w in widths]
        heights = surface_heights(model, data, np.array(points), ignore, from_height=float(goal[2]) + 0.6)
        self.heights = heights.reshape(len(self.distances), len(widths)).max(axis=1)

    def highest(self, distance: float, ahead: float) -> float:
        """Height (m) of the highest obstacle between ``distance`` and ``ahead`` metres further on."""
        part = (self.distances >= distance - ahead - self.STEP) & (self.distances <= distance + self.STEP)
        return float(self.heights[part].max()) if part.any() else float(self.heights[-1])


class PickPlaceExpert:
    """Solves tasks whose goal is one or several "object in / on something".

    Args:
        env: an :class:`srpo.envs.libero.LiberoEnv`, or anything with ``problem``, ``model`` and ``data``.
        noise: standard deviation of Gaussian noise on the translation actions while nothing is near (DART,
            Laskey et al. 2017, arXiv 1703.09327), in units of the action.
        seed: of the noise.

    Raises:
        SrpoError: the task's goal is something else.
    """

    def __init__(self, env: Any, noise: float = 0.0, seed: int = 0) -> None:
        self.env = env
        self.noise, self.seed = noise, seed
        self.goals = pick_place_goals(env.problem)
        self.reset()

    def reset(self) -> None:
        """Begin an episode; the environment has been reset before."""
        problem, model = self.env.problem, self.env.model
        gripper = problem.robots[0].gripper
        self._site = model.site(gripper.important_sites["grip_site"]).id
        root = model.body_rootid[model.site_bodyid[self._site]]
        self._base = root
        self._shoulder = model.body("robot0_link1").id
        self._robot = frozenset(np.flatnonzero(model.body_rootid == root).tolist())
        self._rng = np.random.default_rng(self.seed)
        self._last = np.zeros(6)
        self.phase, self._steps = "plan", 0
        self.attempts = 0
        self._nearest, self._nearest_step = float("inf"), 0
        self.grasp: Grasp | None = None

    def act(self) -> np.ndarray:
        """(7,) float64 in [-1, 1]: translation, rotation (fractions of their ranges), gripper (+1 closes)."""
        if self.phase == "plan":
            self._plan()
        self._steps += 1
        translation, grip, speed, noisy = getattr(self, f"_{self.phase}")()
        translation = self._limit_stretching(translation * speed / max(speed, np.abs(translation).max()))
        if noisy and self.noise:
            translation = translation + self.noise * self._rng.standard_normal(3)
        wanted = np.clip(np.concatenate([translation, self._rotation()]), -1.0, 1.0)
        self._last = self._last + np.clip(wanted - self._last, -SLEW, SLEW)
        return np.append(self._last, grip)

    # Phases. Each returns translation (3,), gripper, speed limit, and whether noise may be added.

    def _reach(self) -> tuple[np.ndarray, float, float, bool]:
        """Come down to the grasp, over whatever stands in the way."""
        assert self.grasp is not None
        goal, here = self.grasp.position, self._position()
        move, over = self._field(goal, FINGERTIP, 0.004)
        distance = float(np.linalg.norm(goal - here))
        if distance < self._nearest - 1e-3:
            self._nearest, self._nearest_step = distance, self._steps
        stuck = self._steps > self._nearest_step + 8
        if distance < 0.005 or (stuck and distance < 0.015):
            self._enter("close")
        elif stuck and distance < 0.05:
            self._enter("retreat")
        near = here[2] - goal[2] < 0.05
        return move, -1.0, NEAR_SPEED if near else 1.0, over

    def _close(self) -> tuple[np.ndarray, float, float, bool]:
        """Close the fingers and wait until they hold."""
        assert self.grasp is not None
        fingers = np.abs(self.env.data.qvel[self.env.problem.robots[0]._ref_gripper_joint_vel_indexes])
        if (self._steps > CLOSE_STEPS[0] and fingers.max() < STILL_FINGERS) or self._steps >= CLOSE_STEPS[1]:
            self._start_carry()
        return GAIN * (self.grasp.position - self._position()), 1.0, 0.2, False

    def _carry(self) -> tuple[np.ndarray, float, float, bool]:
        """Lift, move over the target and go down to where the object is let go."""
        offset = self._object_position() - self._position()
        if abs(np.linalg.norm(offset) - self._held_at) > SLIPPED:
            self._enter("retreat")  # try again
        hang = self._hang()
        goal = np.array([*(self._target[:2] - offset[:2]), self._drop_height(offset, hang)])
        move, over = self._field(goal, max(FINGERTIP, hang), 0.01)
        here = self._position()
        if np.abs(goal - here).max() < 0.008:
            self._enter("release")
        near = here[2] - goal[2] < 0.04 and not over
        lifting = here[2] - self._lift_from < 0.03
        return move, 1.0, NEAR_SPEED if near or lifting else 1.0, over and not lifting

    def _release(self) -> tuple[np.ndarray, float, float, bool]:
        """Open the fingers, in place."""
        if self._steps >= RELEASE_STEPS:
            self._enter("retreat")
        return np.zeros(3), -1.0, 0.2, False

    def _retreat(self) -> tuple[np.ndarray, float, float, bool]:
        """Rise; then begin again if something is left to do."""
        if self._steps >= RETREAT_STEPS:
            self._enter("plan")
        return np.array([0.0, 0.0, 0.6]), -1.0, 0.6, False

    # Planning

    def _plan(self) -> None:
        """Choose the next unsolved goal and how to grasp its object."""
        problem, model, data = self.env.problem, self.env.model, self.env.data
        self.goal = next((g for g in self.goals if not problem._eval_predicate(g)), self.goals[-1])
        self._object = int(problem.obj_body_id[self.goal[1]])
        try:
            self.grasp = GraspPlanner(model, data, self._object, self._robot, self._effort).plan()
        except SrpoError:
            if self.attempts == 0:
                raise
            self._enter("retreat")  # the object fell so that it cannot be grasped: stay away
            return
        self._corridor = Corridor(model, data, self._position(), self.grasp.position, 0.06, self._robot)
        self.attempts += 1
        self._nearest, self._nearest_step = float("inf"), 0
        self._enter("reach")

    def _effort(self, position: np.ndarray) -> float:
        """How much further from its base (m) than is comfortable the arm must reach to ``position``."""
        base = self.env.data.xpos[self._base]
        return max(0.0, float(np.linalg.norm((position - base)[:2])) - COMFORTABLE_REACH)

    def _start_carry(self) -> None:
        """Measure how the object hangs in the hand, and look at the way to the target."""
        model, data = self.env.model, self.env.data
        here = self._position()
        offset = self._object_position() - here
        self._held_at = float(np.linalg.norm(offset))
        points = shape_points(model, data, collision_geoms(model, self._object))
        self._shape = (points - data.xpos[self._object]) @ data.xmat[self._object].reshape(3, 3)
        self._lift_from = here[2]
        self._target, self._inside = self._find_target()
        ignore = self._robot | {self._object}
        half_width = max(0.03, float(np.ptp(points[:, :2], axis=0).max()) / 2)
        goal = np.array([*(self._target[:2] - offset[:2]), here[2]])
        self._corridor = Corridor(model, data, here, goal, half_width, ignore)
        self._enter("carry")

    def _find_target(self) -> tuple[np.ndarray, bool]:
        """Where the object shall come, (3,), and whether that is inside of something with walls.

        Inside, the height is that of the object's origin, a little above the goal's region; else that of its
        underside, a little above what it is put on.
        """
        model, data = self.env.model, self.env.data
        predicate, _, name = self.goal
        center = self._target_center()
        if predicate == "in":
            size = np.abs(data.site(name).xmat.reshape(3, 3) @ model.site(name).size)
            center[2] += size[2] + 0.008
            return center, True
        ring = center[:2] + 0.02 * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
        floor = surface_heights(model, data, ring, self._robot | {self._object}, center[2] + 0.5).max()
        return np.array([center[0], center[1], floor + 0.008]), False

    def _target_center(self) -> np.ndarray:
        problem, data, name = self.env.problem, self.env.data, self.goal[2]
        is_body = name in problem.obj_body_id
        return (data.xpos[problem.obj_body_id[name]] if is_body else data.site(name).xpos).copy()

    def _hang(self) -> float:
        """How far (m) the object in the hand reaches below grip_site."""
        down = self.env.data.xmat[self._object].reshape(3, 3)[2]
        return float(self._position()[2] - self._object_position()[2] - (self._shape @ down).min())

    def _drop_height(self, offset: np.ndarray, hang: float) -> float:
        """Height of grip_site (m) at which the object is let go."""
        if not self._inside:
            return float(self._target[2] + hang)
        over_the_walls = self._corridor.highest(0.0, 0.0) + FINGERTIP + 0.003  # the fingers open there
        return max(float(self._target[2] - offset[2]), over_the_walls)

    # Motion

    def _field(self, goal: np.ndarray, hang: float, tolerance: float) -> tuple[np.ndarray, bool]:
        """Velocity field that ends in ``goal`` from above.

        Far away the height to keep is that of the obstacles ahead, or of a slope that ends above the goal;
        the way down opens as the horizontal distance falls below ``tolerance`` (m). Too low, it rises before
        it moves sideways. ``hang`` is how far (m) something reaches below grip_site.

        Returns:
            Translation action before limiting, (3,), and whether the gripper is still on its way over.
        """
        here = self._position()
        error = goal - here
        distance = float(np.linalg.norm(error[:2]))
        opening = float(np.clip((distance - tolerance) / 0.02, 0.0, 1.0))
        travel = self._corridor.highest(distance, 0.08) + hang + CLEARANCE
        travel = max(travel, goal[2] + min(SLOPE * distance, RISE))
        height = goal[2] + opening * (travel - goal[2])
        move = GAIN * np.array([error[0], error[1], height - here[2]])
        missing = height - here[2]
        if opening > 0:
            move[:2] *= np.clip(1.0 - (missing - 0.01) / 0.03, 0.0, 1.0)
        return move, opening > 0

    def _rotation(self) -> np.ndarray:
        """(3,) rotation action (axis-angle in world axes) towards looking down with the grasp's yaw."""
        from scipy.spatial.transform import Rotation

        assert self.grasp is not None
        now = self.env.data.site_xmat[self._site].reshape(3, 3)
        delta = Rotation.from_matrix(gripper_rotation(self.grasp.yaw) @ now.T).as_rotvec()
        gain = float(np.interp(np.linalg.norm(self._wrist()), *ROTATION_GAIN_BY_REACH))
        return np.clip(gain * delta, -0.5, 0.5)

    def _wrist(self) -> np.ndarray:
        """Vector (m) from the shoulder to the wrist of a hand that looks down; 0.7 long, the arm is straight.

        Near that the controller, which treats position and orientation as uncoupled, hardly resists a motion
        that straightens the elbow while it tilts the hand: the expert stretches slowly and hardly rotates.
        """
        wrist = self._position() - self.env.data.xpos[self._shoulder]
        wrist[2] += WRIST_HEIGHT
        wrist[:2] *= 1.0 - WRIST_OFFSET / np.linalg.norm(wrist[:2])
        return wrist

    def _limit_stretching(self, translation: np.ndarray) -> np.ndarray:
        wrist = self._wrist()
        reach = float(np.linalg.norm(wrist))
        outwards = wrist / reach
        excess = float(translation @ outwards - np.interp(reach, *STRETCHING_BY_REACH))
        return translation - max(0.0, excess) * outwards

    def _position(self) -> np.ndarray:
        return self.env.data.site_xpos[self._site].copy()

    def _object_position(self) -> np.ndarray:
        return self.env.data.xpos[self._object].copy()

    def _enter(self, phase: str) -> None:
        self.phase, self._steps = phase, 0


def pick_place_goals(problem: Any) -> list[list[str]]:
    """The goals ``[predicate, object, target]`` of a LIBERO problem.

    Raises:
        SrpoError: one of them is not about putting a movable object into or onto something.
    """
    goals = [list(goal) for goal in problem.parsed_problem["goal_state"]]
    for goal in goals:
        if len(goal) != 3 or goal[0].lower() not in ("in", "on") or goal[1] not in problem.objects_dict:
            raise SrpoError(
                f'no scripted expert for the goal "{" ".join(goal)}": choose a task whose goals put a movable'
                ' object "in" or "on" something, as in libero_spatial and libero_object.'
            )
    return [[goal[0].lower(), *goal[1:]] for goal in goals]


def expert_for(env: Any, noise: float = 0.0, seed: int = 0) -> PickPlaceExpert:
    """The scripted expert for an environment's task (see :class:`PickPlaceExpert`).

    Raises:
        SrpoError: there is none; the message says what is supported.
    """
    return PickPlaceExpert(env, noise, seed)
