"""robosuite's operational-space controller and gripper, compiled: the same robot without the interpreter.

robosuite 1.4.0 evaluates the dynamics three times per 2 ms substep and computes the torques in Python. Here
each substep is one pass, ``mj_step1``, control law, ``mj_step2``, and one call runs all substeps of a control
step. Goals and quirks are those of robosuite (see :class:`CompiledControl`); the arithmetic differs in
rounding alone.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from srpo.types import SrpoError

_RUNGE_KUTTA = 1  # mjtIntegrator.mjINT_RK4
_SPARSE = 1  # mjtJacobian.mjJAC_SPARSE
# robosuite's repeated evaluations warm-start the constraint solver in the same state, which takes its last
# solution beyond the model's tolerance of 1e-8. One pass stays near it with this one, at no measurable cost.
_TOLERANCE = 1e-12


class Snapshot(NamedTuple):
    """A moment of an episode, see `CompiledControl.snapshot`."""

    data: Any
    measured: bool
    state: list[np.ndarray]


class CompiledControl:
    """Steps a robosuite / LIBERO problem that has one arm under ``OSC_POSE``.

    What it keeps of ``env.step``: goals relative to the pose at the beginning of the control step (an action
    without rotation keeps the last goal *orientation*), rotation deltas in single precision, gravity
    compensation, the null-space posture, torque limits, the gripper's command that moves by its speed every
    substep, and derived quantities (``xpos``, contacts, sensors) that after a step belong to the beginning of
    its last substep. What it leaves out: robosuite's observables, its buffers of recent values, ``timestep``
    and the horizon.

    What it saves besides the interpreter, with the same motion: marking the bounding volumes that a viewer
    could show (``vis.global.bvactive``; a tenth to a fifth of LIBERO's physics, because the memory grows with
    the visual meshes), sensors before the last substep, and dense constraint Jacobians before the last
    substep (sparse ones give the same solution, summed in another order).

    The functions are compiled once per machine (five to ten seconds) and cached beside this file.
    Environments share nothing, and the interpreter's lock is released during a step. An error inside MuJoCo's
    engine ends the process.

    Args:
        problem: the robosuite environment (LIBERO's ``BDDLBaseDomain``). Indices, gains and limits are read
            from its robot, controller and gripper.

    Raises:
        SrpoError: numba or MuJoCo is missing, or the robot is controlled in a way that is not implemented.
    """

    def __init__(self, problem: Any) -> None:
        try:
            from srpo.envs import osc_kernel
        except ImportError as error:
            raise SrpoError(
                f'the compiled controller needs numba and mujoco ({error}): pip install "srpo[libero]"'
            ) from error
        self._kernel = osc_kernel
        self._problem = problem
        self.reset()

    def reset(self, as_stock: bool = False) -> None:
        """Begin an episode from the simulator's present state, which must be consistent (``sim.forward()``).

        The gripper's command begins at 0, the middle of its range.

        Args:
            as_stock: False: the goal is the present pose. True: begin as robosuite does after ``reset`` and
                ``set_init_state``. Its controller then still holds what it measured in the nominal pose when
                it was built: the first action starts from there (up to 2 cm away in LIBERO's published
                initial states), and the nominal orientation stays the goal until an action rotates.
        """
        self._bind()
        state, controller = self._state, self._controller
        state.home[:] = controller.initial_joint
        self._measured = as_stock and not controller.new_update
        if self._measured:
            state.ee_pos[:], state.ee_mat[:] = controller.ee_pos, controller.ee_ori_mat
            state.twist[:] = np.concatenate([controller.ee_pos_vel, controller.ee_ori_vel])
            state.q[:], state.qd[:] = controller.joint_pos, controller.joint_vel
            state.jac[:], state.mass[:] = controller.J_full, controller.mass_matrix
        if as_stock:
            state.goal_pos[:], state.goal_mat[:] = controller.goal_pos, controller.goal_ori
        else:
            state.goal_pos[:], state.goal_mat[:] = self._sim.site_pos, self._sim.site_mat.reshape(3, 3)

    def snapshot(self, into: Any = None) -> Snapshot:
        """The simulator's data, derived quantities included, and what the controller remembers, for `restore`.

        Args:
            into: an earlier snapshot whose memory is used again.
        """
        import mujoco

        data = into.data if into is not None else mujoco.MjData(self._model)
        self._kernel.copy_data(data, self._model, self._data)
        return Snapshot(data, self._measured, [values.copy() for values in self._state])

    def restore(self, snapshot: Snapshot) -> None:
        """Go on, to the last bit, as after the `snapshot`."""
        self._kernel.copy_data(self._data, self._model, snapshot.data)
        self._measured = snapshot.measured
        for values, saved in zip(self._state, snapshot.state, strict=True):
            values[...] = saved
        self._problem._post_process()

    def step(self, action: np.ndarray) -> None:
        """Carry out one control step (50 ms in LIBERO); the problem's ``sim.data`` is advanced in place.

        Args:
            action: (7,) floats: translation and rotation in world axes, as fractions of the controller's
                range and clipped to it; the sign of the last one closes (+) or opens (-) the gripper, 0
                holds it.

        Raises:
            SrpoError: the action has another shape or is not finite, or the simulator was rebuilt since the
                last :meth:`reset`.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self._action_dim,) or not np.isfinite(action).all():
            raise SrpoError(
                f"an action must be {self._action_dim} finite numbers, got shape {action.shape} with values"
                f" {action.tolist()}: check the policy's output for NaN and the gripper's dimension."
            )
        if self._problem.sim.data._data is not self._data:
            raise SrpoError("the problem has a new simulator since the last reset: call CompiledControl.reset().")

        self._advance(self._goal(action), self._grip_increments[int(np.sign(action[6]))])
        self._measured = False
        self._problem._post_process()  # visible states of objects (a burner lights up), as in LIBERO's step

    def _advance(self, goal: Any, grip_increment: np.ndarray) -> None:
        """Run all substeps under faster options; the last one leaves the matrices and sensors of stock."""
        options, last = self._model.opt, self._substeps - 1
        fixed = (self._sim, self._arm, self._state, goal, self._measured, grip_increment)
        jacobian, disabled, tolerance = options.jacobian, options.disableflags, options.tolerance
        try:
            options.tolerance = min(tolerance, _TOLERANCE)
            options.jacobian, options.disableflags = _SPARSE, disabled | self._sensors_off
            self._kernel.advance(*fixed, 0, last)
            options.jacobian, options.disableflags = jacobian, disabled
            self._kernel.advance(*fixed, last, last + 1)
        finally:
            options.jacobian, options.disableflags, options.tolerance = jacobian, disabled, tolerance

    def run(self, actions: np.ndarray, after_step: Callable[[], bool]) -> int:
        """Carry out a chunk of actions until ``after_step`` says that the episode is over.

        Args:
            actions: (K, 7) floats.
            after_step: called after each control step; True ends the chunk.

        Returns:
            Number of actions carried out.
        """
        for count, action in enumerate(actions, start=1):
            self.step(action)
            if after_step():
                return count
        return len(actions)

    def _goal(self, action: np.ndarray) -> Any:
        """Scale the arm's part of an action to metres and to a rotation matrix.

        The matrix is robosuite's own, which computes it in single precision.
        """
        from robosuite.utils import transform_utils

        delta = self._controller.scale_action(action[:6])
        rotates = bool(delta[3:].any())
        quaternion = transform_utils.axisangle2quat(delta[3:])
        rotation = np.ascontiguousarray(transform_utils.quat2mat(quaternion), dtype=np.float64)
        return self._kernel.Goal(translation=delta[:3], rotation=rotation, rotates=rotates)

    def _bind(self) -> None:
        """Read everything anew from the problem, whose ``reset`` may have rebuilt simulator and robot."""
        import mujoco

        problem, kernel = self._problem, self._kernel
        _require_supported(problem)
        (robot,) = problem.robots
        controller = robot.controller
        self._controller = controller
        self._action_dim = int(robot.action_dim)
        self._substeps = int(problem.control_timestep / problem.model_timestep)

        self._sensors_off = int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
        self._model, self._data = model, data = problem.sim.model._model, problem.sim.data._data
        model.vis.global_.bvactive = 0
        site = int(problem.sim.model.site_name2id(controller.eef_name))
        dof = np.array(controller.qvel_index, dtype=np.int64)
        grip_ctrl = np.array(robot._ref_joint_gripper_actuator_indexes, dtype=np.int64)
        grip_range = model.actuator_ctrlrange[grip_ctrl]
        low, high = robot.torque_limits
        self._grip_increments = _gripper_increments(robot.gripper)
        self._sim = kernel.Sim(
            model=model._address,
            data=data._address,
            qpos=data.qpos,
            qvel=data.qvel,
            ctrl=data.ctrl,
            qM=data.qM,
            qfrc_bias=data.qfrc_bias,
            cdof=data.cdof,
            tree_com=data.subtree_com[model.body_rootid[model.site_bodyid[site]]],
            site_pos=data.site_xpos[site],
            site_mat=data.site_xmat[site],
        )
        self._arm = kernel.Arm(
            qpos=np.array(controller.qpos_index, dtype=np.int64),
            dof=dof,
            ctrl=np.array(robot._ref_joint_actuator_indexes, dtype=np.int64),
            mass_address=_mass_addresses(model, dof),
            kp=np.array(controller.kp, dtype=np.float64),
            kd=np.array(controller.kd, dtype=np.float64),
            null_kp=_null_space_gain(),
            uncouple=bool(controller.uncoupling),
            torque_low=np.array(low, dtype=np.float64),
            torque_high=np.array(high, dtype=np.float64),
            grip_ctrl=grip_ctrl,
            grip_mid=grip_range.mean(axis=1),
            grip_half=0.5 * (grip_range[:, 1] - grip_range[:, 0]),
        )
        n = len(dof)
        self._state = kernel.State(
            ee_pos=np.zeros(3),
            ee_mat=np.zeros((3, 3)),
            twist=np.zeros(6),
            q=np.zeros(n),
            qd=np.zeros(n),
            jac=np.zeros((6, n)),
            mass=np.zeros((n, n)),
            home=np.zeros(n),
            goal_pos=np.zeros(3),
            goal_mat=np.zeros((3, 3)),
            torque=np.zeros(n),
            grip=np.zeros(len(grip_ctrl)),
        )


