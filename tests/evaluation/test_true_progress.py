"""True progress: the stages by hand, and whole episodes on the simulator."""

from __future__ import annotations

import importlib.util
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

os.environ.setdefault("MUJOCO_GL", "egl")

from srpo.evaluation.true_progress import DONE, Stages, TrueProgress, combined, stages
from srpo.policies.compact import CompactConfig
from srpo.rollout.runner import PolicyRunner, RolloutConfig
from srpo.types import EpisodeRequest, InitialState, SrpoError

needs_libero = pytest.mark.skipif(importlib.util.find_spec("libero") is None, reason="needs LIBERO")

START = {"reach": 0.3, "reach_start": 0.3, "held": False, "height": 0.0, "carry": 0.4, "carry_start": 0.4, "gap": 0.0}


def at(**now: Any) -> Stages:
    return stages(**(START | now))


class TestStages:
    def test_by_hand(self) -> None:
        assert at().progress == 0.0
        assert at(reach=0.1).progress == pytest.approx(2 / 3 / 5)
        assert at(reach=0.5).progress == 0.0  # further away than at the beginning
        held = {"reach": 0.01, "held": True}
        assert at(**held).progress == pytest.approx(0.4)
        assert at(**held, height=0.015).progress == pytest.approx(0.5)
        assert at(**held, height=0.1).progress == pytest.approx(0.6)
        assert at(**held, height=0.1, carry=0.1).progress == pytest.approx(0.75)
        assert at(**held, carry=0.0, gap=0.1).progress == pytest.approx(0.8)
        assert at(**held, carry=0.0, gap=0.06).progress == pytest.approx(0.85)
        assert at(carry=0.0, gap=0.01).progress == pytest.approx(0.9)
        assert DONE.progress == pytest.approx(1.0)

    def test_dropped_half_way_it_must_be_grasped_again(self) -> None:
        assert at(reach=0.15, carry=0.2).progress == pytest.approx(0.2)  # half of reach, half of carry
        assert at(reach=0.3, carry=0.2, height=0.1).progress == pytest.approx(0.1)  # flying does not count

    def test_pushed_away_it_is_not_below_zero(self) -> None:
        assert at(carry=0.6).progress == 0.0

    def test_an_object_over_its_target_from_the_start_has_no_carry_stage_to_win(self) -> None:
        above = {"carry": 0.0, "carry_start": 0.0}
        assert at(**above).progress == 0.0
        assert at(**above, reach=0.0, held=True, height=0.05).progress == pytest.approx(0.6)

    @given(st.tuples(*[st.floats(0, 1)] * 4), st.floats(-1, 1), st.floats(-1, 1), st.booleans())
    def test_limits(self, lengths: tuple[float, float, float, float], height: float, gap: float, held: bool) -> None:
        reach, reach_start, carry, carry_start = lengths
        now = stages(reach, reach_start, held, height, carry, carry_start, gap)
        assert 0.0 <= now.progress < 1.0
        assert 0.0 <= combined([now, DONE, now]) <= 1.0


class TestSeveralGoals:
    def test_mean_of_the_goals(self) -> None:
        assert combined([DONE, DONE]) == 1.0
        assert combined([DONE, at()]) == pytest.approx(0.5)

    def test_the_hand_approaches_one_object_at_a_time(self) -> None:
        near, nearer, held = at(reach=0.15), at(reach=0.06), at(reach=0.0, held=True)
        assert combined([near, nearer]) == pytest.approx(0.8 / 5 / 2)
        assert combined([near, held]) == pytest.approx(0.4 / 2)
        assert combined([DONE, near]) == pytest.approx((1 + 0.5 / 5) / 2)


class _Envs:
    """Tasks without cameras, built once."""

    def __init__(self) -> None:
        self._built: dict[tuple[str, int], Any] = {}

    def get(self, suite: str, index: int) -> Any:
        from srpo.envs.libero import LiberoEnv, tasks

        if (suite, index) not in self._built:
            self._built[suite, index] = LiberoEnv(tasks(suite)[index], cameras=(), quality="fast")
        return self._built[suite, index]


ENVS = _Envs()


def expert_episode(env: Any, state: int = 3) -> np.ndarray:
    """True progress before and after every control step."""
    from srpo.envs.experts import expert_for

    env.reset(InitialState("published", state))
    expert, progress = expert_for(env), TrueProgress(env)
    expert.reset()
    curve = [progress()]
    for _ in range(env.task.max_steps):
        env.step(expert.act())
        curve.append(progress())
        if env.success:
            break
    assert env.success
    return np.array(curve)


@needs_libero
@pytest.mark.parametrize(("suite", "task"), [("libero_object", 3), ("libero_spatial", 0), ("libero_goal", 6)])
def test_an_experts_progress_rises_from_zero_to_one(suite: str, task: int) -> None:
    curve = expert_episode(ENVS.get(suite, task))
    assert curve[0] == 0.0 and curve[-1] == 1.0 and (curve[:-1] < 1.0).all()
    assert (np.maximum.accumulate(curve) - curve).max() < 0.01
    at_decisions = curve[::8]
    assert (np.diff(at_decisions) > -0.005).all()
    assert {0.2, 0.4, 0.6} <= set(np.floor(5 * curve + 1e-6) / 5)  # stage after stage


@needs_libero
@pytest.mark.slow
def test_two_objects(suite: str = "libero_10", task: int = 0) -> None:
    curve = expert_episode(ENVS.get(suite, task))
    assert curve[0] == 0.0 and curve[-1] == 1.0
    assert (np.maximum.accumulate(curve) - curve).max() < 0.02
    assert (np.abs(curve - 0.5) < 0.01).sum() > 5  # one is in the basket, the other not begun


@needs_libero
def test_an_idle_robot_makes_none() -> None:
    env = ENVS.get("libero_object", 3)
    env.reset(InitialState("published", 1))
    progress = TrueProgress(env)
    for _ in range(20):
        env.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))
        assert progress() < 0.02


@needs_libero
def test_reading_changes_nothing() -> None:
    import mujoco

    env = ENVS.get("libero_object", 3)
    size = mujoco.mj_stateSize(env.model, mujoco.mjtState.mjSTATE_INTEGRATION)
    ends = []
    for reading in (False, True):
        env.reset(InitialState("published", 2))
        progress = TrueProgress(env)
        for step in range(12):
            env.step(np.array([0.3, 0.1, -1.0, 0, 0, 0.2, 1.0 if step > 6 else -1.0]))
            if reading:
                assert progress() == progress()
        state = np.zeros(size)
        mujoco.mj_getState(env.model, env.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        ends.append(state)
    np.testing.assert_array_equal(*ends)


@needs_libero
def test_a_rollout_notes_it_at_every_decision(one_thread: None, tiny_config: CompactConfig) -> None:
    config = RolloutConfig(world_model=None, max_steps=5, true_progress=True)
    runner = PolicyRunner(config, "srpo.policies.compact:CompactPolicy", tiny_config)
    request = EpisodeRequest(ENVS.get("libero_object", 3).task, InitialState("published", 1), group=0, seed=0)
    episode = runner.run(request)
    runner.close()
    noted = episode.info["true_progress"]
    assert noted.shape == (len(episode.tokens) + 1,) == (4,) and noted.dtype == np.float32
    assert noted[0] == 0.0 and (noted < 0.2).all()


def test_environments_that_hide_their_simulator_are_refused() -> None:
    with pytest.raises(SrpoError, match="true-progress False"):
        TrueProgress(SimpleNamespace())
