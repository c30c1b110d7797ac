from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from srpo.rewards import ReferenceReplay, coverage_scale, covered_progress, progress_rewards
from srpo.types import SrpoError


def test_progress_by_hand():
    """One success in four moments 0, 1, 2, 3 on a line, sigma 1. An episode goes to 1, to 1.5 and then far away."""
    line = np.arange(4.0)[None, :, None]
    episode = np.array([[0.0], [1.0], [3.0 - 1.5], [-9.0]])
    # d_s after each moment: (0, 1, 4, 9), (0, 0, 1, 4), (0, 0, 1/4, 9/4), the same; m = min(1, 1 / d).
    expected = [(1 + 1 + 1 / 4 + 1 / 9) / 4, (1 + 1 + 1 + 1 / 4) / 4, (3 + 4 / 9) / 4, (3 + 4 / 9) / 4]
    np.testing.assert_allclose(covered_progress(episode, line, 1.0), expected, rtol=1e-6)


def test_no_stage_counts_without_those_before_it():
    """The last moment of the success alone, say the hand at the plate without the bowl."""
    line = np.arange(4.0)[None, :, None]
    early = covered_progress(np.array([[0.0], [1.0]]), line, 0.1)[-1]
    skipped = covered_progress(np.array([[0.0], [3.0]]), line, 0.1)[-1]
    # 0.1 for the missed stages at distance 1, and the stage after them is worth no more.
    assert skipped == pytest.approx((1 + 0.1 + 0.1 + 0.1) / 4) and early > skipped


def test_each_stage_may_be_covered_by_another_success():
    a, b = np.array([[0.0], [5.0]]), np.array([[9.0], [1.0]])
    assert covered_progress(np.array([[0.0], [1.0]]), np.stack([a, b]), 0.01)[-1] == pytest.approx(1.0)


def test_scale_by_hand():
    # Squared steps of 9, 0 and 1, and of 4, 4 and 0; those that are 0 do not count: 18 / 4 / 2.
    two = np.array([[[0.0], [3.0], [3.0], [4.0]], [[0.0], [2.0], [4.0], [4.0]]])
    assert coverage_scale(two) == pytest.approx(2.25)
    assert coverage_scale(np.ones((2, 3, 4))) == 1.0


def test_more_successes_than_are_needed_are_thinned_evenly():
    known = np.arange(40.0)[:, None, None]
    assert covered_progress(np.array([[39.0]]), known, 0.5)[0] == 1.0
    assert covered_progress(np.array([[1.0]]), known, 0.5)[0] == pytest.approx(0.5)  # 0 and 3 are kept, 1 is not


@pytest.mark.parametrize("references", [np.zeros((0, 3, 4)), np.zeros((1, 3, 5)), np.zeros((3, 4))])
def test_what_does_not_fit_is_refused(references):
    with pytest.raises(SrpoError, match="do not fit"):
        covered_progress(np.zeros((2, 4)), references)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**31))
def test_progress_never_falls_and_ignores_units(moments, successes, stages, seed):
    rng = np.random.default_rng(seed)
    references = rng.standard_normal((successes, stages, 3))
    points = rng.standard_normal((moments, 3))
    progress = covered_progress(points, references)
    assert ((progress > 0) & (progress <= 1)).all() and (np.diff(progress) >= 0).all()
    if stages > 1:  # else there is no step to measure by
        np.testing.assert_allclose(covered_progress(4 * points, 4 * references), progress, rtol=1e-4)
    # An episode that repeats a success has covered it.
    assert covered_progress(references[0], references)[-1] > 0.99


def batch():
    """Two tasks of two-moment episodes; task a: a success from (0, 0.1) to (1, 0), failures that end near and far."""
    embeddings = np.array(
        [[0.0, 0.1, 1.0, 0.0], [0.0, 0.1, 0.9, 0.2], [0.0, 0.1, 0.1, 0.1], [0.0, 0.1, 0.2, 0.0], [0.3, 0.3, 0.4, 0.4]]
    )
    return embeddings.reshape(5, 2, 2), np.arange(5) == 0, np.array(["a", "a", "a", "a", "b"])


def test_failures_are_graded_by_how_far_they_came():
    embeddings, success, task = batch()
    graded = progress_rewards(embeddings, success, task)
    assert graded.reward[0] == 1.0 and graded.reward[4] == 0.0 and np.isnan(graded.distance[4])
    # Sigma is half of the squared step, 1.01 / 2. The failures came as near to its end as 0.05, 0.82 and 0.64:
    # the first has covered it, the others a half and sigma / d of the other half.
    np.testing.assert_allclose(graded.distance[1:4], [0.0, 0.5 - 0.2525 / 0.82, 0.5 - 0.2525 / 0.64], atol=1e-6)
    assert graded.reward[1] > graded.reward[3] > graded.reward[2]
    assert graded.n_clusters == {"a": 1, "b": 0}


def test_grades_reached_by_hand():
    embeddings, success, task = batch()
    graded = progress_rewards(embeddings, success, task, group=range(5))
    # Of the first moment, the same in all, the second stage is 1.01 away: sigma / d = 1 / 2, so a quarter is missing.
    missing = np.array([[0.25, 0.0], [0.25, 0.5 - 0.2525 / 0.82], [0.25, 0.5 - 0.2525 / 0.64]])
    mean, std = missing[:, 1].mean(), missing[:, 1].std()
    np.testing.assert_allclose(graded.reached[1:4], 0.8 / (1 + np.exp((missing - mean) / std)), rtol=1e-4)
    np.testing.assert_array_equal(graded.reached[1:4, -1], graded.reward[1:4])
    # The only success is compared with no other; task b has none.
    assert np.isnan(graded.reached[[0, 4]]).all()
    unasked = progress_rewards(embeddings, success, task)
    assert unasked.reached is None
    np.testing.assert_array_equal(unasked.reward, graded.reward)


