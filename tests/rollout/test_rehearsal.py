"""Own successes carried out again: when the hand is pushed, how it is led back, and what is imitated."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpo.policies.action_tokens import ActionScale
from srpo.rollout.rehearsal import RehearsalConfig, RehearsalRequest, Rehearsed, pushes, rehearse
from srpo.types import InitialState, Observation, SrpoError, Task

TASK = Task("fake", 0, "go", "go to the right", max_steps=200)
CALM = RehearsalConfig(successes=1, push=(0.0, 0.0, 0.0))


class Hand:
    """A hand that does what it is asked, at once: solved at ``goal``, to the millimetre, with the gripper closed."""

    translation_unit = 0.05

    def __init__(self, goal: float = 0.4) -> None:
        self.goal, self.looks = np.array([goal, 0.0, 0.0]), 0
        self.trace: list[np.ndarray] = []

    def reset(self, initial_state: InitialState) -> Observation:
        self.at = np.zeros(3)
        self.trace = [self.at]
        return self.observe()

    def step(self, action: np.ndarray) -> bool:
        self.at = self.at + 0.05 * action[:3]
        self.trace.append(self.at)
        return bool(np.linalg.norm(self.at - self.goal) < 2e-3 and action[6] > 0)

    def proprioception(self) -> np.ndarray:
        return np.concatenate([self.at, np.zeros(5)]).astype(np.float32)

    def observe(self) -> Observation:
        self.looks += 1
        return Observation({}, self.proprioception(), TASK.instruction)


class Copyist:
    """A policy of chunks of four whose tokens are the actions themselves."""

    chunk, action_dim = 4, 7
    config = SimpleNamespace(action_scale=ActionScale((-0.5,) * 6 + (-1.0,), (0.5,) * 6 + (1.0,)))

    def prepare(self, observation: Observation) -> dict[str, np.ndarray]:
        return {"state": observation.state}

    def tokens(self, actions: np.ndarray) -> np.ndarray:
        return actions.reshape(-1)


def actions(steps: int = 80, close: int = 40) -> np.ndarray:
    """Straight to the goal of `Hand`, closing the gripper on the way."""
    out = np.zeros((steps, 7))
    out[:, 0] = 0.4 / 0.05 / steps
    out[:, 6] = np.where(np.arange(steps) < close, -1.0, 1.0)
    return out


def request(config: RehearsalConfig, seed: int = 0, recorded: np.ndarray | None = None) -> RehearsalRequest:
    return RehearsalRequest(TASK, InitialState("sampled", 1), actions() if recorded is None else recorded, seed, config)


def run(config: RehearsalConfig, seed: int = 0, hand: Any = None) -> Rehearsed:
    return rehearse(hand or Hand(), Copyist(), request(config, seed))


def test_without_pushes_the_success_is_repeated_to_the_letter() -> None:
    result = run(replace(CALM, times=1, stride=1))
    assert (result.attempts, result.env_steps) == (1, 160)  # once to measure the path
    (one,) = result.kept
    assert one["tokens"].shape == one["mask"].shape == (80, 28) and one["state"].shape == (80, 8)
    np.testing.assert_allclose(one["state"][:, 0], 0.4 * np.arange(80) / 80, atol=1e-6)
    np.testing.assert_allclose(one["tokens"].reshape(80, 4, 7)[:, 0], actions(), atol=1e-5)
    # The last moments have no four actions left.
    assert one["mask"].reshape(80, 4, 7)[..., 0].sum(1).tolist() == [4] * 77 + [3, 2, 1]


def test_a_pushed_hand_is_led_back_and_only_that_is_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    from srpo.rollout import rehearsal

    push = rehearsal.Push(10, 5, np.array([0.0, 0.4, 0.0]))  # 2 cm a step
    monkeypatch.setattr(rehearsal, "pushes", lambda *_: [push])
    hand = Hand()
    (one,) = run(replace(CALM, times=1, stride=1), hand=hand).kept
    side = np.array(hand.trace)[:, 1]
    np.testing.assert_allclose(side[10:16], 0.02 * np.arange(6), atol=1e-6)
    # Back by 2.5 cm a step, the most that the policy can do, without going on; the rest is halved while going on.
    np.testing.assert_allclose(side[16:22], [0.075, 0.05, 0.025, 0.0, 0.0, 0.0], atol=1e-6)
    assert hand.trace[19][0] == pytest.approx(hand.trace[15][0])
    moments = one["state"][:, 1]  # nobody looks at the five steps in which it is pushed
    assert len(moments) == len(hand.trace) - 1 - 5
    # Before the push, the chunk is imitated up to it; afterwards as a whole.
    imitated = one["mask"].reshape(-1, 4, 7)[..., 0].sum(1).tolist()
    assert imitated[:12] == [4] * 7 + [3, 2, 1] + [4, 4]
    np.testing.assert_allclose(one["tokens"].reshape(-1, 4, 7)[10, :, 1], [-0.5, -0.5, -0.5, -0.5], atol=1e-5)


def test_pushed_repetitions_differ_and_succeed_and_the_seed_decides() -> None:
    config = RehearsalConfig(successes=1, times=3)
    first, again, other = run(config), run(config), run(config, seed=1)
    assert len(first.kept) == first.attempts == 3
    for a, b in zip(first.kept, again.kept, strict=True):
        assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not np.array_equal(first.kept[0]["state"][:20], first.kept[1]["state"][:20])
    assert not np.array_equal(first.kept[0]["state"][:20], other.kept[0]["state"][:20])
    assert max(np.abs(one["state"][:, 1:3]).max() for one in first.kept) > 0.005


def test_what_fails_is_not_kept() -> None:
    class Slippery(Hand):
        """Once pushed, it never closes in time."""

        def step(self, action: np.ndarray) -> bool:
            done = super().step(action)
            return done and bool(np.abs(np.array(self.trace)[:, 1]).max() < 1e-6)

    result = run(RehearsalConfig(successes=1, times=2), hand=Slippery())
    assert (result.attempts, result.kept) == (2, []) and result.env_steps == 80 + 2 * (80 + 60)
    # A success that does not come about again is not rehearsed.
    assert run(CALM, hand=Hand(goal=0.5)) == Rehearsed([], 0, 80)


@given(st.integers(21, 200), st.integers(0, 200), st.integers(0, 2**31))
def test_nobody_pushes_while_the_gripper_closes_or_at_the_end(steps: int, close: int, seed: int) -> None:
    recorded = actions(steps, close)
    found = pushes(recorded, (0.025, 0.025, 0.015), 0.05, np.random.default_rng(seed))
    for one, following in zip(found, [*found[1:], None][: len(found)], strict=True):
        assert 5 <= one.steps <= 10 and 0 <= one.at < steps - 20
        assert following is None or following.at >= one.at + one.steps + 14
        if 0 < close < steps:
            assert one.at + one.steps <= close - 2 or one.at >= close + 16


def test_how_far_the_hand_is_pushed() -> None:
    far = [
        p.offset * p.steps * 0.05 / 1.6
        for seed in range(300)
        for p in pushes(actions(), (0.025, 0.0, 0.01), 0.05, np.random.default_rng(seed))
    ]
    np.testing.assert_allclose(np.std(far, axis=0), [0.025, 0.0, 0.01], rtol=0.15)


def test_impossible_settings_and_environments_are_refused() -> None:
    for wrong in ({"successes": -1}, {"times": 0}, {"stride": 0}, {"push": (0.1, 0.1)}, {"push": (0.1, 0.1, -0.1)}):
        with pytest.raises(SrpoError, match="Rehearsals need"):
            RehearsalConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SrpoError, match=r"set --distil\.rehearsal\.successes 0"):
        rehearse(SimpleNamespace(), Copyist(), request(CALM))
