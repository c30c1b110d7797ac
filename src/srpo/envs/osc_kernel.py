"""The numerical part of the operational-space controller, compiled by numba: import it only where it is used.

One call of :func:`advance` runs the physics substeps of a control step: MuJoCo's ``mj_step1``, the control
law, ``mj_step2``, over and over, without entering the interpreter and without holding its lock.

Control law: O. Khatib, "A unified approach for motion and force control of robot manipulators: the
operational space formulation", IEEE J. Robotics and Automation 3(1), 1987, in the form of robosuite 1.4.0's
``OSC_POSE``. With M the joint-space inertia (n, n), J the Jacobian (6, n) of the grip site and
Lambda = (J M^-1 J^T)^-1:

    wrench = Lambda (kp * error - kd * twist)            Lambda for position and rotation apart if "uncoupled"
    torque = J^T wrench + bias + N^T M (k (home - q) - 2 sqrt(k) qdot)            N^T = 1 - J^T Lambda J M^-1

robosuite forms M^-1, Lambda and N as matrices, with pseudo-inverses that cut singular values below 1e-15 of
the largest. Here the same torques come from Cholesky factors: with M = L L^T and A = L^-1 J^T,
Lambda^-1 = A^T A, and N^T M v = M v - J^T Lambda J v.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import llvmlite.binding
import mujoco
import numpy as np
from numba import njit, types

from srpo.types import SrpoError

# Relative size below which a pivot counts as zero: the cut-off of numpy's pinv, which robosuite relies on.
_SMALLEST_PIVOT = 1e-15


class Sim(NamedTuple):
    """The simulation, as addresses and as views of its memory (float64)."""

    model: int  # address of the mjModel
    data: int  # address of the mjData
    qpos: np.ndarray  # (nq,) m, rad
    qvel: np.ndarray  # (nv,) m/s, rad/s
    ctrl: np.ndarray  # (nu,) N m for the arm, m for the fingers
    qM: np.ndarray  # (nM,) inertia, MuJoCo's sparse layout
    qfrc_bias: np.ndarray  # (nv,) gravity, Coriolis and centrifugal forces
    cdof: np.ndarray  # (nv, 6) motion axes, rotation first, about the tree's centre of mass
    tree_com: np.ndarray  # (3,) m, centre of mass of the robot's kinematic tree
    site_pos: np.ndarray  # (3,) m, the grip site
    site_mat: np.ndarray  # (9,) its orientation, row by row


class Arm(NamedTuple):
    """What stays the same during an episode: where the arm and the gripper are found, gains and limits."""

    qpos: np.ndarray  # (n,) int64 indices into qpos
    dof: np.ndarray  # (n,) int64 indices into qvel
    ctrl: np.ndarray  # (n,) int64 indices into ctrl
    mass_address: np.ndarray  # (n, n) int64 indices into qM, -1 where the inertia is zero
    kp: np.ndarray  # (6,) 1/s^2
    kd: np.ndarray  # (6,) 1/s
    null_kp: float  # 1/s^2
    uncouple: bool  # position and rotation each with their own Lambda
    torque_low: np.ndarray  # (n,) N m
    torque_high: np.ndarray  # (n,) N m
    grip_ctrl: np.ndarray  # (g,) int64 indices into ctrl
    grip_mid: np.ndarray  # (g,) m, middle of the actuators' range
    grip_half: np.ndarray  # (g,) m, half of the actuators' range


class State(NamedTuple):
    """What the controller remembers, changed in place (float64)."""

    ee_pos: np.ndarray  # (3,) m, grip site
    ee_mat: np.ndarray  # (3, 3)
    twist: np.ndarray  # (6,) m/s, rad/s
    q: np.ndarray  # (n,) rad
    qd: np.ndarray  # (n,) rad/s
    jac: np.ndarray  # (6, n), translation first
    mass: np.ndarray  # (n, n)
    home: np.ndarray  # (n,) rad, posture that the null space is drawn to
    goal_pos: np.ndarray  # (3,) m
    goal_mat: np.ndarray  # (3, 3)
    torque: np.ndarray  # (n,) N m
    grip: np.ndarray  # (g,) accumulated gripper command in [-1, 1]


class Goal(NamedTuple):
    """What an action asks for, in world axes (float64)."""

    translation: np.ndarray  # (3,) m
    rotation: np.ndarray  # (3, 3); unused unless ``rotates``
    rotates: bool


def _bind_mujoco() -> ctypes.CDLL:
    """Tell LLVM where ``mj_step1`` and ``mj_step2`` are: compiled code names them, and so can be cached."""
    folder = Path(mujoco.__file__).parent
    names = ("libmujoco.so", "libmujoco.3", "mujoco.dll")  # Linux, macOS, Windows
    path = next((p for p in folder.iterdir() if p.name.startswith(names)), None)
    if path is None:
        raise SrpoError(f'{folder} holds no MuJoCo library: reinstall with pip install "srpo[libero]".')
    library = ctypes.CDLL(str(path))
    for name in ("mj_step1", "mj_step2"):
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        llvmlite.binding.add_symbol(name, address)
    library.mj_copyData.argtypes = [ctypes.c_void_p] * 3
    library.mj_copyData.restype = ctypes.c_void_p
    return library


_library = _bind_mujoco()


def copy_data(target: mujoco.MjData, model: mujoco.MjModel, source: mujoco.MjData) -> None:
    """``mj_copyData``, which MuJoCo's Python package does not offer: everything, derived quantities included."""
    _library.mj_copyData(target._address, model._address, source._address)