def test_the_grade_reached_is_by_the_successes_of_other_groups():
    """A success would cover itself wholly, and its value would know that it is going to succeed; the failures of its
    group, from the same initial state, would come nearer to it than to others."""
    embeddings, success, task = batch()
    other = (np.array([[[0.0, 0.1], [1.0, 0.4]]]), ["a"])
    graded = progress_rewards(embeddings, success, task, references=other, group=[7, 7, 8, 8, 9])
    both, missing = np.concatenate([embeddings[:1], other[0]]), []
    for i, known in ((0, other[0]), (1, other[0]), (2, both), (3, both)):
        missing.append(1 - covered_progress(embeddings[i], known))
    d = graded.distance[1:4]
    np.testing.assert_allclose(
        graded.reached[:4], 0.8 / (1 + np.exp((np.stack(missing) - d.mean()) / d.std())), rtol=1e-6
    )
    np.testing.assert_array_equal(graded.reached[2:4, -1], graded.reward[2:4])
    assert np.isnan(progress_rewards(embeddings, success, task, group=[7, 7, 7, 7, 9]).reached).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_an_outcome_that_flips_at_the_last_moment_leaves_the_groups_grades_in_their_order(seed):
    """Mean and std are the whole batch's and may move, for all members alike."""
    rng = np.random.default_rng(seed)
    embeddings, success = rng.standard_normal((12, 5, 12)), rng.random(12) < 0.3
    success[:4] = [True, False, False, False]
    group, references = np.arange(12) // 4, (rng.standard_normal((2, 5, 12)), ["a"] * 2)
    flipped = success.copy()
    flipped[0] = False
    odds = []
    for outcome in (success, flipped):
        graded = progress_rewards(embeddings, outcome, ["a"] * 12, references=references, group=group)
        odds.append(np.log(graded.reached[:4] / (0.8 - graded.reached[:4])).ravel())  # (mean - missing) / std
    sure = np.abs(odds).max(0) < 30
    assume(sure.sum() >= 5)
    odds = [o[sure] for o in odds]
    slope, intercept = np.polyfit(*odds, 1)
    np.testing.assert_allclose(slope * odds[0] + intercept, odds[1], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["paper", "siirl"]))
def test_a_grade_never_falls_and_ends_at_the_reward(seed, formula):
    rng = np.random.default_rng(seed)
    embeddings, success = rng.standard_normal((12, 5, 3)), np.arange(12) < rng.integers(0, 12)
    task, references = rng.integers(0, 3, 12), (rng.standard_normal((2, 5, 3)), [0, 1])
    graded = progress_rewards(embeddings, success, task, references=references, formula=formula, group=np.arange(12))
    known = np.isfinite(graded.reached).all(1)
    assert known.sum() == np.isfinite(graded.reached).any(1).sum()
    assert (np.diff(graded.reached[known], axis=1) >= 0).all()
    np.testing.assert_array_equal(graded.reached[known & ~success, -1], graded.reward[known & ~success])
    for name in set(task.tolist()) & {0, 1}:  # of which there are references: where two failures differ
        d = graded.distance[(task == name) & ~success]
        assert known[task == name].tolist() == [len(d) > 1 and np.ptp(d) > 1e-5] * (task == name).sum()


@pytest.mark.parametrize("formula", ["paper", "siirl"])
def test_a_lone_failure_says_nothing_of_what_was_reached(formula):
    embeddings, _, task = batch()
    success = np.array([True, True, True, False, True])
    graded = progress_rewards(embeddings, success, task, formula=formula, group=range(5))
    assert np.isnan(graded.reached).all()
    assert graded.reward[3] == pytest.approx(0.4 if formula == "paper" else 0.3)


def test_groups_must_fit():
    embeddings, success, task = batch()
    with pytest.raises(SrpoError, match=r"group has the shape \(4,\) for 5 embeddings"):
        progress_rewards(embeddings, success, task, group=range(4))


def test_coverage_works_with_the_replay_and_the_public_formula():
    embeddings, success, task = batch()
    replay = ReferenceReplay(4)
    replay.add(embeddings, success, task)
    only = ~success
    graded = progress_rewards(
        embeddings[only], success[only], task[only], formula="siirl", references=replay.references()
    )
    assert graded.reward.max() < 0.6 and graded.reward[3] == 0.0


def test_one_vector_an_episode_is_for_the_papers_distance():
    embeddings, success, task = batch()
    with pytest.raises(SrpoError, match=r"\(5, 4\): coverage compares moments.*choose clustering='dbscan'"):
        progress_rewards(embeddings.reshape(5, 4), success, task)
    with pytest.raises(SrpoError, match="pass one vector per episode"):
        progress_rewards(embeddings, success, task, clustering="dbscan")
    with pytest.raises(SrpoError, match=r"references have the shape \(1, 3, 2\) and the embeddings \(5, 2, 2\)"):
        progress_rewards(embeddings, success, task, references=(np.ones((1, 3, 2)), ["a"]))
