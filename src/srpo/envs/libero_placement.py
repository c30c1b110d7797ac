"""New initial states of a LIBERO task, drawn with the task's own placement samplers without rebuilding the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from srpo.types import SrpoError

#: Standard deviation of the arm's initial joint positions (rad): robosuite's default, and LIBERO's published
#: initial states have it.
JOINT_NOISE = 0.02
#: How far (m) an object may slide while the scene settles. In published states it is up to 4 cm.
_SLIDE = 0.06


class Placement:
    """Places the objects of one environment as those of LIBERO's published initial states were placed.

    These were drawn with the fixtures at random places, too, and an object on a stove or in a drawer was put where that
    then was. But fixtures' poses belong to the model, not to a state: evaluations restore the objects and leave the
    fixtures where they are, so that the bowl of a published state stands up to 2 cm beside the middle of the burner.
    Here likewise: fixtures are drawn for the sake of what stands on them, and are not moved.

    Args:
        problem: LIBERO's ``BDDLBaseDomain``, freshly constructed.
    """

    def __init__(self, problem: Any) -> None:
        self._problem = problem
        self._model = problem.sim.model._model
        self._data = problem.sim.data._data
        self._fixtures: list[tuple[int, np.ndarray, np.ndarray]] = []  # body, nominal pose, pose (7,)
        for sampler in problem.placement_initializer.samplers.values():
            for fixture in sampler.mujoco_objects:
                if fixture.name in problem.fixtures_dict:
                    body = problem.sim.model.body_name2id(fixture.root_body)
                    pose = np.concatenate([self._model.body_pos[body], self._model.body_quat[body]])
                    self._fixtures.append((body, _nominal_pose(problem, fixture.root_body), pose))
        self._addresses = np.array(
            [problem.sim.model.get_joint_qpos_addr(thing.joints[-1])[0] for thing in problem.objects_dict.values()]
        )

    def sample(self) -> None:
        """Draw drawers, doors, knobs, objects and the arm's joints from NumPy's global generator.

        Raises:
            RandomizationError: (robosuite's) the objects found no place.
        """
        import mujoco

        problem = self._problem
        (robot,) = problem.robots
        arm = robot._ref_joint_pos_indexes
        self._data.qpos[arm] += np.random.normal(0.0, JOINT_NOISE, len(arm))  # noqa: NPY002
        for sampler in problem.object_property_initializers:
            problem.object_states_dict[sampler.name].set_joint(sampler.sample())
        # LIBERO reads where shelves and drawers are before it moves the fixtures, and adds the fixtures' poses.
        self._move_fixtures(nominal=True)
        mujoco.mj_step1(self._model, self._data)
        self._move_fixtures(nominal=False)
        placements = problem.placement_initializer.sample()
        placements = problem.conditional_placement_initializer.sample(problem.sim, placements)
        placements = problem.conditional_placement_on_objects_initializer.sample(placements)
        for position, quaternion, thing in placements.values():
            if thing.name not in problem.fixtures_dict:
                problem.sim.data.set_joint_qpos(thing.joints[-1], np.concatenate([position, quaternion]))

    def horizontal(self) -> np.ndarray:
        """Where the movable objects are now, (N, 2) float64 in metres."""
        return self._data.qpos[self._addresses[:, None] + np.arange(2)]

    def slid(self, before: np.ndarray) -> bool:
        """Whether an object has fallen off or been pushed away since :meth:`horizontal` returned ``before``."""
        return bool((np.linalg.norm(self.horizontal() - before, axis=1) > _SLIDE).any())

    def _move_fixtures(self, nominal: bool) -> None:
        for body, nominal_pose, pose in self._fixtures:
            chosen = nominal_pose if nominal else pose
            self._model.body_pos[body], self._model.body_quat[body] = chosen[:3], chosen[3:]


@contextmanager
def seeded(*seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which robosuite draws from, and put its state back afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed[0] if len(seed) == 1 else seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _nominal_pose(problem: Any, body: str) -> np.ndarray:
    """Pose (7,) of a fixture in the scene's XML, before LIBERO moves it."""
    element = problem.model.worldbody.find(f".//body[@name='{body}']")
    if element is None or {"euler", "axisangle", "xyaxes", "zaxis"} & set(element.keys()):
        raise SrpoError(f"LIBERO's fixture {body!r} is described in a way that srpo cannot read.")
    text = f"{element.get('pos', '0 0 0')} {element.get('quat', '1 0 0 0')}"
    return np.array(text.split(), dtype=np.float64)
