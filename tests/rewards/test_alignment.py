from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srpo.rewards import ReferenceReplay, aligned_progress, progress_rewards
from srpo.types import SrpoError


def test_progress_is_the_time_of_the_nearest_moments_by_hand():
    """A success walks along a line in five moments, at times 0, 1/4, ..., 1."""
    line = np.arange(5.0)[:, None] * [1.0, 0.0]
    seen = np.array([[0.1, 3.0], [2.1, -1.0], [9.0, 0.0]])
    np.testing.assert_allclose(aligned_progress(seen, [line], neighbours=1), [0.0, 0.5, 1.0])
    # The three nearest to 2.1 are 1, 2 and 3; those of 9.0 are 2, 3 and 4.
    np.testing.assert_allclose(aligned_progress(seen[1:], [line]), [0.5, 0.75])


def test_successes_of_different_length_are_one_ruler():
    short, long = np.array([[0.0], [10.0]]), np.arange(11.0)[:, None]
    assert aligned_progress(np.array([[10.2]]), [short, long], neighbours=2)[0] == 1.0
    assert aligned_progress(np.array([[5.0]]), [short, long], neighbours=1)[0] == 0.5


def test_fewer_moments_than_neighbours():
    assert aligned_progress(np.zeros((1, 2)), [np.ones((2, 2))])[0] == 0.5


@pytest.mark.parametrize("references", [[], [np.zeros((3, 5))], [np.zeros(4)]])
def test_what_does_not_fit_is_refused(references):
    with pytest.raises(SrpoError, match="do not fit"):
        aligned_progress(np.zeros((2, 4)), references)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_progress_lies_between_0_and_1_and_ignores_scale(moments, successes, seed):
    rng = np.random.default_rng(seed)
    references = [rng.standard_normal((rng.integers(1, 9), 3)) for _ in range(successes)]
    points = rng.standard_normal((moments, 3))
    progress = aligned_progress(points, references)
    assert ((progress >= 0) & (progress <= 1)).all()
    np.testing.assert_allclose(aligned_progress(7 * points, [7 * r for r in references]), progress)


def batch():
    """Two tasks of two-moment episodes; task a: a success from (0, 0.1) to (1, 0), failures that end near and far."""
    embeddings = np.array(
        [[0.0, 0.1, 1.0, 0.0], [0.0, 0.1, 0.9, 0.2], [0.0, 0.1, 0.1, 0.1], [0.0, 0.1, 0.2, 0.0], [0.3, 0.3, 0.4, 0.4]]
    )
    return embeddings, np.array([True, False, False, False, False]), np.array(["a", "a", "a", "a", "b"])


def test_failures_are_graded_by_where_they_ended():
    embeddings, success, task = batch()
    line = np.array([[0.0, 0.0, 0.5, 0.0], [0.5, 0.0, 1.0, 0.0]])
    graded = progress_rewards(
        embeddings, success, task, clustering="alignment", moments=2, references=(line, np.array(["a", "a"]))
    )
    assert graded.reward[0] == 1.0 and graded.reward[4] == 0.0 and np.isnan(graded.distance[4])
    # The nearest three of (0.9, 0.2): two ends at (1, 0), time 1, and one of the two at (0.5, 0), time 0 or 1.
    assert graded.distance[1] in (0.0, pytest.approx(1 / 3))
    assert graded.reward[1] > graded.reward[2] and graded.reward[1] > graded.reward[3]
    assert graded.n_clusters == {"a": 3, "b": 0}


def test_alignment_works_with_the_replay_and_the_public_formula():
    embeddings, success, task = batch()
    replay = ReferenceReplay(4)
    replay.add(embeddings, success, task)
    only = ~success
    graded = progress_rewards(
        embeddings[only], success[only], task[only], formula="siirl", clustering="alignment", moments=2,
        references=replay.references(),
    )  # fmt: skip
    assert graded.reward.max() < 0.6 and graded.reward[3] == 0.0


@pytest.mark.parametrize("moments", [None, 0, 3])
def test_the_number_of_moments_must_divide_an_embedding(moments):
    with pytest.raises(SrpoError, match="needs moments="):
        progress_rewards(*batch(), clustering="alignment", moments=moments)
