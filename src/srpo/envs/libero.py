"""LIBERO (arXiv 2306.03310): manipulation tasks of a Panda arm in MuJoCo, with exact and cheap resets.

The physics, the controller's gains, the scenes and the success predicates are LIBERO's. What differs is the
bookkeeping around them: no observables, no rendering unless asked, and no rebuilding of the model at a reset.

Images are returned upright and unmirrored. OpenVLA-style preprocessing rotates robosuite's upside-down image
by 180 degrees, that is, it mirrors what is returned here from left to right; that belongs to such a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from srpo.envs.libero_placement import Placement, seeded
from srpo.envs.libero_suites import (
    STEP_LIMITS,
    SUITES,
    bddl_file,
    import_libero,
    published_initial_states,
    tasks,
)
from srpo.envs.rendering import Quality, SceneRenderer
from srpo.types import InitialState, Observation, SrpoError, Task

__all__ = ["CAMERAS", "STEP_LIMITS", "SUITES", "LiberoEnv", "published_initial_states", "tasks"]

#: Our names of the cameras -> robosuite's.
CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}

_REST = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])  # no motion, gripper opens
_FIXTURE_SEED = 0  # published evaluations call env.seed(0)
_PLACEMENT_ATTEMPTS = 100


class LiberoEnv:
    """One LIBERO task.

    Args:
        task: from :func:`tasks`.
        cameras: among ``"agentview"`` (third person) and ``"wrist"``; may be empty.
        image_size: height and width of the images in pixels.
        quality: ``"full"`` (LIBERO's pictures), ``"fast"`` (simplified meshes and textures: a tenth of the time
            and half of the memory, same physics; see :mod:`srpo.envs.model_cache`), ``"auto"`` or one with effects
            switched on or off; see `srpo.envs.rendering.Quality.parse`.
        control: ``"compiled"`` (:mod:`srpo.envs.osc`) or ``"stock"`` (robosuite's Python controller).
        settle_steps: control steps at rest, gripper opening, after each reset; published evaluations use 10.

    Attributes:
        task: the task.
        problem: robosuite's environment (LIBERO's ``BDDLBaseDomain``).
        success: whether the goal was reached since the last reset.

    Raises:
        SrpoError: LIBERO or OpenGL is missing, or an argument is not one of those above.
    """

    def __init__(
        self,
        task: Task,
        *,
        cameras: Sequence[str] = ("agentview",),
        image_size: int = 128,
        quality: str = "full",
        control: str = "compiled",
        settle_steps: int = 10,
    ) -> None:
        _check_choice("camera", cameras, CAMERAS)
        simplified = Quality.parse(quality).simplified
        _check_choice("control", [control], ("compiled", "stock"))
        if image_size < 1 or settle_steps < 0:
            raise SrpoError("image_size must be at least 1 and settle_steps at least 0.")
        self.task = task
        self.success = False
        self._cameras = tuple(cameras)
        self._image_size = image_size
        self._quality = quality
        self._settle_steps = settle_steps
        self._published = published_initial_states(task)
        self.problem = _build_problem(task, simplified)
        self._placement = Placement(self.problem)
        self._control = _control(control, self.problem)
        self._renderer: Any = None
        self._ready = False
        self._settled: tuple[InitialState, Any] | None = None
        self._nominal_warmstart: np.ndarray | None = None

    @property
    def model(self) -> Any:
        """The raw ``mujoco.MjModel``."""
        return self.problem.sim.model._model

    @property
    def data(self) -> Any:
        """The raw ``mujoco.MjData``."""
        return self.problem.sim.data._data

    def reset(self, initial_state: InitialState) -> Observation:
        """Put the scene into ``initial_state``, let it settle, and look.

        ``"published"`` restores one of LIBERO's own states. ``"sampled"`` draws a placement from the task's
        regions, and the arm's joints with robosuite's default noise, with ``index`` as the seed; fixtures
        stay where seed 0 put them, as in published evaluations, and what stands on one is placed as in the published
        states (see `srpo.envs.libero_placement.Placement`); placements from which an object falls or that
        are solved already are drawn again. The controller begins as robosuite's does
        after ``reset`` and ``set_init_state``: with the nominal pose as its first goal. The same argument gives
        the same ``qpos`` to the last bit, whatever ran before. The same state again, as in the episodes of a group,
        is copied, not settled anew.

        Raises:
            SrpoError: there is no such initial state, or no valid placement was found for this seed.
        """
        kind, index = initial_state.kind, initial_state.index
        self._ready = False
        if not self._recall(initial_state):
            if kind == "published":
                self._begin(lambda: self._restore(index), 0)
                self._settle()
            elif kind == "sampled":
                self._sample(index)
            else:
                raise SrpoError(f'an initial state is "published" or "sampled", not {kind!r}.')
            self._remember(initial_state)
        self.success = False
        self._ready = True
        return self.observe()

    def step(self, action: np.ndarray) -> bool:
        """Carry out one control step of 50 ms.

        Args:
            action: (7,) floats in [-1, 1] (clipped to it): translation (1 is 5 cm), rotation (1 is 0.5 rad),
                gripper (-1 opens, +1 closes).

        Returns:
            Whether LIBERO's goal predicate has been true after any step since the reset.

        Raises:
            SrpoError: the action has another shape or is not finite, or there was no reset.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (7,) or not np.isfinite(action).all():
            raise SrpoError(
                f"an action must be 7 finite numbers, got shape {action.shape} with values {action.tolist()}:"
                " check the policy's output for NaN and the gripper's dimension."
            )
        if not self._ready:
            raise SrpoError("the environment has no episode yet: call reset before step.")
        self._control.step(action)
        self.success = bool(self.problem._check_success()) or self.success
        return self.success

    def observe(self) -> Observation:
        """Render the cameras and read the proprioception, as they are now."""
        images = {camera: self.render(camera, self._image_size) for camera in self._cameras}
        return Observation(images=images, state=self._state(), instruction=self.task.instruction)

    def render(self, camera: str = "agentview", size: int = 256) -> np.ndarray:
        """Picture of the scene, (size, size, 3) uint8 RGB, upright and unmirrored.

        Raises:
            SrpoError: there is no such camera, or OpenGL is missing.
        """
        _check_choice("camera", [camera], CAMERAS)
        if self._renderer is None:
            self._renderer = SceneRenderer(self.problem, quality=self._quality)
        return self._renderer.render(self.data, CAMERAS[camera], size, size)

    def close(self) -> None:
        """Release what the renderer holds; closing twice does no harm. Further use needs a reset."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._ready = False

    def _remember(self, initial_state: InitialState) -> None:
        if not isinstance(self._control, _StockControl):
            into = self._settled[1] if self._settled is not None else None
            self._settled = (initial_state, self._control.snapshot(into))

    def _recall(self, initial_state: InitialState) -> bool:
        """Go back to the last settled state if it is the one wanted."""
        if self._settled is None or self._settled[0] != initial_state:
            return False
        self._control.restore(self._settled[1])
        return True

    def _begin(self, arrange: Callable[[], None], *seed: int) -> None:
        """Nominal pose, a new controller, the gripper at rest, all else zero; then objects where they belong."""
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        (robot,) = self.problem.robots
        with seeded(*seed):
            self._reset_robot(robot)
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
            arrange()
        self.problem.sim.forward()
        self.problem._check_success()
        self.problem._post_process()
        self._control.reset(as_stock=True)

    def _reset_robot(self, robot: Any) -> None:
        """``robot.reset()``, whose new controller evaluates the dynamics of the nominal scene twice.

        Of the contacts there, many and always the same, nothing is read but the solution from which the next solver
        starts. It is kept from the first time; afterwards the contacts are left out.
        """
        import mujoco

        options = self.model.opt
        disabled = options.disableflags
        if self._nominal_warmstart is not None:
            options.disableflags = disabled | int(mujoco.mjtDisableBit.mjDSBL_CONSTRAINT)
        try:
            robot.reset()
        finally:
            options.disableflags = disabled
        if self._nominal_warmstart is None:
            self._nominal_warmstart = self.data.qacc_warmstart.copy()
        self.data.qacc_warmstart[:] = self._nominal_warmstart

    def _settle(self) -> None:
        for _ in range(self._settle_steps):
            self._control.step(_REST)

    def _restore(self, index: int) -> None:
        if not 0 <= index < len(self._published):
            count = len(self._published)
            raise SrpoError(f"{self.task.id} has no published initial state {index}: 0 to {count - 1} exist.")
        state = self._published[index]
        size = 1 + self.model.nq + self.model.nv
        if state.shape != (size,):
            raise SrpoError(
                f"the published states of {self.task.id} have {state.size} numbers, the model needs {size}:"
                ' the LIBERO files do not belong together; pip install --force-reinstall "srpo[libero]".'
            )
        self.problem.sim.set_state_from_flattened(state)

    def _sample(self, index: int) -> None:
        """Draw placements until one fits, stays in place and is not solved already."""
        from robosuite.utils.errors import RandomizationError

        if index < 0:
            raise SrpoError(f"a sampled initial state needs a seed of at least 0, got {index}.")
        for attempt in range(_PLACEMENT_ATTEMPTS):
            seed = (index,) if attempt == 0 else (index, attempt)
            try:
                self._begin(self._placement.sample, *seed)
            except RandomizationError:
                continue
            placed = self._placement.horizontal()
            self._settle()
            if not self._placement.slid(placed) and not self.problem._check_success():
                return
        raise SrpoError(f"{self.task.id} has no valid placement for seed {index}: use another one.")

    def _state(self) -> np.ndarray:
        (robot,) = self.problem.robots
        quaternion = self.problem.sim.data.get_body_xquat(robot.robot_model.eef_name)
        position = self.data.site_xpos[robot.eef_site_id]
        fingers = self.data.qpos[robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([position, axis_angle(quaternion), fingers]).astype(np.float32)


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """Axis times angle of a unit quaternion.

    The angle is 2 arccos(w), from 0 to 2 pi, and the sign of the quaternion is *not* normalised: LIBERO's
    gripper points down, near pi, where normalising would make the vector jump. OpenVLA-OFT's evaluation and
    LIBERO's demonstrations have it so.

    Args:
        quaternion: (4,) w, x, y, z.

    Returns:
        (3,) rad.
    """
    w = float(np.clip(quaternion[0], -1.0, 1.0))
    sine = np.sqrt(1.0 - w * w)
    if np.isclose(sine, 0.0):
        return np.zeros(3)
    return np.asarray(quaternion[1:], dtype=np.float64) * (2.0 * np.arccos(w) / sine)


class _StockControl:
    """robosuite's own controller, in Python, without its observables."""

    def __init__(self, problem: Any) -> None:
        self._problem = problem
        self._substeps = int(problem.control_timestep / problem.model_timestep)

    def reset(self, as_stock: bool = False) -> None:
        if not as_stock:
            (robot,) = self._problem.robots
            robot.controller.update(force=True)
            robot.controller.reset_goal()

    def step(self, action: np.ndarray) -> None:
        problem = self._problem
        for substep in range(self._substeps):
            problem.sim.forward()
            problem._pre_action(action, policy_step=substep == 0)
            problem.sim.step()
        problem._post_process()


