"""The progress reward by the paper's distance against numbers worked out by hand, and its invariances.

(By coverage: test_coverage.py.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from srpo import rewards
from srpo.algorithms import group_advantages
from srpo.rewards import ProgressRewards, progress_curve, sparse_rewards
from srpo.types import SrpoError


def progress_rewards(*arguments: Any, **options: Any) -> ProgressRewards:
    """With the paper's clustering unless a test says otherwise."""
    return rewards.progress_rewards(*arguments, **{"clustering": "dbscan", **options})


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def batch(seed: int, n: int = 24, dims: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dims)) + 3.0, rng.random(n) < 0.4, rng.integers(0, 3, n)


# One success at (1, 0); failures at L2 distance 1, 2 and 3 of it, squared 1, 4 and 9.
LINE = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 2.0], [4.0, 0.0]])
LINE_SUCCESS = np.array([True, False, False, False])


def test_paper_formula_by_hand() -> None:
    graded = progress_rewards(LINE, LINE_SUCCESS, ["a"] * 4)
    # d = 1, 4, 9: mean 14/3; variance (1 + 16 + 81)/3 - (14/3)^2 = 98/3 - 196/9 = 98/9, std = 3.29983.
    # z = -1.11117, -0.20203, 1.31317; 0.8 sigmoid(-z) = 0.60188, 0.44027, 0.16956.
    np.testing.assert_allclose(graded.distance, [np.nan, 1.0, 4.0, 9.0])
    std = math.sqrt(98) / 3
    expected = [1.0, *(0.8 * sigmoid((14 / 3 - d) / std) for d in (1, 4, 9))]
    np.testing.assert_allclose(graded.reward, expected, rtol=1e-12)
    np.testing.assert_allclose(graded.reward, [1.0, 0.60188, 0.44027, 0.16956], atol=1e-5)
    assert graded.n_clusters == {"a": 1}