_mj_step1 = types.ExternalFunction("mj_step1", types.void(types.intp, types.intp))
_mj_step2 = types.ExternalFunction("mj_step2", types.void(types.intp, types.intp))


@njit(cache=True)
def factorize(a):
    """Cholesky factor of a symmetric positive (semi-)definite matrix, in place of its lower triangle."""
    n = a.shape[0]
    largest = 0.0
    for i in range(n):
        largest = max(largest, a[i, i])
    for j in range(n):
        pivot = a[j, j]
        for k in range(j):
            pivot -= a[j, k] * a[j, k]
        if pivot <= _SMALLEST_PIVOT * largest:  # no inertia seen along this direction: no force along it
            for i in range(j, n):
                a[i, j] = 0.0
            continue
        root = np.sqrt(pivot)
        a[j, j] = root
        for i in range(j + 1, n):
            total = a[i, j]
            for k in range(j):
                total -= a[i, k] * a[j, k]
            a[i, j] = total / root


@njit(cache=True)
def solve_lower(factor, b):
    """b := L^-1 b."""
    for i in range(b.shape[0]):
        total = b[i]
        for k in range(i):
            total -= factor[i, k] * b[k]
        b[i] = total / factor[i, i] if factor[i, i] > 0.0 else 0.0


@njit(cache=True)
def solve(factor, b):
    """b := (L L^T)^-1 b."""
    solve_lower(factor, b)
    for i in range(b.shape[0] - 1, -1, -1):
        total = b[i]
        for k in range(i + 1, b.shape[0]):
            total -= factor[k, i] * b[k]
        b[i] = total / factor[i, i] if factor[i, i] > 0.0 else 0.0


@njit(cache=True)
def measure(sim, arm, state):
    """Read pose, twist, Jacobian and inertia of the arm after ``mj_step1``."""
    n = arm.dof.shape[0]
    for i in range(3):
        state.ee_pos[i] = sim.site_pos[i]
        for j in range(3):
            state.ee_mat[i, j] = sim.site_mat[3 * i + j]
    rx = sim.site_pos[0] - sim.tree_com[0]
    ry = sim.site_pos[1] - sim.tree_com[1]
    rz = sim.site_pos[2] - sim.tree_com[2]
    state.twist[:] = 0.0
    for j in range(n):
        state.q[j] = sim.qpos[arm.qpos[j]]
        state.qd[j] = sim.qvel[arm.dof[j]]
        axis = sim.cdof[arm.dof[j]]
        state.jac[0, j] = axis[3] + axis[1] * rz - axis[2] * ry
        state.jac[1, j] = axis[4] + axis[2] * rx - axis[0] * rz
        state.jac[2, j] = axis[5] + axis[0] * ry - axis[1] * rx
        for i in range(3):
            state.jac[3 + i, j] = axis[i]
        for i in range(6):
            state.twist[i] += state.jac[i, j] * state.qd[j]
        for i in range(n):
            address = arm.mass_address[i, j]
            state.mass[i, j] = sim.qM[address] if address >= 0 else 0.0