def _control(kind: str, problem: Any) -> Any:
    if kind == "stock":
        return _StockControl(problem)
    from srpo.envs.osc import CompiledControl

    return CompiledControl(problem)


def _build_problem(task: Task, simplified: bool) -> Any:
    """Construct LIBERO's environment as its ``ControlEnv`` does; no cameras, fixtures placed by seed 0."""
    from srpo.envs.model_cache import fast_construction

    envs = import_libero("libero.libero.envs")
    bddl_utils = import_libero("libero.libero.envs.bddl_utils")
    from robosuite import load_controller_config
    from robosuite.utils.errors import RandomizationError

    path = str(bddl_file(task))
    problem_class = envs.TASK_MAPPING[bddl_utils.get_problem_info(path)["problem_name"]]
    visuals = fast_construction() if simplified else nullcontext()
    with visuals, seeded(_FIXTURE_SEED):
        for _ in range(_PLACEMENT_ATTEMPTS):
            try:
                problem = problem_class(
                    path,
                    robots=["Panda"],
                    controller_configs=load_controller_config(default_controller="OSC_POSE"),
                    initialization_noise=None,
                    use_camera_obs=False,
                    has_offscreen_renderer=False,
                    control_freq=20,
                    ignore_done=True,
                    hard_reset=False,
                )
                break
            except RandomizationError:  # LIBERO's wrapper tries again with the next random numbers
                continue
        else:
            raise SrpoError(f"LIBERO found no valid placement for the fixtures of {task.id}.")
    problem.visualize(vis_settings={name: False for name in problem._visualizations})
    problem.check_contact = _ContactCheck(problem)
    return problem