def test_siirl_formula_by_hand() -> None:
    graded = progress_rewards(LINE, LINE_SUCCESS, ["a"] * 4, formula="siirl")
    # Plain L2 1, 2, 3 -> min-max 0, 0.5, 1 -> 0.6 sigmoid(5), 0.6 sigmoid(0), 0.6 sigmoid(-5).
    np.testing.assert_allclose(graded.distance, [np.nan, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(graded.reward, [1.0, 0.6 * sigmoid(5), 0.3, 0.6 * sigmoid(-5)], rtol=1e-12)
    np.testing.assert_allclose(graded.reward, [1.0, 0.595984, 0.3, 0.004016], atol=1e-6)


def test_failures_are_compared_with_the_nearest_centre() -> None:
    # Two pairs of successes around (0, 1) and (10, 1), the centres. The failures are 1 above the first and
    # 2 above the second: d = 1 and 4; z = -1 and 1.
    points = np.array([[0.0, 0.9], [0.0, 1.1], [10.0, 0.9], [10.0, 1.1], [0.0, 2.0], [10.0, 3.0]])
    graded = progress_rewards(points, [True] * 4 + [False] * 2, [7] * 6)
    np.testing.assert_allclose(graded.distance[4:], [1.0, 4.0])
    np.testing.assert_allclose(graded.reward[4:], [0.8 * sigmoid(1), 0.8 * sigmoid(-1)])
    assert graded.n_clusters == {7: 2}
    # One mean at (5, 1): both failures are 25 + 1 and 25 + 4 away.
    mean = progress_rewards(points, [True] * 4 + [False] * 2, [7] * 6, clustering="mean")
    np.testing.assert_allclose(mean.distance[4:], [26.0, 29.0])
    # Nearest success: (0, 1.1) is 0.9 from (0, 2), (10, 1.1) is 1.9 from (10, 3).
    nearest = progress_rewards(points, [True] * 4 + [False] * 2, [7] * 6, clustering="nearest")
    np.testing.assert_allclose(nearest.distance[4:], [0.81, 3.61])
    assert (mean.n_clusters, nearest.n_clusters) == ({7: 1}, {7: 4})


@pytest.mark.parametrize(("formula", "middle"), [("paper", 0.4), ("siirl", 0.3)])
def test_failures_without_spread_are_in_the_middle(formula: str, middle: float) -> None:
    lone = progress_rewards(LINE[:2], [True, False], ["a", "a"], formula=formula)
    assert lone.reward.tolist() == [1.0, middle]
    # All three failures are 1 away from the success at (1, 0).
    points = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
    equal = progress_rewards(points, LINE_SUCCESS, ["a"] * 4, formula=formula)
    assert equal.reward.tolist() == [1.0, middle, middle, middle]


@pytest.mark.parametrize("formula", ["paper", "siirl"])
def test_tasks_do_not_mix_and_a_task_without_success_gets_nothing(formula: str) -> None:
    task = np.array(["a", "a", "b", "b"])
    graded = progress_rewards(LINE, LINE_SUCCESS, task, formula=formula)
    # In task b nothing succeeded: reward 0 and no distance, although task a has a success.
    assert graded.reward[2:].tolist() == [0.0, 0.0]
    assert np.isnan(graded.distance[[0, 2, 3]]).all() and graded.distance[1] == 1.0
    assert graded.n_clusters == {"a": 1, "b": 0}


def test_references_stand_in_for_missing_successes() -> None:
    failures = LINE[1:]
    known = (LINE[:1].astype(np.float32), ["a"])
    graded = progress_rewards(failures, [False] * 3, ["a"] * 3, references=known)
    same = progress_rewards(LINE, LINE_SUCCESS, ["a"] * 4)
    np.testing.assert_array_equal(graded.reward, same.reward[1:])
    assert graded.n_clusters == {"a": 1}
    # References of another task are of no use.
    other = progress_rewards(failures, [False] * 3, ["a"] * 3, references=(LINE[:1], ["b"]))
    assert other.reward.tolist() == [0.0] * 3 and other.n_clusters == {"a": 0}
    # They add to the batch's own successes: centres at (1, 0) and (4, 0) put (4, 0) at distance 0.
    both = progress_rewards(LINE, LINE_SUCCESS, ["a"] * 4, references=(LINE[3:], ["a"]))
    assert both.distance[3] == 0.0 and both.n_clusters == {"a": 2}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_success=st.integers(1, 12), dims=st.sampled_from([1, 3, 64]))
@pytest.mark.filterwarnings("error")
def test_siirl_agrees_with_a_straight_recomputation(seed: int, n_success: int, dims: int) -> None:
    from scipy.special import expit
    from sklearn.cluster import DBSCAN
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n_success + 7, dims)) + 5
    success = np.arange(len(points)) < n_success
    good, bad = points[success], points[~success]
    scaled = StandardScaler().fit_transform(good)
    labels = DBSCAN(eps=0.5, min_samples=2).fit(scaled).labels_
    centres = [good[labels == k].mean(0) for k in sorted(set(labels) - {-1})] or [good.mean(0)]
    d = np.min([np.sqrt(((bad - c) ** 2).sum(1)) for c in centres], axis=0)
    d = (d - d.min()) / (d.max() - d.min()) if d.max() - d.min() >= 1e-6 else np.full(len(d), 0.5)
    graded = progress_rewards(points, success, [0] * len(points), formula="siirl")
    np.testing.assert_allclose(graded.reward[~success], 0.6 * expit(10 * (0.5 - d)), rtol=1e-6)
    assert graded.n_clusters == {0: len(centres)}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    alpha=st.sampled_from([0.3, 0.8, 1.0]),
    formula=st.sampled_from(["paper", "siirl"]),
    clustering=st.sampled_from(["dbscan", "nearest", "mean"]),
)
def test_order_and_range(seed: int, alpha: float, formula: str, clustering: str) -> None:
    points, success, task = batch(seed)
    graded = progress_rewards(points, success, task, formula=formula, alpha=alpha, clustering=clustering)
    assert (graded.reward[success] == 1.0).all()
    known = ~np.isnan(graded.distance)
    ceiling = alpha if formula == "paper" else 0.6
    assert ((graded.reward[known] > 0) & (graded.reward[known] < ceiling)).all()
    assert (graded.reward[~success & ~known] == 0.0).all()
    for name in set(task):
        of_task = known & (task == name)
        order = np.argsort(graded.distance[of_task])
        assert (np.diff(graded.reward[of_task][order]) <= 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), formula=st.sampled_from(["paper", "siirl"]))
def test_order_of_episodes_does_not_matter(seed: int, formula: str) -> None:
    points, success, task = batch(seed)
    order = np.random.default_rng(seed).permutation(len(points))
    straight = progress_rewards(points, success, task, formula=formula)
    shuffled = progress_rewards(points[order], success[order], task[order], formula=formula)
    np.testing.assert_allclose(shuffled.reward, straight.reward[order], rtol=1e-9)
    assert shuffled.n_clusters == straight.n_clusters


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.01, 1.0, 1000.0]))
def test_paper_rewards_do_not_depend_on_offset_rotation_or_unit(seed: int, scale: float) -> None:
    points, success, task = batch(seed)
    turn = ortho_group.rvs(points.shape[1], random_state=seed)
    offset = np.random.default_rng(seed).standard_normal(points.shape[1])
    moved = progress_rewards(scale * (points @ turn + 5 * offset), success, task)
    np.testing.assert_allclose(moved.reward, progress_rewards(points, success, task).reward, rtol=1e-7)


