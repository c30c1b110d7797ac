"""Scripted experts: grasp geometry by hand, and whole episodes on the simulator."""

from __future__ import annotations

import importlib.util
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")

from srpo.envs.experts import expert_for
from srpo.envs.experts import grasp as planning
from srpo.envs.experts.pick_place import Corridor
from srpo.types import InitialState, SrpoError

needs_mujoco = pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="needs MuJoCo")
needs_libero = pytest.mark.skipif(importlib.util.find_spec("libero") is None, reason="needs LIBERO")


def filled_box(size: tuple[float, float, float], bottom: tuple[float, float, float]) -> np.ndarray:
    """Points every 2 mm of a box that stands with the middle of its underside on ``bottom``."""
    axes = [np.linspace(-s / 2, s / 2, round(s / 0.002) + 1) for s in size]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid + np.array([bottom[0], bottom[1], bottom[2] + size[2] / 2])


def square_bowl() -> np.ndarray:
    """Four walls, 2 mm thick and 5 cm high, around a 10 cm square."""
    walls = [filled_box((0.1, 0.002, 0.05), (0, side * 0.049, 0)) for side in (1, -1)]
    return np.concatenate([*walls, *(wall[:, [1, 0, 2]] for wall in walls)])


class TestGeometry:
    def test_fingers_close_along_y_at_yaw_zero_and_along_x_at_ninety_degrees(self) -> None:
        assert planning.closing_direction(0.0) == pytest.approx([0, 1, 0])
        assert planning.closing_direction(np.pi / 2) == pytest.approx([-1, 0, 0])

    def test_gripper_looks_down(self) -> None:
        expected = [[0, 1, 0], [1, 0, 0], [0, 0, -1]]
        assert planning.gripper_rotation(0.0) == pytest.approx(np.array(expected))
        assert np.linalg.det(planning.gripper_rotation(0.7)) == pytest.approx(1.0)

    def test_tall_box_is_grasped_below_its_top(self) -> None:
        grasps = planning.across_grasps(filled_box((0.04, 0.06, 0.1), (0.3, -0.2, 0.5)), 0.0)
        # top 0.6; grip_site 26, 20 and 14 mm below it
        assert [g.position[2] for g in grasps] == pytest.approx([0.574, 0.58, 0.586])
        assert grasps[0].position[:2] == pytest.approx([0.3, -0.2])
        assert (grasps[0].kind, grasps[0].top) == ("across", pytest.approx(0.6))

    def test_flat_box_is_grasped_just_above_the_table(self) -> None:
        (grasp,) = planning.across_grasps(filled_box((0.08, 0.04, 0.018), (0, 0, 0)), 0.0)
        assert grasp.position[2] == pytest.approx(0.0132)  # fingertips 9.2 mm lower, 4 mm of margin

    def test_too_wide_across_but_not_along(self) -> None:
        box = filled_box((0.04, 0.08, 0.1), (0, 0, 0))
        assert planning.across_grasps(box, 0.0) == []
        assert len(planning.across_grasps(box, np.pi / 2)) == 3

    def test_no_grasp_where_the_object_would_hang_on_the_pads(self) -> None:
        body, cap = filled_box((0.04, 0.04, 0.08), (0, 0, 0)), filled_box((0.04, 0.044, 0.02), (0, 0, 0.08))
        grasps = planning.across_grasps(np.concatenate([body, cap]), 0.0)
        # top 0.1. The pads reach from 4.4 mm below grip_site to 11.6 mm above it: at 0.074 they touch the
        # cap, which begins at 0.08
        assert [g.position[2] for g in grasps] == pytest.approx([0.074, 0.08, 0.086])
        high_cap = filled_box((0.04, 0.044, 0.012), (0, 0, 0.088))
        tall = np.concatenate([filled_box((0.04, 0.04, 0.088), (0, 0, 0)), high_cap])
        # now the pads at 0.074 end at 0.0856, below the cap's underside at 0.088: left out
        assert [g.position[2] for g in planning.across_grasps(tall, 0.0)] == pytest.approx([0.08, 0.086])

    def test_rim_is_pinched_on_both_sides_and_shifted_inwards(self) -> None:
        grasps = planning.rim_grasps(square_bowl(), 0.0)
        sides = {(g.side, g.shift): g.position for g in grasps}
        # outermost point 50 mm, 3 mm to the middle of the wall; 15 mm below the rim at 50 mm
        assert sides[1, 0.0] == pytest.approx([0, 0.047, 0.035])
        assert sides[-1, 0.0] == pytest.approx([0, -0.047, 0.035])
        assert sides[1, 0.016] == pytest.approx([0, 0.031, 0.035])

    def test_solid_block_has_no_rim(self) -> None:
        assert planning.rim_grasps(filled_box((0.1, 0.1, 0.05), (0, 0, 0)), 0.0) == []

    def test_outline_of_a_square_is_its_corners(self) -> None:
        corners = planning.outline(filled_box((0.1, 0.1, 0.02), (0, 0, 0)), directions=24)
        assert np.abs(corners) == pytest.approx(np.full((24, 2), 0.05))


SCENE = """
<mujoco><worldbody>
  <geom name="floor" type="plane" size="1 1 .1"/>
  <body name="box" pos="0 0 .05"><freejoint/><geom type="box" size=".02 .02 .05"/></body>
  {more}
</worldbody></mujoco>
"""
WALL = '<body><geom type="box" size=".1 .005 .06" pos="0 {y} .06"/></body>'