class _ContactCheck:
    """robosuite's ``check_contact``, which the goal predicates ask after every step, on arrays: it compares the names
    of the geoms of every contact, one after the other, and a scene of LIBERO-Spatial has ninety."""

    def __init__(self, problem: Any) -> None:
        self._sim = problem.sim
        self._known: dict[int, np.ndarray] = {}

    def __call__(self, geoms_1: Any, geoms_2: Any = None) -> bool:
        """Whether a geom of the first model, name or list of names touches one of the second (None: touches any)."""
        first, second = (self._members(geoms)[self._sim.data._data.contact.geom] for geoms in (geoms_1, geoms_2))
        return bool((first & second[:, ::-1]).any())

    def _members(self, geoms: Any) -> np.ndarray:
        """(number of geoms,) bool."""
        from robosuite.models.base import MujocoModel

        model = self._sim.model
        if geoms is None:
            return np.ones(model.ngeom, bool)
        known = self._known.get(id(geoms)) if isinstance(geoms, MujocoModel) else None
        if known is None:
            names = geoms.contact_geoms if isinstance(geoms, MujocoModel) else np.atleast_1d(geoms)
            known = np.zeros(model.ngeom, bool)
            known[[model.geom_name2id(name) for name in names]] = True
            if isinstance(geoms, MujocoModel):
                self._known[id(geoms)] = known
        return known


def _check_choice(what: str, given: Sequence[str], allowed: Any) -> None:
    for name in given:
        if name not in allowed:
            raise SrpoError(f"there is no {what} {name!r}: choose from {', '.join(allowed)}.")