def _require_supported(problem: Any) -> None:
    """Refuse what the compiled control law does not implement."""
    controller = problem.robots[0].controller
    if len(problem.robots) != 1 or controller.name != "OSC_POSE":
        raise SrpoError('the compiled controller steps one arm under OSC_POSE: use control="stock" for others.')
    features = {
        "variable impedance": controller.impedance_mode != "fixed",
        "absolute goals": not controller.use_delta,
        "interpolated goals": controller.interpolator_pos is not None or controller.interpolator_ori is not None,
        "goal limits": controller.position_limits is not None or controller.orientation_limits is not None,
        "the Runge-Kutta integrator": problem.sim.model._model.opt.integrator == _RUNGE_KUTTA,
    }
    for feature, present in features.items():
        if present:
            raise SrpoError(f'the compiled controller does not implement {feature}: use control="stock".')


def _mass_addresses(model: Any, dof: np.ndarray) -> np.ndarray:
    """(n, n) int64: where MuJoCo's sparse ``qM`` keeps the inertia between each two degrees of freedom."""
    position = {int(d): i for i, d in enumerate(dof)}
    addresses = np.full((len(dof), len(dof)), -1, dtype=np.int64)
    for d, i in position.items():
        address, ancestor = int(model.dof_Madr[d]), d
        while ancestor >= 0:
            if ancestor in position:
                addresses[i, position[ancestor]] = addresses[position[ancestor], i] = address
            address, ancestor = address + 1, int(model.dof_parentid[ancestor])
    return addresses


def _null_space_gain() -> float:
    """Stiffness (1/s^2) of the null-space posture, the default argument of robosuite's function."""
    from robosuite.utils.control_utils import nullspace_torques

    return float(inspect.signature(nullspace_torques).parameters["joint_kp"].default)


def _gripper_increments(gripper: Any) -> dict[int, np.ndarray]:
    """What one substep adds to the gripper's command, (g,), for each sign of the gripper action."""
    fingers = len(gripper.actuators)
    increments = {}
    for sign in (-1, 0, 1):
        probe = copy.copy(gripper)
        probe.current_action = np.zeros(fingers)
        increments[sign] = np.array(probe.format_action(np.array([float(sign)])), dtype=np.float64)
        if increments[sign].shape != (fingers,):
            name = type(gripper).__name__
            raise SrpoError(f'the compiled controller does not know the gripper {name}: use control="stock".')
    return increments
