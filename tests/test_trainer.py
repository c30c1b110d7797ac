"""The loop, on synthetic episodes: rewards, skipped groups, replay, learning, and resuming to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srpo.policies.action_tokens import ActionScale
from srpo.policies.compact import CompactPolicy
from srpo.rewards import covered_progress
from srpo.types import Episode, EpisodeRequest, SrpoError
from srpo.world_models.base import evenly
from synthetic_training import CONFIG, FakeCollector, Make, trainer


def probability_of_success(policy: CompactPolicy) -> float:
    """Mean over fresh scenes of the probability that the deciding token is in bins 128 to 255."""
    requests = trainer(policy, Path()).sampler.requests(10_000)
    inputs = [FakeCollector().episode(policy, r).inputs for r in requests[::6]]
    with torch.no_grad():
        logits = [policy.logits({k: torch.from_numpy(v) for k, v in i.items()}) for i in inputs]
    return float(torch.stack([row[-1, 0].softmax(-1)[128:].sum() for row in logits]).mean())


@pytest.mark.parametrize(("reward", "credit"), [("srpo", "episode"), ("sparse", "episode"), ("srpo", "decision")])
def test_rewarded_actions_become_likelier(tmp_path: Path, tiny_policy: Make, reward: str, credit: str) -> None:
    policy = tiny_policy(0)
    before = probability_of_success(policy)
    loop = trainer(policy, tmp_path, reward=reward, credit=credit)
    rates = [loop.step()[0]["success_rate"] for _ in range(8)]
    after = probability_of_success(policy)
    assert 0.3 < before < 0.7 and after > before + 0.25
    assert np.mean(rates[-3:]) > np.mean(rates[:3])
    assert loop.world_model.calls == (8 * len(loop.collector.requests) if reward == "srpo" else 0)  # one an episode


def test_srpo_step_grades_failures_by_their_distance(tmp_path: Path, tiny_policy: Make) -> None:
    heard: list[Episode] = []
    row, record = trainer(tiny_policy(0), tmp_path, clustering="nearest").step(heard.append)
    assert len(heard) == len(record.episodes) == row["n_episodes"] == row["episodes"] == 24
    success = np.array([e.success for e in record.episodes])
    task = np.array([e.request.task.index for e in record.episodes])
    where = record.embeddings[:, 0]
    assert (record.reward[success] == 1).all() and (record.reward[~success] < 0.8).all()
    for t in (0, 1):
        failed, won = (task == t) & ~success, (task == t) & success
        gap = (where[won].min() - where[failed]) ** 2  # all successes lie on one side: the nearest is the smallest
        expected = 0.8 / (1 + np.exp((gap - gap.mean()) / gap.std()))
        np.testing.assert_allclose(record.reward[failed], expected, rtol=1e-5)
    assert row["step"] == 1 and row["env_steps"] == 96 and row["n_success"] == success.sum()
    assert row["success_rate"] == success.mean() and row["steps_to_success"] == 4
    assert row["reward_failure_mean"] == pytest.approx(record.reward[~success].mean())
    assert row["n_clusters"] == success.sum() and row["groups_informative"] == 4 and row["groups_skipped"] == 0
    assert row["gradient_steps"] == 2 * 3  # 48 decisions in minibatches of 16, twice


def test_sparse_step_skips_groups_that_agree(tmp_path: Path, tiny_policy: Make) -> None:
    # Groups 0 and 1 all succeed, 2 all fails, 3 is mixed.
    def verdict(request: EpisodeRequest, tokens: np.ndarray) -> bool:
        return {0: True, 1: True, 2: False}.get(request.group, request.seed % 2 == 0)

    loop = trainer(tiny_policy(0), tmp_path, verdict, reward="sparse")
    row, record = loop.step()
    assert len({e.success for e in record.episodes[-6:]}) == 2  # the mixed group is one
    assert (row["groups_informative"], row["groups_skipped"]) == (1, 3)
    assert row["decisions"] == 12 and record.embeddings is None and record.graded is None
    assert set(record.reward) == {0.0, 1.0} and row["reward_failure_mean"] == row["n_clusters"] == 0


@pytest.mark.parametrize("outcome", [True, False])
def test_a_step_without_information_changes_nothing(tmp_path: Path, tiny_policy: Make, outcome: bool) -> None:
    policy = tiny_policy(0)
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    row, _ = trainer(policy, tmp_path, lambda request, tokens: outcome, replay=0).step()
    assert row["groups_skipped"] == 4 and "gradient_steps" not in row
    assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items())


@pytest.mark.parametrize(("replay", "informative"), [(0, 0), (8, 4)])
def test_failures_are_graded_by_earlier_successes(
    tmp_path: Path, tiny_policy: Make, replay: int, informative: int
) -> None:
    def only_first_step(request: EpisodeRequest, tokens: np.ndarray) -> bool:
        return request.group < 4 and bool(tokens[-1, 0] >= 128)

    loop = trainer(tiny_policy(0), tmp_path, only_first_step, replay=replay)
    assert loop.step()[0]["n_success"] > 0
    row, record = loop.step()
    assert row["n_success"] == 0 and row["groups_informative"] == informative
    assert (record.reward > 0).all() if replay else (record.reward == 0).all()
    assert loop.replay is None or 0 < len(loop.replay) <= 16


def test_the_first_two_groups_are_filmed_for_the_report(tmp_path: Path, tiny_policy: Make) -> None:
    loop = trainer(tiny_policy(0), tmp_path)
    loop.step()
    assert [r.keep_frames for r in loop.collector.requests] == [True] * 12 + [False] * 12
    sparse = trainer(tiny_policy(0), tmp_path, reward="sparse", train_max_steps=3)
    sparse.step()
    assert not any(r.keep_frames for r in sparse.collector.requests)
    assert {r.task.max_steps for r in sparse.collector.requests} == {3}


def test_running_average_of_the_weights(tmp_path: Path, tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    loop = trainer(policy, tmp_path, average=0.9)
    name = "head.out.bias"
    start = policy.state_dict()[name].clone()
    loop.step()
    first = policy.state_dict()[name].clone()
    loop.step()
    second = policy.state_dict()[name].clone()
    # Decay min(0.9, (1 + k) / (10 + k)): 1/10 after step 1, 2/11 after step 2.
    expected = (start * 0.1 + first * 0.9) * (2 / 11) + second * (9 / 11)
    np.testing.assert_allclose(loop.final_policy().state_dict()[name], expected, rtol=1e-5, atol=1e-7)
    without = trainer(policy, tmp_path)
    assert torch.equal(without.final_policy().state_dict()[name], second)


def test_states_taken_up_again_do_not_count_as_recent_success(tmp_path: Path, tiny_policy: Make) -> None:
    # Nothing succeeds at first, and from step 2 on everything does.
    loop = trainer(tiny_policy(0), tmp_path, lambda request, tokens: request.group >= 4, reward="sparse", revisit=1.0)
    loop.step()
    first = {(r.task.id, r.initial_state) for r in loop.collector.requests}
    row, _ = loop.step()
    assert {(r.task.id, r.initial_state) for r in loop.collector.requests} == first
    assert row["success_rate"] == 1 and row["success_recent"] == 0
    assert all(r.again for r in loop.collector.requests)
    row, _ = loop.step()  # those states are solved now, so that others come
    assert not first & {(r.task.id, r.initial_state) for r in loop.collector.requests}
    assert row["success_recent"] > 0


def test_probes_find_the_states_that_groups_take_up(tmp_path: Path, tiny_policy: Make) -> None:
    # Of the first step everything fails, later on nothing does.
    loop = trainer(tiny_policy(0), tmp_path, lambda request, tokens: request.group >= 8, probes=4, revisit=1.0)
    row, record = loop.step()
    assert row["episodes"] == row["n_episodes"] == 28 and row["groups_informative"] + row["groups_skipped"] == 4
    failed = {(r.task.id, r.initial_state) for r in loop.collector.requests}
    assert len(failed) == 8 and [e.request.group for e in record.episodes[24:]] == [4, 5, 6, 7]
    row, record = loop.step()
    assert row["episodes"] == 56 and row["success_rate"] == 1
    groups, probes = loop.collector.requests[:24], loop.collector.requests[24:]
    assert {(r.task.id, r.initial_state) for r in groups} < failed
    assert not failed & {(r.task.id, r.initial_state) for r in probes}
    # Of each task's last 16 attempts at new states 2 are successes: 12 failures and 2 came before, 2 have come since.
    assert row["success_recent"] == 2 / 16


def numbers(row: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in row.items() if not k.startswith("seconds")}


@pytest.mark.parametrize(
    "changes",
    [{"average": 0.9}, {"reward": "sparse", "replay": 0}, {"credit": "decision"}, {"task_sampling": "uncertain"},
     {"credit": "decision", "clustering": "coverage", "potential": True},
     {"task_sampling": "failing", "fade_grades": True}, {"revisit": 0.9}, {"revisit": 1.0, "probes": 5}],
)  # fmt: skip
def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, tiny_policy: Make, changes: dict[str, Any]) -> None:
    # Successes become impossible after step 2, so step 3 depends on the replay that was saved.
    def verdict(request: EpisodeRequest, tokens: np.ndarray) -> bool:
        least = 192 if "potential" in changes else 128  # (so that coverage tells failures apart)
        return (request.group < 8 or changes.get("reward") == "sparse") and bool(tokens[-1, 0] >= least)

    whole = trainer(tiny_policy(0), tmp_path / "whole", verdict, **changes)
    expected = [numbers(whole.step()[0]) for _ in range(4)]

    first = trainer(tiny_policy(0), tmp_path / "cut", verdict, **changes)
    assert first.resume() is False
    for _ in range(2):
        first.step()
        first.save()
    # The rest in a new process's place: other initial weights, nothing shared.
    second = trainer(tiny_policy(5), tmp_path / "cut", verdict, **changes)
    assert second.resume() is True and second.done == 2
    assert [numbers(second.step()[0]) for _ in range(2)] == expected[2:]
    assert expected[2]["groups_informative"] > 0
    ours, theirs = second.policy.state_dict(), whole.policy.state_dict()
    assert all(torch.equal(v, ours[k]) for k, v in theirs.items())
    ours, theirs = second.final_policy().state_dict(), whole.final_policy().state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(v, ours[k]) for k, v in theirs.items())
    if changes.get("credit") == "decision":
        assert second.value_history is not None and whole.value_history is not None
        kept, expected_values = second.value_history.state_dict(), whole.value_history.state_dict()
        assert len(expected_values) == 4 * 6
        assert all(np.array_equal(v, kept[k], equal_nan=True) for k, v in expected_values.items())


def test_resuming_with_another_replay_or_average_starts_them_afresh(tmp_path: Path, tiny_policy: Make) -> None:
    first = trainer(tiny_policy(0), tmp_path, replay=0)
    first.step()
    first.save()
    second = trainer(tiny_policy(5), tmp_path, replay=4, average=0.9)
    assert second.resume() and second.done == 1
    weights = first.policy.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in second.final_policy().state_dict().items())
    assert second.replay is not None and len(second.replay) == 0
    second.save()
    for replay in (0, 2):
        again = trainer(tiny_policy(5), tmp_path, replay=replay)
        assert again.resume()
        again.step()


def test_credit_by_decision_needs_features(tmp_path: Path, tiny_policy: Make) -> None:
    class Closed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_policy(0)

    with pytest.raises(SrpoError, match="--credit episode"):
        trainer(Closed(), tmp_path, credit="decision")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "dense"}, "srpo or sparse"),
        ({"credit": "token"}, "episode or decision"),
        ({"value_history": -1}, "value-history 0 or more"),
        ({"gae_lambda": 1.5}, "gae-lambda from 0 to 1"),
        ({"group_size": 1}, "at least 2"),
        ({"potential": True, "credit": "episode", "clustering": "coverage"}, "--credit decision"),
        ({"potential": True, "credit": "decision"}, "--clustering coverage"),
        ({"potential": True, "credit": "decision", "clustering": "coverage", "reward": "sparse"}, "--reward srpo"),
    ],
)
def test_impossible_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SrpoError, match=message):
        replace(CONFIG, **changes)


def test_a_large_policy_keeps_no_average(tmp_path: Path, tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    policy.parts = list  # type: ignore[assignment]  # what a policy has that may be sharded
    with pytest.raises(SrpoError, match="leave --average out"):
        trainer(policy, tmp_path, average=0.9)


def test_frame_features_are_let_go_when_an_episode_is_embedded(tmp_path: Path, tiny_policy: Make) -> None:
    _, record = trainer(tiny_policy(0), tmp_path).step()
    assert all(e.frame_features is None for e in record.episodes)  # none of these was filmed


def test_tokens_weigh_by_the_range_of_their_dimension(tiny_policy: Make, tmp_path: Path, monkeypatch) -> None:
    scale = ActionScale((-0.5,) * 3 + (-0.05,) * 3 + (-1.0,), (1.5,) * 3 + (0.05,) * 3 + (1.0,))
    policy = CompactPolicy(replace(tiny_policy(0).config, action_scale=scale)).eval()
    seen = []
    t = trainer(policy, tmp_path, token_weights="range")
    update = t.learner.update
    monkeypatch.setattr(t.learner, "update", lambda d, *rest: seen.append(d.mask) or update(d, *rest))
    t.step()
    two_actions = 2 * [1.0, 1.0, 1.0, 0.05, 0.05, 0.05, 1.0]
    np.testing.assert_allclose(seen[0], np.tile(two_actions, (len(seen[0]), 1)), rtol=1e-6)


def test_a_gripper_temperature_is_made_up_for_by_the_weights(tiny_policy: Make, tmp_path: Path, monkeypatch) -> None:
    seen = []
    t = trainer(tiny_policy(0), tmp_path, temperature=0.5, gripper_temperature=2.0)
    update = t.learner.update
    monkeypatch.setattr(t.learner, "update", lambda d, *rest: seen.append(d.mask) or update(d, *rest))
    _, record = t.step()
    assert all(e.request.gripper_temperature == 2.0 for e in record.episodes)
    assert t.learner.temperature.tolist() == 2 * ([0.5] * 6 + [2.0])
    np.testing.assert_allclose(seen[0][0], 2 * ([1.0] * 6 + [4.0]))


def test_range_weights_need_a_range(tiny_policy: Make, tmp_path: Path) -> None:
    policy = tiny_policy(0)
    blind = type("Blind", (), {"logits": policy.logits, "state_dict": policy.state_dict})()
    with pytest.raises(SrpoError, match="how far its actions reach"):
        trainer(blind, tmp_path, token_weights="range")


def test_grades_fade_as_a_task_succeeds(tmp_path: Path, tiny_policy: Make) -> None:
    # Task 0 succeeds in every other attempt, task 1 never.
    def verdict(request: EpisodeRequest, tokens: np.ndarray) -> bool:
        return request.task.index == 0 and request.seed % 2 == 0

    rewards = {}
    for fade in (False, True):
        loop = trainer(tiny_policy(0), tmp_path, verdict, fade_grades=fade)
        rewards[fade] = [loop.step()[1].reward]
        loop = trainer(tiny_policy(0), tmp_path, verdict, fade_grades=fade)
        loop.outcomes.load_state_dict({"synthetic/0": [True, True, True, False], "synthetic/1": [False]})
        _, record = loop.step()
        rewards[fade].append(record.reward)
    failed = np.array([not e.success for e in record.episodes])
    first = np.array([e.request.task.index == 0 for e in record.episodes])
    assert (first & failed).any() and not failed.all()
    np.testing.assert_array_equal(rewards[True][0], rewards[False][0])  # nothing is known before the first step
    np.testing.assert_array_equal(rewards[True][1][~failed], 1.0)
    np.testing.assert_allclose(rewards[True][1][first & failed], 0.25 * rewards[False][1][first & failed])
    np.testing.assert_array_equal(rewards[True][1][~first], rewards[False][1][~first])


@pytest.mark.parametrize("potential", [False, True])
def test_the_value_knows_the_grade_reached_so_far(tmp_path: Path, tiny_policy: Make, potential: bool) -> None:
    changes = {"clustering": "coverage", "credit": "decision", "potential": potential}
    loop = trainer(tiny_policy(0), tmp_path, lambda request, tokens: bool(tokens[-1, 0] >= 192), **changes)
    loop.outcomes.load_state_dict({"synthetic/0": [True, False, False, False]})
    loop.config = replace(loop.config, fade_grades=True)
    shown = evenly(np.array([[0], [0.5], [1]], np.float32))
    assert loop.replay is not None
    loop.replay.add(np.stack([shown] * 2), [True] * 2, ["synthetic/0", "synthetic/1"])
    _, record = loop.step()
    assert loop.value_history is not None
    found = loop.value_history.batches[0].potential.reshape(-1, 2)
    ends = np.array([e.tokens[-1][0] / 128 - 1 for e in record.episodes], np.float32)
    success = np.array([e.success for e in record.episodes])

    def curve(i: int, known: np.ndarray) -> np.ndarray:
        return 1 - covered_progress(np.array([[0], [ends[i] / 2], [ends[i]]]), known)

    group = np.array([e.request.group for e in record.episodes])
    compared = 0
    for t, fade in ((0, 0.75), (1, 1.0)) if potential else ():
        task = np.array([e.request.task.index == t for e in record.episodes])
        own = {i: evenly(np.array([[0], [ends[i] / 2], [ends[i]]], np.float32)) for i in np.flatnonzero(task & success)}
        final = np.array([curve(i, np.stack([shown, *own.values()]))[-1] for i in np.flatnonzero(task & ~success)])

        def grade(missing: np.ndarray, fade: float = fade, final: np.ndarray = final) -> np.ndarray:
            return fade * 0.8 / (1 + np.exp((missing - final.mean()) / final.std()))

        np.testing.assert_allclose(record.reward[task & ~success], grade(final), rtol=1e-4)
        for i in np.flatnonzero(task):
            others = np.stack([shown, *(moment for j, moment in own.items() if group[j] != group[i])])
            np.testing.assert_allclose(found[i], grade(curve(i, others))[:2], rtol=1e-4)
            compared += bool(success[i])
    assert bool(compared) == potential
    assert np.isfinite(found).all() == potential and np.isnan(found).all() != potential


def test_a_state_that_is_drawn_twice_by_chance_counts_both_times(tmp_path: Path, tiny_policy: Make) -> None:
    loop = trainer(
        tiny_policy(0), tmp_path, lambda request, tokens: request.group >= 4, reward="sparse", train_states=1
    )
    loop.step()
    assert loop.step()[0]["success_recent"] > 0 and not any(r.again for r in loop.collector.requests)