def scene(more: str = "") -> tuple[Any, Any, int]:
    import mujoco

    model = mujoco.MjModel.from_xml_string(SCENE.format(more=more))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data, model.body("box").id


def no_effort(position: np.ndarray) -> float:
    return 0.0


@needs_mujoco
class TestPlanning:
    def test_heights_of_box_and_floor(self) -> None:
        model, data, box = scene()
        points = np.array([[0.0, 0.0], [0.019, 0.019], [0.021, 0.0]])
        assert planning.surface_heights(model, data, points, (), 1.0) == pytest.approx([0.1, 0.1, 0.0])
        assert planning.surface_heights(model, data, points, {box}, 1.0) == pytest.approx([0, 0, 0])

    def test_shape_points_fill_the_box(self) -> None:
        model, data, box = scene()
        points = planning.shape_points(model, data, planning.collision_geoms(model, box))
        assert points.min(axis=0) == pytest.approx([-0.02, -0.02, 0.0])
        assert points.max(axis=0) == pytest.approx([0.02, 0.02, 0.1])
        assert len(points) == 11 * 11 * 26  # at most 4 mm apart

    def test_free_box_is_grasped_without_rotation(self) -> None:
        model, data, box = scene()
        grasp = planning.GraspPlanner(model, data, box, (), no_effort).plan()
        assert grasp.yaw == 0.0
        assert grasp.position == pytest.approx([0, 0, 0.074])

    def test_room_under_the_palm_decides_the_clearance(self) -> None:
        model, data, box = scene()
        planner = planning.GraspPlanner(model, data, box, (), no_effort)
        # palm 31 mm above grip_site at 0.074, box top at 0.1; under the fingertips 0.0648 of air
        assert planner.clearance(planner.plan(), 0.004) == pytest.approx(0.005)

    def test_walls_beside_the_box_force_a_rotation(self) -> None:
        model, data, box = scene(WALL.format(y=0.06) + WALL.format(y=-0.06))
        planner = planning.GraspPlanner(model, data, box, (), no_effort)
        straight = planning.across_grasps(planner.points, 0.0)[0]
        assert planner.clearance(straight, 0.001) < 0
        assert abs(np.rad2deg(planner.plan().yaw)) > 45

    def test_wide_block_is_refused_with_a_remedy(self) -> None:
        block = '<body name="block"><freejoint/><geom type="box" size=".05 .05 .03" pos=".5 0 .03"/></body>'
        model, data, _ = scene(block)
        planner = planning.GraspPlanner(model, data, model.body("block").id, (), no_effort)
        with pytest.raises(SrpoError, match=r"no grasp from above on block.*choose a task"):
            planner.plan()

    def test_corridor_sees_what_stands_on_the_way(self) -> None:
        model, data, _ = scene()
        start, goal = np.array([0.3, 0.0, 0.2]), np.array([-0.3, 0.0, 0.2])
        corridor = Corridor(model, data, start, goal, 0.05, ignore=())
        assert corridor.highest(0.6, 0.1) == pytest.approx(0.0)  # the box is 0.3 m from the goal
        assert corridor.highest(0.4, 0.1) == pytest.approx(0.1)
        assert corridor.highest(0.2, 0.1) == pytest.approx(0.0)


def run(suite: str, state: InitialState, noise: float = 0.0, steps: int | None = None) -> tuple[bool, np.ndarray]:
    env = ENVS.get(suite)
    env.reset(state)
    expert = expert_for(env, noise, seed=3)
    expert.reset()
    actions = []
    for _ in range(steps or env.task.max_steps):
        actions.append(expert.act())
        if env.step(actions[-1]):
            break
    return env.success, np.array(actions)


class _Envs:
    """The first task of each suite, built once."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def get(self, suite: str) -> Any:
        from srpo.envs.libero import LiberoEnv, tasks

        if suite not in self._built:
            self._built[suite] = LiberoEnv(tasks(suite)[0], cameras=())
        return self._built[suite]


ENVS = _Envs()


@needs_libero
@pytest.mark.parametrize("suite", ["libero_object", "libero_spatial"])
@pytest.mark.parametrize("state", [InitialState("published", 7), InitialState("sampled", 11)], ids=str)
def test_episode_is_solved_smoothly_within_the_limit(suite: str, state: InitialState) -> None:
    success, actions = run(suite, state)
    assert success
    assert len(actions) < 0.7 * ENVS.get(suite).task.max_steps
    assert actions.shape[1] == 7 and np.abs(actions).max() <= 1.0
    assert np.abs(np.diff(actions[:, :6], axis=0)).max() <= 0.25 + 1e-9
    assert set(actions[:, 6]) == {-1.0, 1.0}


@needs_libero
def test_same_state_and_seed_give_the_same_actions() -> None:
    state = InitialState("published", 0)
    first = run("libero_object", state, noise=0.1, steps=30)[1]
    second = run("libero_object", state, noise=0.1, steps=30)[1]
    quiet = run("libero_object", state, steps=30)[1]
    assert np.array_equal(first, second)
    assert not np.allclose(first, quiet)


@pytest.mark.parametrize(
    "goal", [["turnon", "flat_stove_1"], ["open", "cabinet_1_top"], ["on", "flat_stove_1", "plate_1"]]
)
def test_other_goals_are_refused_with_a_remedy(goal: list[str]) -> None:
    problem = SimpleNamespace(parsed_problem={"goal_state": [goal]}, objects_dict={"plate_1": None})
    with pytest.raises(SrpoError, match=rf'"{" ".join(goal)}".*choose a task'):
        expert_for(SimpleNamespace(problem=problem))
