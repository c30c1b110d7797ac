"""Grasp planning from the collision shapes of a MuJoCo scene, for a parallel gripper that comes from above.

Positions are metres in world axes, z up. The gripper's frame is robosuite's ``grip_site``: local x is the
closing direction, local z points out of the fingers (down). At yaw 0 the fingers close along the world's y.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from srpo.types import SrpoError

# The Panda gripper, measured from grip_site (m).
FINGERTIP = 0.0092  # fingertips lie so far below it
PALM = 0.031  # the palm lies so far above it
FINGER_INNER, FINGER_OUTER = 0.039, 0.066  # open fingers, along the closing direction
FINGER_HALF_WIDTH = 0.0105
PALM_HALF_LENGTH, PALM_HALF_WIDTH = 0.104, 0.032

MAX_WIDTH = 0.072  # widest object between the fingers
DEPTHS = (0.026, 0.02, 0.014)  # grip_site below an object's top
PAD_LOW, PAD_HIGH = -0.0044, 0.0116  # the fingers' pads, from grip_site
RIM_DEPTH = 0.015  # grip_site below the rim that is pinched
RIM_INSET = 0.003  # from the outermost point of a rim to the middle of its wall
MAX_WALL = 0.03  # thickest wall that is pinched, its slope within the pads' height included
MARGIN = 0.004  # free height that a planned grasp leaves
YAWS = np.deg2rad([0, *(sign * angle for angle in range(5, 90, 5) for sign in (1, -1)), 90])
ROOMS = (0.012, 0.008, 0.004, 0.001)  # free space beside the open fingers, from plenty to just enough
SHIFTS = (0.0, 0.008, 0.016, 0.024, 0.032)  # how far to move inwards where there is no room outside a rim
STEP = 0.015  # m, what an object can be pushed onto
ROOM_COST = 2.0  # metres of reach that a metre of missing room is worth
YAW_COST = 0.1  # metres of reach that a radian of rotation is worth
SHIFT_COST = 2.0  # metres of reach that a metre of shift is worth
EFFORT_COST = 1.5  # and a metre of uncomfortable reach
GIVES_WAY = 0.006  # overlap of the inner finger with a bowl's far wall: it slides down and pushes the bowl


@dataclass(frozen=True)
class Grasp:
    """Where to close the gripper.

    Attributes:
        position: (3,) float64, of grip_site (m).
        yaw: rotation about the world's z axis (rad); at 0 the fingers close along y.
        kind: ``"across"``: the object is between the fingers; ``"rim"``: its wall is.
        side: of a rim: +1 if its wall lies in the closing direction from the object's middle, -1 if opposite;
            0 of no rim.
        shift: how far the gripper is moved inwards from the middle of a rim's wall (m).
        top: height of the object's highest point (m).
    """

    position: np.ndarray
    yaw: float
    kind: str
    side: int
    shift: float
    top: float


def closing_direction(yaw: float) -> np.ndarray:
    """(3,) unit vector along which the fingers close: (-sin yaw, cos yaw, 0)."""
    return np.array([-np.sin(yaw), np.cos(yaw), 0.0])


def gripper_rotation(yaw: float) -> np.ndarray:
    """(3, 3) rotation of grip_site, looking straight down, whose first column is the closing direction."""
    x, z = closing_direction(yaw), np.array([0.0, 0.0, -1.0])
    return np.stack([x, np.cross(z, x), z], axis=1)


def collision_geoms(model: Any, body: int) -> np.ndarray:
    """(G,) int: geoms that can touch something, of ``body`` and all bodies in the same kinematic tree."""
    in_tree = model.body_rootid[model.geom_bodyid] == model.body_rootid[body]
    return np.flatnonzero(in_tree & ((model.geom_contype != 0) | (model.geom_conaffinity != 0)))


def shape_points(model: Any, data: Any, geoms: np.ndarray, spacing: float = 0.004) -> np.ndarray:
    """(N, 3) float64: a grid of points in the boxes that bound the geoms, at most ``spacing`` apart (m)."""
    points = []
    for geom in geoms:
        center, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        counts = np.maximum(2, np.ceil(2 * half / spacing).astype(int) + 1)
        axes = [np.linspace(c - h, c + h, n) for c, h, n in zip(center, half, counts, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        points.append(grid @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    return np.concatenate(points)


def surface_heights(
    model: Any, data: Any, points: np.ndarray, ignore: Collection[int], from_height: float
) -> np.ndarray:
    """Height of the highest collision shape under each point, found by rays downwards.

    Args:
        points: (N, 2) or (N, 3) float64; x and y are used.
        ignore: ids of bodies to look through (the robot, the object in the hand).
        from_height: where the rays begin (m).

    Returns:
        (N,) float64, metres; that of the floor where there is nothing.
    """
    import mujoco

    planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    heights = np.full(len(points), data.geom_xpos[planes, 2].max(initial=-np.inf))
    groups = np.array([1, 0, 0, 0, 0, 0], dtype=np.uint8)  # collision shapes
    down, geom = np.array([0.0, 0.0, -1.0]), np.zeros(1, dtype=np.int32)
    for i, point in enumerate(points):
        origin = np.array([point[0], point[1], from_height])
        while (distance := mujoco.mj_ray(model, data, origin, down, groups, 1, -1, geom)) >= 0:
            origin[2] -= distance
            if model.geom_bodyid[geom[0]] not in ignore:
                heights[i] = origin[2]
                break
            origin[2] -= 1e-4
    return heights


class GraspPlanner:
    """Plans grasps of one object as it lies now.

    Args:
        model, data: MuJoCo's, with positions up to date.
        body: the object.
        ignore: ids of the robot's bodies.
        effort: how inconvenient a position of grip_site, (3,), is for the arm, in metres of reach.
    """

    def __init__(
        self, model: Any, data: Any, body: int, ignore: Collection[int], effort: Callable[[np.ndarray], float]
    ) -> None:
        self.model, self.data, self.body = model, data, body
        self.ignore, self.effort = frozenset(ignore), effort
        self.points = shape_points(model, data, collision_geoms(model, body))

    def plan(self) -> Grasp:
        """The first grasp with room for the gripper, in a fixed order; or else the one with the most room.

        The order weighs rotation against room, and for rims also effort and shift. A rim is pinched only if
        the object does not fit between the fingers.

        Raises:
            SrpoError: the object is too wide and has no rim.
        """
        grasps = [(YAW_COST * abs(g.yaw), g) for yaw in YAWS for g in across_grasps(self.points, float(yaw))]
        if not grasps:
            rims = [grasp for yaw in YAWS for grasp in rim_grasps(self.points, float(yaw))]
            grasps = [
                (EFFORT_COST * self.effort(g.position) + YAW_COST * abs(g.yaw) + SHIFT_COST * g.shift, g) for g in rims
            ]
        ways = [(cost + ROOM_COST * (ROOMS[0] - room), room, g) for cost, g in grasps for room in ROOMS]
        for _, room, grasp in sorted(ways, key=lambda way: way[0]):
            if self.clearance(grasp, room) > MARGIN / 2:
                return grasp
        if not grasps:
            raise SrpoError(
                f"the scripted expert finds no grasp from above on {self.model.body(self.body).name}:"
                " choose a task whose object is narrower than 7 cm or has a rim."
            )
        return max((grasp for _, grasp in grasps), key=lambda grasp: self.clearance(grasp, ROOMS[-1]))

    def clearance(self, grasp: Grasp, room: float) -> float:
        """Free height (m) under the palm and the open fingers, these taken ``room`` (m) wider than they are.

        A shifted grasp also needs free way for the object, which the closing fingers push into their middle.
        Negative or zero where something would be hit.
        """
        u, v = closing_direction(grasp.yaw), _horizontal_normal(closing_direction(grasp.yaw))
        tip, hand = grasp.position[2] - FINGERTIP, grasp.position[2] + PALM
        spread = np.arange(FINGER_INNER + 0.001, FINGER_OUTER + room + 0.003, 0.003)
        inner = spread[spread < FINGER_OUTER - GIVES_WAY]
        wide = (FINGER_HALF_WIDTH + room / 2) * np.linspace(-1, 1, 3)
        reach = {side: inner if side == -grasp.side else spread for side in (1, -1)}
        fingers = [grasp.position + s * a * u + b * v for s in (1, -1) for a in reach[s] for b in wide]
        free = tip - self._highest(np.array(fingers), self.ignore)
        if free > 0:
            lengths = np.linspace(-PALM_HALF_LENGTH, PALM_HALF_LENGTH, 15)
            widths = np.linspace(-PALM_HALF_WIDTH, PALM_HALF_WIDTH, 3)
            palm = [grasp.position + a * u + b * v for a in lengths for b in widths]
            free = min(free, hand - self._highest(np.array(palm), self.ignore))
        if free > 0 and grasp.shift:
            moved = outline(self.points) - (grasp.shift + MARGIN) * grasp.side * u[:2]
            bottom = self.points[:, 2].min()
            free = min(free, bottom + STEP - self._highest(moved, self.ignore | {self.body}))
        return float(free)

    def _highest(self, points: np.ndarray, ignore: Collection[int]) -> float:
        above = float(self.points[:, 2].max()) + 0.2
        return float(surface_heights(self.model, self.data, points, ignore, above).max())


def across_grasps(points: np.ndarray, yaw: float) -> list[Grasp]:
    """Grasps with the object between the fingers, lowest first, whether or not there is room for them.

    Heights where something above the pads sticks out over them are left out: released, the object would hang.

    Args:
        points: (N, 3) points that fill the object (m).
        yaw: of the gripper (rad).
    """
    u = closing_direction(yaw)
    v = _horizontal_normal(u)
    across, along, height = points @ u, points @ v, points[:, 2]
    top = float(height.max())
    middle = (along.min() + along.max()) / 2
    line = np.abs(along - middle) < FINGER_HALF_WIDTH
    lowest = float(height.min()) + FINGERTIP + MARGIN
    grasps = []
    for z in sorted({max(top - depth, lowest) for depth in DEPTHS}):
        held = across[line & (height > z + PAD_LOW)]
        pads = across[line & (height > z + PAD_LOW) & (height < z + PAD_HIGH)]
        if not pads.size:
            continue
        overhangs = held.min() < pads.min() - 1e-4 or held.max() > pads.max() + 1e-4
        if np.ptp(across[line]) < MAX_WIDTH and not overhangs:
            position = _at((pads.min() + pads.max()) / 2 * u + middle * v, z)
            grasps.append(Grasp(position, yaw, "across", 0, 0.0, top))
    return grasps


def rim_grasps(points: np.ndarray, yaw: float) -> list[Grasp]:
    """Grasps with the object's wall between the fingers, on both sides, whether or not there is room.

    Args:
        points: (N, 3) points that fill the object (m).
        yaw: of the gripper (rad).
    """
    u = closing_direction(yaw)
    v = _horizontal_normal(u)
    across, along, height = points @ u, points @ v, points[:, 2]
    center, middle = (across.min() + across.max()) / 2, (along.min() + along.max()) / 2
    grasps = []
    for side in (1, -1):
        half = (np.abs(along - middle) < 0.006) & (side * (across - center) > 0)
        if half.any():
            z = float(height[half].max()) - RIM_DEPTH
            wall = half & (height > z + PAD_LOW) & (height < z + PAD_HIGH)
            if not wall.any() or np.ptp(across[wall]) > MAX_WALL:
                continue
            outer = (side * across[wall]).max() - RIM_INSET
            for shift in SHIFTS:
                position = _at(side * (outer - shift) * u + middle * v, z)
                grasps.append(Grasp(position, yaw, "rim", side, shift, float(height.max())))
    return grasps


def outline(points: np.ndarray, directions: int = 24) -> np.ndarray:
    """(directions, 2) float64: the outermost of the points in directions all around, seen from above."""
    angles = (np.arange(directions) + 0.5) * 2.0 * np.pi / directions
    rays = np.stack([np.cos(angles), np.sin(angles)])
    return points[np.argmax(points[:, :2] @ rays, axis=0), :2]


def _horizontal_normal(u: np.ndarray) -> np.ndarray:
    return np.array([-u[1], u[0], 0.0])


def _at(horizontal: np.ndarray, z: float) -> np.ndarray:
    return np.array([horizontal[0], horizontal[1], z])