def test_a_constant_failure_reward_is_binary_grpo() -> None:
    # Whatever all failures of a mixed group get, normalisation removes it.
    success = np.array([True, False, False, True, False, False, False, False])
    group = np.zeros(8, dtype=int)
    binary = group_advantages(sparse_rewards(success), group)
    for constant in (0.1, 0.4, 0.79):
        np.testing.assert_allclose(group_advantages(np.where(success, 1.0, constant), group), binary, rtol=1e-12)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_broken_embedding_is_an_error_that_names_the_row(bad: float) -> None:
    points = LINE.copy()
    points[2] = bad
    with pytest.raises(SrpoError, match=r"row 2 .*check its frames"):
        progress_rewards(points, LINE_SUCCESS, ["a"] * 4)
    with pytest.raises(SrpoError, match="references: row 2"):
        progress_rewards(LINE, LINE_SUCCESS, ["a"] * 4, references=(points, ["a"] * 4))


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((LINE[0], [True], ["a"]), {}, r"shape \(N, D\)"),
        ((LINE, [True] * 3, ["a"] * 4), {}, "one True or False per episode"),
        ((LINE, [True] * 4, ["a"] * 3), {}, "one task per episode"),
        ((LINE, [True] * 4, [["a"]] * 4), {}, "strings or integers"),
        ((LINE, [True] * 4, ["a"] * 4), {"formula": "papr"}, "paper or siirl"),
        ((LINE, [True] * 4, ["a"] * 4), {"clustering": "kmeans"}, "dbscan, nearest, mean"),
        ((LINE, [True] * 4, ["a"] * 4), {"alpha": 1.2}, r"\(0, 1\]"),
        ((LINE, [True] * 4, ["a"] * 4), {"references": (np.ones((2, 5)), ["a", "a"])}, "one world model"),
    ],
)
def test_bad_input_is_one_sentence_with_a_remedy(arguments: tuple, options: dict, words: str) -> None:
    with pytest.raises(SrpoError, match=words):
        progress_rewards(*arguments, **options)


def test_sparse_rewards() -> None:
    rewards = sparse_rewards([True, False, True])
    assert rewards.tolist() == [1.0, 0.0, 1.0] and rewards.dtype == np.float64
    with pytest.raises(SrpoError, match=r"shape \(N,\)"):
        sparse_rewards(np.ones((2, 2)))


def test_progress_curve_by_hand() -> None:
    # Squared distances to (1, 0): 16, 4, 9, 1. Range 15: (16 - d) / 15.
    windows = np.array([[5.0, 0.0], [1.0, 2.0], [4.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(progress_curve(windows, np.array([1.0, 0.0])), [0.0, 12 / 15, 7 / 15, 1.0])
    # Of two centres the nearer counts: squared distances to (5, 0) and (1, 1): 0, 1, 1, 0.
    two = progress_curve(windows, np.array([[5.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(two, [1.0, 0.0, 0.0, 1.0])


def test_progress_curve_on_a_common_scale() -> None:
    # Squared distances to 0: 16, 4, 1; with 1 at a distance of 0 and 0 at 8, the first is beyond the scale.
    curve = progress_curve(np.array([[4.0], [2.0], [1.0]]), np.array([0.001]), scale=(0.0, 8.0))
    np.testing.assert_allclose(curve, [0.0, 0.5, 7 / 8], atol=2e-3)


def test_progress_curve_of_a_success_ends_at_one() -> None:
    windows = np.cumsum(np.random.default_rng(0).standard_normal((10, 5)), axis=0) + 20
    curve = progress_curve(windows, windows[-1])
    assert curve[-1] == 1.0 and curve.min() == 0.0 and ((curve >= 0) & (curve <= 1)).all()


def test_progress_curve_without_movement_is_flat() -> None:
    assert progress_curve(np.ones((4, 3)), np.full(3, 2.0)).tolist() == [0.0] * 4


def test_progress_curve_refuses_other_dimensions() -> None:
    with pytest.raises(SrpoError, match="same world model"):
        progress_curve(np.ones((4, 3)), np.ones(2))
