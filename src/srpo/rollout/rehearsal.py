"""Own successes carried out again, with disturbances, for a new policy to imitate.

A policy that imitates its successes has seen little beside their paths: where the hand is tells it where the hand went,
and it need not look at what it reaches for. So a success is taken as the supervisor of DART (arXiv 1703.09327,
section 4): the episode is repeated from its initial state, the hand is pushed aside now and then, and led back to the
path of the success; what is imitated is what leads it back, and all the rest, at many more moments than those at which
the policy decided. No other knowledge of the task is used, and only repetitions that succeed again are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from srpo.policies.base import Inputs
from srpo.types import InitialState, SrpoError, Task

_NEAR = 0.012  # m; further away from its path than this, the hand is led back before the episode goes on
_GAIN = 0.5  # share of the distance to the path that a step's action takes back, where the hand is near
_LONGER = 60  # control steps that a repetition may take more than the success did
_QUIET = (2, 16)  # control steps before and after the gripper first closes in which nobody pushes


@dataclass(frozen=True)
class RehearsalConfig:
    """Repetitions of own successes.

    Attributes:
        successes: newest successes per task that are repeated before a new policy is cloned, each at another initial
            state (0: none).
        times: repetitions of each.
        push: standard deviation of how far the hand is pushed along x, y and z, in metres.
        stride: control steps between two moments that are imitated.
    """

    successes: int = 0
    times: int = 2
    push: tuple[float, float, float] = (0.025, 0.025, 0.015)
    stride: int = 4

    def __post_init__(self) -> None:
        if self.successes < 0 or min(self.times, self.stride) < 1 or len(self.push) != 3 or min(self.push) < 0:
            raise SrpoError(
                "Rehearsals need --distil.rehearsal.successes 0 or more, .times and .stride 1 or more, and .push three "
                "lengths in metres."
            )


@dataclass(frozen=True)
class RehearsalRequest:
    """An order for the repetitions of one success; it determines them completely.

    Attributes:
        task: what it succeeded at.
        initial_state: how it began.
        actions: (T, 7) float, what was carried out.
        seed: of the disturbances.
        config: see `RehearsalConfig`.
    """

    task: Task
    initial_state: InitialState
    actions: np.ndarray
    seed: int
    config: RehearsalConfig = field(default_factory=RehearsalConfig)


@dataclass
class Rehearsed:
    """What came of a request.

    Attributes:
        kept: for every repetition that succeeded, the policy's inputs at N moments (N, ...), ``tokens`` (N, L) of what
            was carried out from there, and ``mask`` (N, L) bool, True up to the next disturbance or the end.
        attempts: repetitions.
        env_steps: control steps of all of them, and of the undisturbed one by which the path was measured.
    """

    kept: list[dict[str, np.ndarray]]
    attempts: int
    env_steps: int


class Push(NamedTuple):
    """One disturbance: from one step of the success, for some control steps, an offset (3,) of the translation."""

    at: int
    steps: int
    offset: np.ndarray


def pushes(actions: np.ndarray, push: tuple[float, float, float], unit: float, rng: np.random.Generator) -> list[Push]:
    """When and where the hand is pushed, in order: for 5 to 10 control steps, with 14 to 25 in between, but not while
    the gripper closes for the first time, nor in the last 20.

    Args:
        actions: (T, 7) of the success; the last dimension is positive where the gripper closes.
        push: see `RehearsalConfig`.
        unit: metres that an action of 1 asks the hand to move.
        rng: source of the randomness.
    """
    gripper = actions[:, -1] > 0
    closing = np.flatnonzero(gripper[1:] & ~gripper[:-1]) + 1
    close = int(closing[0]) if len(closing) else None
    out: list[Push] = []
    at = int(rng.integers(0, 8))
    while any(push) and at < len(actions) - 20:
        steps = int(rng.integers(5, 11))
        far = rng.standard_normal(3) * push
        if close is not None and at < close + _QUIET[1] and at + steps > close - _QUIET[0]:
            at = close + _QUIET[1] + int(rng.integers(0, 6))
            continue
        out.append(Push(at, steps, 1.6 * far / unit / steps))  # the hand falls short of what an action asks
        at += steps + int(rng.integers(14, 26))
    return out


def rehearse(env: Any, policy: Any, request: RehearsalRequest) -> Rehearsed:
    """Repeat a success.

    Args:
        env: has ``proprioception()`` and ``translation_unit`` besides what `srpo.envs.base.Env` says.
        policy: has ``prepare``, ``tokens``, ``chunk``, ``action_dim`` and ``config.action_scale``.
        request: what and how.

    Raises:
        SrpoError: the environment does not tell where the hand is.
    """
    if not hasattr(env, "proprioception") or not hasattr(env, "translation_unit"):
        raise SrpoError(
            "Rehearsals need an environment with proprioception() and translation_unit: set "
            "--distil.rehearsal.successes 0."
        )
    env.reset(request.initial_state)
    path, success = [env.proprioception()[:3]], False
    for action in request.actions:
        success = env.step(action)
        path.append(env.proprioception()[:3])
    result = Rehearsed([], 0, len(request.actions))
    if not success:  # made by another version of the simulator
        return result
    for number in range(request.config.times):
        episode = _Repetition(env, policy, request, np.array(path), np.random.default_rng([request.seed, number]))
        result.attempts += 1
        if episode.succeeds():
            result.kept.append(episode.decisions())
        result.env_steps += len(episode.actions)
    return result


class _Repetition:
    """One repetition while it is carried out."""

    def __init__(
        self, env: Any, policy: Any, request: RehearsalRequest, path: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.env, self.policy, self.request, self.path = env, policy, request, path
        self.pushes = pushes(request.actions, request.config.push, env.translation_unit, rng)
        self.phase = int(rng.integers(request.config.stride))
        self.seen: list[tuple[int, Inputs]] = []
        self.actions: list[np.ndarray] = []
        self.pushed: list[bool] = []

    def succeeds(self) -> bool:
        """Carry it out."""
        env, recorded, stride = self.env, self.request.actions, self.request.config.stride
        scale = self.policy.config.action_scale
        low, high = np.array(scale.low[:6]), np.array(scale.high[:6])
        env.reset(self.request.initial_state)
        waiting, left, offset = iter(self.pushes), 0, np.zeros(3)
        coming = next(waiting, None)
        at = 0  # the step of the success that is being followed
        for step in range(len(recorded) + _LONGER):
            if not left and coming is not None and at >= coming.at:
                left, offset, coming = coming.steps, coming.offset, next(waiting, None)
            if not left and step % stride == self.phase:
                self.seen.append((step, self.policy.prepare(env.observe())))
            action = np.array(recorded[at], np.float64)
            away = self.path[at] - env.proprioception()[:3]
            led_back = not left and float(np.linalg.norm(away)) > _NEAR
            if left:
                action[:3] += offset
            elif led_back:
                action[:3], action[3:6] = away / env.translation_unit, 0.0
            else:
                action[:3] += _GAIN * away / env.translation_unit
            action[:6] = np.clip(action[:6], low, high)
            self.actions.append(action)
            self.pushed.append(left > 0)
            left = max(0, left - 1)
            if env.step(action):
                return True
            at = at if led_back else min(at + 1, len(recorded) - 1)
        return False

    def decisions(self) -> dict[str, np.ndarray]:
        """What is to be imitated, see `Rehearsed`."""
        actions, pushed = np.array(self.actions, np.float32), np.array(self.pushed)
        last = len(actions) - 1
        rows = list(self._rows(actions, pushed, last))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _rows(self, actions: np.ndarray, pushed: np.ndarray, last: int) -> Iterator[dict[str, np.ndarray]]:
        for step, inputs in self.seen:
            future = np.arange(step, step + self.policy.chunk)
            own = (future <= last) & ~np.logical_or.accumulate(pushed[np.minimum(future, last)])
            tokens = self.policy.tokens(actions[np.minimum(future, last)])
            yield {**inputs, "tokens": tokens, "mask": np.repeat(own, self.policy.action_dim)}
