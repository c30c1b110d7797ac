"""Grasp planning from the collision shapes of a MuJoCo scene, for a parallel gripper that comes from above.

Positions are metres in world axes, z up. The gripper's frame is robosuite's ``grip_site``: local x is the closing
direction, local z points out of the fingers (down). At yaw 0 the fingers close along the world's y axis.
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
PAD_LOW, PAD_HIGH, PAD_HALF_WIDTH = -0.0044, 0.0116, 0.008  # the fingers' pads, from grip_site
RIM_DEPTH = 0.012  # grip_site below the rim that is pinched
RIM_INSET = 0.003  # from the outermost point of a rim to the middle of its wall
MARGIN = 0.004  # free height that a planned grasp leaves
ROOMS = (0.012, 0.008, 0.004, 0.001)  # free space beside the open fingers: what is tried for first, and what will do
YAWS = np.deg2rad([0, *(sign * angle for angle in range(5, 90, 5) for sign in (1, -1)), 90])
GIVES_WAY = 0.006  # the inner finger may overlap the far wall of a bowl so much: it slides down and pushes the bowl
SHIFTS = (0.0, 0.008, 0.016, 0.024, 0.032)  # how far the gripper may be moved inwards where there is no room outside a rim


@dataclass(frozen=True)
class Grasp:
    """Where to close the gripper.

    Attributes:
        position: (3,) float64, of grip_site (m).
        yaw: rotation about the world's z axis (rad); at 0 the fingers close along y.
        kind: ``"across"``: the object is between the fingers; ``"rim"``: its wall is.
        side: of a rim: +1 if the wall lies in the closing direction from the object's middle, -1 if opposite; else 0.
        top: height of the object's highest point (m).
    """

    position: np.ndarray
    yaw: float
    kind: str
    side: int
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
        axes = [c + np.linspace(-h, h, max(2, int(np.ceil(2 * h / spacing)) + 1)) for c, h in zip(center, half, strict=True)]
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


def plan_grasp(
    model: Any, data: Any, body: int, ignore: Collection[int], effort: Callable[[np.ndarray], float]
) -> Grasp:
    """The first grasp with room for the gripper, in a fixed order; if there is none, the one with the most room.

    The order: much room before little; smallest rotation; across before rim; the side of a rim with less effort;
    least shifted.

    Args:
        model, data: MuJoCo's, with positions up to date.
        body: the object.
        ignore: ids of the robot's bodies.
        effort: how inconvenient a position of grip_site, (3,), is.

    Raises:
        SrpoError: the object is too wide and has no rim.
    """
    points = shape_points(model, data, collision_geoms(model, body))
    grasps = [grasp for yaw in YAWS for grasp in candidates(points, float(yaw), effort)]
    for room in ROOMS:
        for grasp in grasps:
            if clearance(model, data, grasp, ignore, room) > MARGIN / 2:
                return grasp
    if not grasps:
        raise SrpoError(
            f"the scripted expert finds no grasp from above on {model.body(body).name}:"
            " choose a task whose object is narrower than 7 cm or has a rim."
        )
    return max(grasps, key=lambda grasp: clearance(model, data, grasp, ignore, ROOMS[-1]))


def candidates(points: np.ndarray, yaw: float, effort: Callable[[np.ndarray], float]) -> list[Grasp]:
    """Grasps of an object at one yaw, whether or not there is room for them, best first.

    Args:
        points: (N, 3) points that fill the object (m).
        yaw: of the gripper (rad).
        effort: as for `plan_grasp`.
    """
    u = closing_direction(yaw)
    v = np.array([-u[1], u[0], 0.0])
    across, along, height = points @ u, points @ v, points[:, 2]
    top, bottom = float(height.max()), float(height.min())
    middle = (along.min() + along.max()) / 2
    grasps = []
    lowest = bottom + FINGERTIP + MARGIN
    for z in sorted({max(top - depth, lowest) for depth in DEPTHS}):
        held = (np.abs(along - middle) < FINGER_HALF_WIDTH) & (height > z + PAD_LOW)
        pads = held & (height < z + PAD_HIGH)
        low, high = across[pads].min(), across[pads].max()
        overhangs = across[held].min() < low - 1e-4 or across[held].max() > high + 1e-4  # would hang on the pads
        if high - low < MAX_WIDTH and not overhangs:
            grasps.append(Grasp(_at((low + high) / 2 * u + middle * v, z), yaw, "across", 0, top))
    line = np.abs(along - middle) < 0.006
    center = (across.min() + across.max()) / 2
    sides = []
    for side in (1, -1):
        half = line & (side * (across - center) > 0)
        if half.any():
            z = float(height[half].max()) - RIM_DEPTH
            wall = half & (height > z + PAD_LOW) & (height < z + PAD_HIGH)
            outer = (side * across[wall]).max() - RIM_INSET
            sides.append([Grasp(_at(side * (outer - s) * u + middle * v, z), yaw, "rim", side, top) for s in SHIFTS])
    for side_grasps in sorted(sides, key=lambda shifted: effort(shifted[0].position)):
        grasps.extend(side_grasps)
    return grasps


def clearance(model: Any, data: Any, grasp: Grasp, ignore: Collection[int], room: float) -> float:
    """Free height (m) under open fingers, ``room`` wider than they are, and palm; negative where they would hit."""
    u = closing_direction(grasp.yaw)
    v = np.array([-u[1], u[0], 0.0])
    spread = np.arange(FINGER_INNER + 0.001, FINGER_OUTER + room + 0.003, 0.003)
    wide = (FINGER_HALF_WIDTH + room / 2) * np.linspace(-1, 1, 3)
    inner = spread[spread < FINGER_OUTER - GIVES_WAY]
    sides = [(side, inner if side == -grasp.side else spread) for side in (1, -1)]
    fingers = [grasp.position + side * a * u + b * v for side, reach in sides for a in reach for b in wide]
    palm = [
        grasp.position + PALM_HALF_LENGTH * a * u + PALM_HALF_WIDTH * b * v
        for a in np.linspace(-1, 1, 7)
        for b in (-1, 0, 1)
    ]
    above = max(grasp.top, grasp.position[2] + PALM) + 0.15
    under_fingers = surface_heights(model, data, np.array(fingers), ignore, above).max()
    under_palm = surface_heights(model, data, np.array(palm), ignore, above).max()
    tip, hand = grasp.position[2] - FINGERTIP, grasp.position[2] + PALM
    return float(min(tip - under_fingers, hand - under_palm))


def _at(horizontal: np.ndarray, z: float) -> np.ndarray:
    return np.array([horizontal[0], horizontal[1], z])
