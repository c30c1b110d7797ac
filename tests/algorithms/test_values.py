"""Credit decision by decision: the estimate by hand, the value against scikit-learn, and no leak of outcomes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from srpo.algorithms import StateRecord, ValueHistory, cross_fitted_values, group_advantages, group_relative_gae
from srpo.types import SrpoError


def blank(lengths: list[int], reward: list[float]) -> StateRecord:
    """States that all look the same."""
    return StateRecord.of([np.zeros((n, 2)) for n in lengths], reward, [0] * len(lengths))


def random_record(seed: int, groups: int = 4, size: int = 4, length: int = 3) -> tuple[StateRecord, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = groups * size
    features = [rng.standard_normal((length, 5)) for _ in range(n)]
    reward = np.append([0.0, 1.0], rng.random(n - 2))
    return StateRecord.of(features, reward, rng.integers(2, size=n)), np.repeat(np.arange(groups), size)


def test_one_group_by_hand() -> None:
    # Nothing else to fit to: V = 1/2 everywhere. Of the success, delta = (0, 1/2), A = (0.7 * 1/2, 1/2); of the
    # failure the opposite; the mean over both is 0 at either decision, the std of the rewards 1/2.
    success, failure = group_relative_gae(blank([2, 2], [1.0, 0.0]), [7, 7], gae_lambda=0.7)
    np.testing.assert_allclose(success, [0.7, 1.0], atol=1e-12)
    np.testing.assert_allclose(failure, [-0.7, -1.0], atol=1e-12)
    plain, _ = group_relative_gae(blank([2, 2], [1.0, 0.0]), [7, 7], gae_lambda=0.7, normalise_std=False)
    np.testing.assert_allclose(plain, [0.35, 0.5], atol=1e-12)


def test_the_last_decisions_of_the_longest_episode_have_nothing_to_be_compared_with() -> None:
    success, failure = group_relative_gae(blank([1, 3], [1.0, 0.0]), [0, 0], gae_lambda=1.0)
    np.testing.assert_allclose(success, [1.0], atol=1e-12)
    np.testing.assert_allclose(failure, [-1.0, 0.0, 0.0], atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=8, max_size=8), st.integers(1, 4))
def test_without_distinguishable_states_and_lambda_one_it_is_the_group_advantage(
    reward: list[float], length: int
) -> None:
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    whole = group_advantages(reward, group)
    for estimate, advantage in zip(
        group_relative_gae(blank([length] * 8, reward), group, gae_lambda=1.0), whole, strict=True
    ):
        np.testing.assert_allclose(estimate, np.full(length, advantage), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_every_comparison_within_a_group_is_balanced(seed: int, gae_lambda: float) -> None:
    now, group = random_record(seed)
    estimates = np.stack(group_relative_gae(now, group, gae_lambda=gae_lambda))
    for g in np.unique(group):
        np.testing.assert_allclose(estimates[group == g].mean(0), 0.0, atol=1e-9)


def test_credit_goes_to_the_decision_that_settled_the_outcome() -> None:
    rng = np.random.default_rng(0)
    reward = np.tile([1.0, 0.0], 32)
    features = []
    for r in reward:
        f = 0.1 * rng.standard_normal((4, 3))
        f[2:, 0] += r  # from the third decision on, the outcome shows
        features.append(f)
    group = np.repeat(np.arange(8), 8)
    estimates = np.stack(
        group_relative_gae(StateRecord.of(features, reward, [0] * 64), group, gae_lambda=0.7, ridge=1.0)
    )
    size = np.abs(estimates).mean(0)
    assert size[1] > 0.8 and size[2] < 0.4 * size[1] and size[3] < 0.4 * size[1]
    assert (np.sign(estimates[:, 1]) == np.where(reward > 0, 1, -1)).all()


def test_groups_that_teach_nothing_get_exactly_zero() -> None:
    now, group = random_record(3)
    now.reward[group == 2] = 0.25
    estimates = group_relative_gae(now, group)
    assert all((estimates[i] == 0).all() == (group[i] == 2) for i in range(len(group)))


def test_no_outcome_leaks_into_its_own_baseline() -> None:
    now, group = random_record(1)
    now.reward[:] = 0.2 + 0.6 * now.reward
    before = cross_fitted_values(now, group)
    now.reward[group == 3] = [0.0, 1.0, 0.9, 0.1]  # the extremes of the batch
    after = cross_fitted_values(now, group)
    own = (group == 3)[now.episode]
    np.testing.assert_array_equal(before[own], after[own])
    assert np.abs(before[~own] - after[~own]).max() > 1e-3


@pytest.mark.parametrize("tasks", [1, 2])
def test_values_are_those_of_ridge_regressions_on_the_other_groups_and_the_history(tasks: int) -> None:
    now, group = random_record(2)
    past, _ = random_record(5)
    for record in (now, past):
        record.task[:] %= tasks
    features = np.concatenate([now.features, past.features]).astype(np.float64)
    features = (features - features.mean(0)) / features.std(0)
    decision = np.eye(3)[np.concatenate([now.decision, past.decision])]
    task = np.concatenate([now.task[now.episode], past.task[past.episode]])
    design = np.concatenate([features, 5 * decision, 5 * np.eye(tasks)[task]], 1)
    target = np.concatenate([now.reward[now.episode], past.reward[past.episode]])
    values = cross_fitted_values(now, group, [past], ridge=10.0)
    for g in range(4):
        mine = np.append((group == g)[now.episode], np.zeros(len(past.decision), bool))
        mean = target[~mine].mean()
        fit = Ridge(alpha=10.0, fit_intercept=False).fit(design[~mine], target[~mine] - mean)
        expected = mean + fit.predict(design)
        for t in range(tasks if tasks > 1 else 0):  # of several tasks, each has a fit of its own to what is left over
            own = ~mine & (task == t)
            left = Ridge(alpha=10.0, fit_intercept=False).fit(design[own], (target - expected)[own])
            if (mine & (task == t)).any():
                expected[mine & (task == t)] += left.predict(design[mine & (task == t)])
        np.testing.assert_allclose(values[mine[: len(values)]], np.clip(expected, 0, 1)[mine], atol=1e-9)


def test_a_potential_by_hand() -> None:
    # States that look alike, and so large a penalty that nothing but the mean is fitted. Two groups with the same
    # numbers; what is still to come is 1, .6, .2, 0 at decision 0 and .5, .1, .1, -.1 at decision 1, .3 in the mean.
    # V = .45 (the group's mean reward) at decision 0, then .8, .8, .4, .4. delta_0 = .35, .35, -.05, -.05,
    # delta_1 = .2, -.2, -.2, -.4; A_0 = delta_0 + delta_1 / 2 = .45, .25, -.15, -.25, less the mean .075; A_1 = delta_1
    # less its mean -.15.
    reached = [np.array([0.0, p]) for p in (0.5, 0.5, 0.1, 0.1)] * 2
    states = StateRecord.of([np.zeros((2, 2))] * 8, [1.0, 0.6, 0.2, 0.0] * 2, [0] * 8, reached)
    estimates = group_relative_gae(states, [0] * 4 + [1] * 4, gae_lambda=0.5, ridge=1e12, normalise_std=False)
    expected = [[0.375, 0.35], [0.175, -0.05], [-0.225, -0.05], [-0.325, -0.25]] * 2
    np.testing.assert_allclose(estimates, expected, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-1, 1))
def test_a_potential_that_is_the_same_everywhere_says_nothing(seed: int, constant: float) -> None:
    now, group = random_record(seed)
    raised = replace(now, potential=np.full(len(now.decision), constant))
    np.testing.assert_allclose(cross_fitted_values(raised, group), cross_fitted_values(now, group), atol=1e-9)


def test_a_grade_that_was_reached_early_is_no_surprise_at_the_end() -> None:
    """What an episode is graded for happens in its second decision, and no state shows it."""
    rng = np.random.default_rng(0)
    reward = rng.random(64)
    features = [rng.standard_normal((4, 3)) for _ in reward]
    reached = [np.array([0.0, 0.0, r, r]) for r in reward]
    group = np.repeat(np.arange(8), 8)

    def power(potential: list[np.ndarray] | None) -> np.ndarray:
        states = StateRecord.of(features, reward, [0] * 64, potential)
        squares = np.square(np.stack(group_relative_gae(states, group, gae_lambda=0.7))).mean(0)
        return squares / squares.sum()

    without, with_potential = power(None), power(reached)
    assert without[3] > without[1] > without[0] and with_potential[1] > 0.6 and with_potential[3] < 0.05


def test_with_nothing_to_fit_to_the_value_stays_within_the_rewards() -> None:
    # The mean reward 0.5, and the potential less its mean 0.2: 0.3 and 1.1, cut to 1; 0.3 and 0.3.
    states = StateRecord.of([np.zeros((2, 2))] * 2, [1.0, 0.0], [0, 0], [np.array([0.0, 0.8]), np.zeros(2)])
    np.testing.assert_allclose(cross_fitted_values(states, np.zeros(2, int)), [0.3, 1.0, 0.3, 0.3])


def test_a_potential_must_fit() -> None:
    with pytest.raises(SrpoError, match="a number for every decision"):
        StateRecord.of([np.zeros((2, 2))], [1.0], [0], [np.zeros(3)])
    with pytest.raises(SrpoError, match="infinite"):
        StateRecord.of([np.zeros((2, 2))], [1.0], [0], [np.array([0.0, np.inf])])


def test_where_the_potential_is_not_known_the_whole_reward_is_fitted() -> None:
    now, group = random_record(1)
    past, _ = random_record(2)
    reached = np.where(now.task[now.episode] == 0, 0.1 * now.decision, np.nan)
    some = replace(now, potential=reached)
    np.testing.assert_array_equal(
        cross_fitted_values(some, group, [past])[np.isnan(reached)],
        cross_fitted_values(now, group, [past])[np.isnan(reached)],
    )
    # And what is still to come is fitted to those of whom it is known: others, now or earlier, have no part.
    known = np.isfinite(reached)
    before = cross_fitted_values(some, group, [past])
    past.reward[:] = np.clip(past.reward, 0.3, 0.6)
    some.reward[now.task == 1] = np.clip(some.reward[now.task == 1], 0.3, 0.6)
    after = cross_fitted_values(some, group, [past])
    inside = known & (before > 0.05) & (before < 0.95)  # the range of all rewards limits
    assert inside.sum() > 10
    np.testing.assert_allclose(after[inside], before[inside])
    assert np.abs(after - before)[~known].max() > 1e-3


def test_a_potential_known_in_no_other_fold_is_not_fitted_to_itself() -> None:
    now, group = random_record(1)
    reached = np.where(group[now.episode] == 2, 0.1 * now.decision, np.nan)
    np.testing.assert_array_equal(
        cross_fitted_values(replace(now, potential=reached), group), cross_fitted_values(now, group)
    )


def test_history_is_bounded_and_survives_a_checkpoint() -> None:
    history = ValueHistory(2)
    records = [random_record(s)[0] for s in range(3)]
    for r in records:
        history.add(r)
    assert len(history.batches) == 2 and history.batches[0] is records[1]
    again = ValueHistory(2)
    again.load_state_dict(history.state_dict())
    for a, b in zip(again.batches, history.batches, strict=True):
        for name in vars(b):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    state = history.state_dict()
    del state["0.potential"]  # a checkpoint from before there was one
    again.load_state_dict(state)
    assert np.isnan(again.batches[0].potential).all() and len(again.batches[0].potential) == 48
    del state["1.reward"]
    with pytest.raises(SrpoError, match=r"lacks '1\.reward'"):
        again.load_state_dict(state)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SrpoError, match="do not fit"):
        StateRecord.of([np.zeros((2, 3))], [1.0, 0.0], [0])
    with pytest.raises(SrpoError, match="every episode with a decision"):
        StateRecord.of([np.zeros((0, 3))], [1.0], [0])
    with pytest.raises(SrpoError, match="not finite"):
        StateRecord.of([np.full((2, 3), np.nan)], [1.0], [0])
    now, group = random_record(0)
    with pytest.raises(SrpoError, match="another size"):
        cross_fitted_values(now, group, [blank([2, 2], [0.0, 1.0])])