@njit(cache=True)
def set_goal(state, goal):
    """Goal pose = pose + delta; without rotation the last goal orientation stays, as in robosuite."""
    for i in range(3):
        state.goal_pos[i] = state.ee_pos[i] + goal.translation[i]
    if goal.rotates:
        for i in range(3):
            for j in range(3):
                total = 0.0
                for k in range(3):
                    total += goal.rotation[i, k] * state.ee_mat[k, j]
                state.goal_mat[i, j] = total


@njit(cache=True)
def desired_acceleration(arm, state, out):
    """out := kp * error - kd * twist, (6,); rotation error: half the sum of c_k x d_k over the columns."""
    c, d = state.ee_mat, state.goal_mat
    for i in range(3):
        out[i] = state.goal_pos[i] - state.ee_pos[i]
    out[3:] = 0.0
    for k in range(3):
        out[3] += 0.5 * (c[1, k] * d[2, k] - c[2, k] * d[1, k])
        out[4] += 0.5 * (c[2, k] * d[0, k] - c[0, k] * d[2, k])
        out[5] += 0.5 * (c[0, k] * d[1, k] - c[1, k] * d[0, k])
    for i in range(6):
        out[i] = arm.kp[i] * out[i] - arm.kd[i] * state.twist[i]


@njit(cache=True)
def control(sim, arm, state):
    """Compute the joint torques, (n,), clipped to the actuators' range, into ``state.torque``."""
    n = arm.dof.shape[0]
    factor = state.mass.copy()
    factorize(factor)
    a = state.jac.copy()  # row i becomes L^-1 J_i
    for i in range(6):
        solve_lower(factor, a[i])
    full = np.empty((6, 6))  # Lambda^-1
    for i in range(6):
        for j in range(i + 1):
            total = 0.0
            for k in range(n):
                total += a[i, k] * a[j, k]
            full[i, j] = total
            full[j, i] = total
    position = full[:3, :3].copy()
    rotation = full[3:, 3:].copy()
    factorize(full)

    wrench = np.empty(6)
    desired_acceleration(arm, state, wrench)
    if arm.uncouple:
        factorize(position)
        factorize(rotation)
        solve(position, wrench[:3])
        solve(rotation, wrench[3:])
    else:
        solve(full, wrench)

    null_kd = 2.0 * np.sqrt(arm.null_kp)
    posture = np.empty(n)
    drift = np.zeros(6)  # the site's acceleration that the posture would cause; then the wrench against it
    for j in range(n):
        posture[j] = arm.null_kp * (state.home[j] - state.q[j]) - null_kd * state.qd[j]
        for i in range(6):
            drift[i] += state.jac[i, j] * posture[j]
    solve(full, drift)
    for j in range(n):
        torque = sim.qfrc_bias[arm.dof[j]]
        for k in range(n):
            torque += state.mass[j, k] * posture[k]
        for i in range(6):
            torque += state.jac[i, j] * (wrench[i] - drift[i])
        state.torque[j] = min(max(torque, arm.torque_low[j]), arm.torque_high[j])


@njit(cache=True, nogil=True)
def advance(sim, arm, state, goal, measured, grip_increment, first, last):
    """Physics substeps ``first`` to ``last - 1`` of a control step; the goal is set in substep 0.

    Args:
        sim, arm, state, goal: see the classes above.
        measured: ``state`` already holds the pose, twist, Jacobian and inertia of substep 0.
        grip_increment: (g,) float64, added to the gripper's command every substep.
        first: first substep.
        last: the one after the last substep.
    """
    for substep in range(first, last):
        _mj_step1(sim.model, sim.data)
        if substep > 0 or not measured:
            measure(sim, arm, state)
        if substep == 0:
            set_goal(state, goal)
        control(sim, arm, state)
        for j in range(arm.ctrl.shape[0]):
            sim.ctrl[arm.ctrl[j]] = state.torque[j]
        for j in range(arm.grip_ctrl.shape[0]):
            state.grip[j] = min(max(state.grip[j] + grip_increment[j], -1.0), 1.0)
            sim.ctrl[arm.grip_ctrl[j]] = arm.grip_mid[j] + arm.grip_half[j] * state.grip[j]
        _mj_step2(sim.model, sim.data)
