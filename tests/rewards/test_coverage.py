from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
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
    graded = progress_rewards(embeddings, success, task, curves=True)
    # Of the first moment, the same in all, the second stage is 1.01 away: sigma / d = 1 / 2, so a quarter is missing.
    missing = np.array([[0.25, 0.0], [0.25, 0.5 - 0.2525 / 0.82], [0.25, 0.5 - 0.2525 / 0.64]])
    mean, std = missing[:, 1].mean(), missing[:, 1].std()
    np.testing.assert_allclose(graded.reached[1:4], 0.8 / (1 + np.exp((missing - mean) / std)), rtol=1e-4)
    np.testing.assert_array_equal(graded.reached[1:, -1], graded.reward[1:])
    # The only success is compared with no other; task b has none.
    assert not graded.reached[0].any() and not graded.reached[4].any()
    unasked = progress_rewards(embeddings, success, task)
    assert unasked.reached is None
    np.testing.assert_array_equal(unasked.reward, graded.reward)


def test_a_success_is_compared_with_others_only():
    """Itself it would cover wholly, whatever it did, and so its value would know that it is going to succeed."""
    embeddings, success, task = batch()
    other = np.array([[[0.0, 0.1], [1.0, 0.4]]])
    graded = progress_rewards(embeddings, success, task, references=(other, ["a"]), curves=True)
    alone = progress_rewards(
        np.concatenate([embeddings, other]), np.append(success, True), np.append(task, "a"), curves=True
    )
    assert 0 < graded.reached[0, -1] < 0.8
    # 0.16 away from the other's end, which is far nearer than sigma: nothing is missing, as of the best failure.
    np.testing.assert_allclose(graded.reached[0, -1], graded.reward[1], rtol=1e-6)
    np.testing.assert_allclose(alone.reached[:5], graded.reached, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["paper", "siirl"]))
def test_a_grade_never_falls_and_ends_at_the_reward(seed, formula):
    rng = np.random.default_rng(seed)
    embeddings, success = rng.standard_normal((12, 5, 3)), np.arange(12) < rng.integers(0, 12)
    task, references = rng.integers(0, 3, 12), (rng.standard_normal((2, 5, 3)), [0, 1])
    graded = progress_rewards(embeddings, success, task, references=references, formula=formula, curves=True)
    assert (np.diff(graded.reached, axis=1) >= 0).all()
    np.testing.assert_array_equal(graded.reached[~success, -1], graded.reward[~success])


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
