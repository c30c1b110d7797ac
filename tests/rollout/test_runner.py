"""Episodes: a function of request and weights alone, recorded at every decision and at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from srpo.policies.base import token_log_probs
from srpo.policies.compact import CompactConfig, CompactPolicy
from srpo.rollout.collector import Collector, summary
from srpo.rollout.runner import EnvironmentCache, PolicyRunner, RolloutConfig
from srpo.types import Episode, EpisodeRequest, InitialState, Observation, SrpoError, Task

TASK = Task("fake", 0, "go", "go to the right", max_steps=7)


class FakeEnv:
    """A point on a line: it starts at initial_state.index, moves by the first action, and is done beyond task.index."""

    def __init__(self, task: Task, cameras: tuple[str, ...], image_size: int, quality: str) -> None:
        assert quality in ("auto", "fast")
        self.task, self.cameras, self.size = task, cameras, image_size
        self.closed = False

    def reset(self, initial_state: InitialState) -> Observation:
        self.x, self.steps = float(initial_state.index), 0
        return self.observe()

    def step(self, action: np.ndarray) -> bool:
        assert action.shape == (7,)
        self.x += 0.1 + 0.01 * float(action[0])
        self.steps += 1
        return bool(self.task.index and self.steps >= self.task.index)  # solved after so many steps

    def observe(self) -> Observation:
        image = np.full((self.size, self.size, 3), int(100 + 20 * self.x) % 256, np.uint8)
        image[: self.steps + 1] = 255
        state = np.full(8, self.x, np.float32)
        return Observation({c: image.copy() for c in self.cameras}, state, self.task.instruction)

    def close(self) -> None:
        self.closed = True


CONFIG = RolloutConfig(env=f"{__name__}:FakeEnv", world_model="pixels")


def request(seed: int = 0, solved_after: int = 0, **more: object) -> EpisodeRequest:
    task = replace(TASK, index=solved_after)
    return replace(EpisodeRequest(task, InitialState("sampled", 1), group=0, seed=seed), **more)  # type: ignore[arg-type]


@pytest.fixture
def runner(one_thread: None, tiny_config: CompactConfig, tiny_policy: Callable[[int], CompactPolicy]) -> PolicyRunner:
    runner = PolicyRunner(CONFIG, "srpo.policies.compact:CompactPolicy", tiny_config)
    runner.update({k: v.numpy() for k, v in tiny_policy(0).state_dict().items()})
    return runner


def same(a: Episode, b: Episode) -> bool:
    arrays = [(a.tokens, b.tokens), (a.log_probs, b.log_probs), (a.executed, b.executed)]
    arrays += [(a.frame_features, b.frame_features)] + [(v, b.inputs[k]) for k, v in a.inputs.items()]
    plain = (a.request, a.success, a.n_steps) == (b.request, b.success, b.n_steps)
    return plain and all(x.shape == y.shape and x.dtype == y.dtype and (x == y).all() for x, y in arrays)


def test_same_request_same_episode(runner: PolicyRunner) -> None:
    first = runner.run(request(seed=3))
    other = runner.run(request(seed=4))
    assert same(first, runner.run(request(seed=3)))
    assert (first.tokens != other.tokens).any()


def test_shapes_of_an_episode_that_runs_to_the_limit(runner: PolicyRunner) -> None:
    # 7 steps in chunks of 2: 4 decisions, the last with one action; 5 frames.
    e = runner.run(request())
    assert not e.success and e.n_steps == 7
    np.testing.assert_array_equal(e.executed, [2, 2, 2, 1])
    assert e.executed.dtype == np.int16
    assert e.tokens.shape == e.log_probs.shape == (4, 14)
    assert (e.tokens.dtype, e.log_probs.dtype) == (np.int16, np.float32)
    assert e.inputs["agentview_s8"].shape == (4, 40, 4, 4) and e.inputs["words"].shape == (4, 8)
    assert e.frame_features is not None and e.frame_features.shape == (5, 24 * 24 * 3)
    assert e.frames == {} and e.seconds > 0


@pytest.mark.parametrize(("solved_after", "executed"), [(3, [2, 1]), (4, [2, 2]), (1, [1]), (7, [2, 2, 2, 1])])
def test_success_ends_the_episode_within_a_chunk(runner: PolicyRunner, solved_after: int, executed: list[int]) -> None:
    e = runner.run(request(solved_after=solved_after))
    assert e.success is True and e.n_steps == solved_after
    np.testing.assert_array_equal(e.executed, executed)
    assert e.frame_features is not None and len(e.frame_features) == len(executed) + 1


def test_step_limit_of_the_configuration_wins(runner: PolicyRunner) -> None:
    runner.config = replace(CONFIG, max_steps=3)
    e = runner.run(request(solved_after=5))
    assert not e.success and e.n_steps == 3 and e.executed.tolist() == [2, 1]


def test_frames_are_kept_on_request(runner: PolicyRunner) -> None:
    e = runner.run(request(keep_frames=True))
    assert set(e.frames) == {"agentview"}
    frames = e.frames["agentview"]
    assert frames.shape == (5, 32, 32, 3) and frames.dtype == np.uint8
    # The environment paints one white row more per step taken: the decision points and the end.
    assert [(f[:, 0, 0] == 255).sum() for f in frames] == [1, 3, 5, 7, 8]


@pytest.mark.parametrize("gripper", [None, 0.7])
def test_log_probs_are_those_the_learner_will_compute(runner: PolicyRunner, gripper: float | None) -> None:
    e = runner.run(request(temperature=1.6, gripper_temperature=gripper))
    inputs = {k: torch.from_numpy(v) for k, v in e.inputs.items()}
    temperatures = torch.full((e.tokens.shape[1],), 1.6)
    if gripper is not None:
        temperatures[runner.policy.action_dim - 1 :: runner.policy.action_dim] = gripper
    with torch.no_grad():
        log_prob, _ = token_log_probs(runner.policy.logits(inputs), torch.from_numpy(e.tokens), temperatures)
    np.testing.assert_allclose(log_prob, e.log_probs, atol=1e-5)
    assert (e.log_probs < 0).all()


def test_weights_decide(runner: PolicyRunner, tiny_policy: Callable[[int], CompactPolicy]) -> None:
    before = runner.run(request(temperature=0.0))
    runner.update({k: v.numpy() for k, v in tiny_policy(1).state_dict().items()})
    after = runner.run(request(temperature=0.0))
    assert (before.tokens != after.tokens).any()
    np.testing.assert_array_equal(before.log_probs, 0)


def test_without_a_world_model_there_are_no_features(one_thread: None, tiny_config: CompactConfig) -> None:
    runner = PolicyRunner(replace(CONFIG, world_model=None), "srpo.policies.compact:CompactPolicy", tiny_config)
    assert runner.run(request()).frame_features is None


def test_environments_are_reused_and_the_oldest_closed() -> None:
    made: list[FakeEnv] = []

    def make(task: Task) -> FakeEnv:
        made.append(FakeEnv(task, ("agentview",), 32, "fast"))
        return made[-1]

    cache = EnvironmentCache(make, capacity=2)
    a, b, c = (replace(TASK, index=i) for i in range(3))
    for task in (a, b, a, c, a):  # b is the one not used for longest when c comes
        assert cache.get(task).task == task
    assert [e.task.index for e in made] == [0, 1, 2] and [e.closed for e in made] == [False, True, False]
    cache.close()
    assert all(e.closed for e in made)


def test_episodes_do_not_depend_on_the_worker(
    runner: PolicyRunner, tiny_config: CompactConfig, tiny_policy: Callable[[int], CompactPolicy]
) -> None:
    requests = [request(seed=s, solved_after=s % 3 + 1) for s in range(6)]
    heard: list[Episode] = []
    with Collector(tiny_policy(0), CONFIG, workers=2) as collector:
        episodes = collector.collect(tiny_policy(0), requests, heard.append)
    assert [e.request for e in episodes] == requests and len(heard) == 6
    assert all(same(e, runner.run(r)) for e, r in zip(episodes, requests, strict=True))
    line = summary(episodes[1])
    assert line["task"] == "fake/2" and line["success"] is True and line["n_steps"] == 2 and line["seed"] == 1


def test_noise_that_lasts_errs_to_one_side_all_along(
    one_thread: None, tiny_config: CompactConfig, tiny_policy: Callable[[int], CompactPolicy]
) -> None:
    def errors(persistence: float) -> np.ndarray:
        config = replace(CONFIG, noise_correlation=0.99, noise_persistence=persistence)
        runner = PolicyRunner(config, "srpo.policies.compact:CompactPolicy", tiny_config)
        runner.update({k: v.numpy() for k, v in tiny_policy(0).state_dict().items()})
        rows = []
        for seed in range(40):
            e = runner.run(request(seed=seed))
            rows.append(np.sign(e.tokens[:, 0] - 127.5))
            assert same(e, runner.run(request(seed=seed)))
        return np.array(rows)

    agree = [np.mean(e[:, :-1] == e[:, 1:]) for e in (errors(0.0), errors(0.98))]
    assert agree[1] > 0.85 and agree[1] > agree[0] + 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_correlation": 1.0}, "below 1"),
        ({"noise_correlation": 0.5, "noise_persistence": -0.1}, "below 1"),
        ({"noise_persistence": 0.8}, "noise-correlation above 0"),
    ],
)
def test_impossible_noise(changes: dict[str, float], message: str) -> None:
    with pytest.raises(SrpoError, match=message):
        replace(CONFIG, **changes)
