"""Demonstrations by an expert, with a fake environment: noise, failures, and what is missing after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srpo.collect import Attempt, CollectConfig, ExpertRunner, collect
from srpo.data.demonstrations import DemonstrationSet
from srpo.sampler import demonstration_state
from srpo.types import InitialState, Observation, SrpoError, Task

TASK = Task("fake", 0, "walk", "walk to the wall", max_steps=6)


class FakeEnv:
    """A walk along one axis: solved at x >= 3. From initial states with an odd index it cannot be solved."""

    def __init__(self, task: Task, cameras: tuple[str, ...], image_size: int, quality: str) -> None:
        self.task, self.cameras, self.size = task, cameras, image_size
        self.executed: list[np.ndarray] = []

    def reset(self, initial_state: InitialState) -> Observation:
        self.x, self.stuck = 0.0, initial_state.index % 2 == 1
        self.executed.clear()
        return self.observe()

    def step(self, action: np.ndarray) -> bool:
        assert (np.abs(action) <= 1).all()
        self.executed.append(action)
        self.x += 0.0 if self.stuck else 1.0
        return self.x >= 3

    def observe(self) -> Observation:
        images = {c: np.full((self.size, self.size, 3), int(self.x), np.uint8) for c in self.cameras}
        return Observation(images, np.full(8, self.x, np.float32), self.task.instruction)

    def close(self) -> None:
        pass


class FakeExpert:
    def reset(self) -> None:
        self.calls = 0

    def act(self) -> np.ndarray:
        self.calls += 1
        return np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]) * self.calls  # 9: has to be clipped


def expert_for(env: FakeEnv) -> FakeExpert:
    return FakeExpert()


CONFIG = CollectConfig(
    demos=(2,), cameras=("agentview",), image_size=16, env=f"{__name__}:FakeEnv", expert=f"{__name__}:expert_for"
)


def attempt(index: int = 0) -> Attempt:
    return Attempt(TASK, index, InitialState("sampled", index))


def test_records_what_was_seen_before_each_action() -> None:
    demo = ExpertRunner(CONFIG).run(attempt())
    assert demo is not None and demo.initial_state == InitialState("sampled", 0)
    np.testing.assert_array_equal(demo.states[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(demo.images["agentview"][:, 0, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(demo.actions[:, 0], [0.5, 1, 1])
    np.testing.assert_array_equal(demo.actions[:, 6], [1, 1, 1])
    assert demo.actions.dtype == demo.states.dtype == np.float32


def test_an_expert_that_does_not_arrive_gives_nothing() -> None:
    assert ExpertRunner(CONFIG).run(attempt(1)) is None


def test_noise_is_executed_but_not_recorded() -> None:
    runner = ExpertRunner(replace(CONFIG, noise=0.1))
    env = runner.envs.get(TASK)
    demo = runner.run(attempt())
    assert demo is not None
    executed = np.array(env.executed)
    assert (executed[:, :3] != demo.actions[:, :3]).any()
    np.testing.assert_array_equal(executed[:, 3:], demo.actions[:, 3:])
    np.testing.assert_array_equal(demo.actions[:, 1], 0)
    again = executed.copy()
    runner.run(attempt())
    np.testing.assert_array_equal(np.array(env.executed), again)  # the same attempt, the same noise
    runner.run(Attempt(TASK, 2, InitialState("sampled", 0)))
    assert (np.array(env.executed) != again).any()


def test_collects_until_there_are_enough_and_continues(tmp_path: Path) -> None:
    folder, outcomes = DemonstrationSet(tmp_path), []
    done = collect(folder, [TASK], CONFIG, workers=1, on_attempt=outcomes.append)
    # States 0 and 1 first (one fails), then one more: number 2, which succeeds.
    assert done == {"fake/0": (2, 3)} and sorted(outcomes) == [False, True, True]
    assert folder.attempts(TASK) == {0: True, 1: False, 2: True}
    assert [d.initial_state for d in folder] == [demonstration_state(0), demonstration_state(2)]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert collect(folder, [TASK], replace(CONFIG, demos=(1,)), workers=1) == done  # nothing is missing
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_a_number_for_each_task(tmp_path: Path) -> None:
    tasks = [replace(TASK, index=i) for i in range(3)]
    config = replace(CONFIG, demos=(1, 3))
    done = collect(DemonstrationSet(tmp_path), tasks[:2], config, workers=1)
    assert {task: successes for task, (successes, _) in done.items()} == {"fake/0": 1, "fake/1": 3}
    with pytest.raises(SrpoError, match="--demos has 2 numbers, none for fake/2"):
        collect(DemonstrationSet(tmp_path), tasks, config, workers=1)


def test_a_hopeless_task_is_given_up(tmp_path: Path) -> None:
    folder = DemonstrationSet(tmp_path)
    folder.create(CONFIG.cameras, CONFIG.image_size, CONFIG.seed)
    for number in range(17):  # more than 3 * 2 + 10
        folder.add(number, TASK, None)
    with pytest.raises(SrpoError, match="only 0 of 17 attempts"):
        collect(folder, [TASK], CONFIG, workers=1)
