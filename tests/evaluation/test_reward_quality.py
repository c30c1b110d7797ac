"""Measures of a progress reward against numbers worked out by hand, and their invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from srpo.evaluation.reward_quality import (
    auc,
    jensen_shannon,
    length_share,
    maximum_mean_discrepancy,
    mean_auc,
    monotonicity,
    rank_correlation,
    spearman,
    standardised_mean_difference,
    time_correlation,
)
from srpo.types import SrpoError

# Few different values, so that ties are common.
VALUES = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=12)
SAMPLES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12)


def pairs(draw_from: st.SearchStrategy = VALUES) -> st.SearchStrategy:
    return draw_from.flatmap(
        lambda a: st.tuples(st.just(a), st.lists(st.integers(-4, 4).map(float), min_size=len(a), max_size=len(a)))
    )


class TestSpearman:
    def test_by_hand(self) -> None:
        assert spearman([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)  # 1 - 6 (0 + 1 + 1) / (3 * 8)
        # Ranks less their means: -1, 0.5, 0.5 and -1, 0, 1.
        assert spearman([1, 2, 2], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3.0))

    def test_nothing_is_known_of_a_constant_or_of_one_value(self) -> None:
        assert math.isnan(spearman([1, 1, 1], [1, 2, 3])) and math.isnan(spearman([1], [2]))

    @given(pairs())
    def test_equals_scipys_and_knows_order_only(self, values: tuple[list[float], list[float]]) -> None:
        a, b = map(np.array, values)
        ours = spearman(a, b)
        if np.ptp(a) and np.ptp(b):
            assert ours == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)
            assert spearman(np.exp(a), b) == pytest.approx(ours)
            assert spearman(-a, b) == pytest.approx(-ours)
        else:
            assert math.isnan(ours)

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(SrpoError, match="one of each per episode"):
            spearman([1, 2], [1, 2, 3])
        with pytest.raises(SrpoError, match="finite numbers"):
            spearman([1, np.nan], [1, 2])


class TestCurves:
    def test_by_hand(self) -> None:
        curves = [np.array([0.0, 0.5, 0.2, 1.0]), np.array([0.0, 1.0]), np.array([0.3])]
        assert time_correlation(curves) == pytest.approx((0.8 + 1.0) / 2)  # 1 - 6 (0 + 1 + 1 + 0) / (4 * 15)
        assert monotonicity(curves) == pytest.approx((2 / 3 + 1) / 2)

    def test_standing_still_is_no_progress(self) -> None:
        assert time_correlation([np.zeros(5)]) == 0.0 and monotonicity([np.zeros(5)]) == 0.0

    def test_without_episodes_nothing_is_known(self) -> None:
        assert math.isnan(time_correlation([])) and math.isnan(monotonicity([np.zeros(1)]))

    @given(st.lists(VALUES.map(np.array), min_size=1, max_size=5))
    def test_limits(self, curves: list[np.ndarray]) -> None:
        assert -1 <= time_correlation(curves) <= 1 and 0 <= monotonicity(curves) <= 1


class TestTwoSamples:
    def test_discrepancy_by_hand(self) -> None:
        # Pooled distances of 0, 0 and 2, 2: 0, 2, 2, 2, 2, 0, median 2 = w; k = 1 within and exp(-1/2) between.
        expected = math.sqrt(2 - 2 * math.exp(-0.5))
        assert maximum_mean_discrepancy([0, 0], [2, 2]) == pytest.approx(expected)
        assert maximum_mean_discrepancy([1, 1], [1, 1]) == 0.0
        assert math.isnan(maximum_mean_discrepancy([], [1]))

    def test_divergence_by_hand(self) -> None:
        assert jensen_shannon([0.1, 0.2], [0.9, 1.0], bins=2) == pytest.approx(1.0)
        # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): H(m) = 2 - 3/4 log2 3, H(p) = 0, H(q) = 1.
        assert jensen_shannon([0.1, 0.2], [0.3, 0.9], bins=2) == pytest.approx(2 - 0.75 * math.log2(3) - 0.5)
        assert math.isnan(jensen_shannon([0.1], []))

    def test_mean_difference_by_hand(self) -> None:
        # Means 2 and 6, variances 2 and 8 (N - 1): -4 / sqrt(5).
        assert standardised_mean_difference([1, 3], [4, 8]) == pytest.approx(-4 / math.sqrt(5))
        assert standardised_mean_difference([1, 1], [0, 0]) == math.inf
        assert standardised_mean_difference([1, 1], [1, 1]) == 0.0
        assert math.isnan(standardised_mean_difference([1], [0, 1]))

    @given(SAMPLES, SAMPLES)
    def test_symmetric_and_within_limits(self, a: list[float], b: list[float]) -> None:
        for measure, largest in ((maximum_mean_discrepancy, math.sqrt(2)), (jensen_shannon, 1.0)):
            value = measure(a, b)
            assert 0.0 <= value <= largest + 1e-9
            assert value == pytest.approx(measure(b, a), abs=1e-7)
            assert measure(a, a) == pytest.approx(0.0, abs=1e-7)

    @given(st.lists(st.integers(0, 8), min_size=2, max_size=9), st.lists(st.integers(0, 8), min_size=2, max_size=9))
    def test_mean_difference_knows_no_unit(self, a: list[int], b: list[int]) -> None:
        one, two = np.array(a, float), np.array(b, float)
        value = standardised_mean_difference(one, two)
        assert standardised_mean_difference(4 * one + 1, 4 * two + 1) == pytest.approx(value)
        assert standardised_mean_difference(two, one) == pytest.approx(-value)


class TestRankCorrelation:
    def test_tasks_count_once_each(self) -> None:
        score = [1, 2, 3, 4, 5, 6, 7, 9]
        truth = [1, 2, 3, 4, 2, 1, 5, 5]
        found = rank_correlation(score, truth, ["a"] * 4 + ["b"] * 2 + ["c", "d"])
        assert found.per_task == pytest.approx((1.0 - 1.0) / 2) and found.tasks == 2
        assert found.pooled == pytest.approx(stats.spearmanr(score, truth).statistic)

    def test_a_constant_reward_orders_nothing(self) -> None:
        found = rank_correlation([0.4, 0.4, 0.4], [1, 2, 3], ["a"] * 3)
        assert math.isnan(found.per_task) and math.isnan(found.pooled) and found.tasks == 0


class TestAuc:
    def test_by_hand(self) -> None:
        # Successes 3 and 1, failures 2 and 1: won 1 + 1 + 0 + 1/2 of 4.
        assert auc([3, 1, 2, 1], [True, True, False, False]) == pytest.approx(2.5 / 4)
        assert math.isnan(auc([1, 2], [True, True]))

    def test_tasks_count_once_each(self) -> None:
        score, success = [1, 0, 0, 0, 0, 1, 5], [True, False, False, False, True, False, True]
        assert mean_auc(score, success, ["a"] * 4 + ["b"] * 2 + ["c"]) == pytest.approx(0.5)
        assert math.isnan(mean_auc([1.0], [True], ["a"]))

    @given(pairs())
    def test_is_the_share_of_pairs_and_knows_order_only(self, values: tuple[list[float], list[float]]) -> None:
        score, success = np.array(values[0]), np.array(values[1]) > 0
        value = auc(score, success)
        if success.all() or not success.any():
            assert math.isnan(value)
            return
        won, lost = score[success][:, None], score[~success]
        assert value == pytest.approx(((won > lost) + 0.5 * (won == lost)).mean())
        assert auc(-score, success) == pytest.approx(1 - value)
        assert auc(np.exp(score), success) == pytest.approx(value)


class TestLengthShare:
    def test_length_itself_explains_all_of_it(self) -> None:
        found = length_share([-1, -2, -3, -4], [4, 3, 1, 2], [1, 2, 3, 4])
        assert found.raw == pytest.approx(0.8) and found.length_alone == pytest.approx(0.8)
        assert found.without_length == 0.0 and found.share == 1.0

    def test_a_constant_length_explains_nothing(self) -> None:
        found = length_share([1, 2, 3, 4], [1, 3, 2, 4], [520] * 4)
        assert (found.raw, found.length_alone, found.without_length) == pytest.approx((0.8, 0.0, 0.8))
        assert found.share == pytest.approx(0.0)

    def test_by_hand(self) -> None:
        # r_st = 0.8 (d^2 = 2), r_sl = 0.4 (d^2 = 6), r_tl = 0.8 (d^2 = 2).
        score, truth, length = [1, 2, 3, 4], [1, 3, 2, 4], [2, 3, 1, 4]
        found = length_share(score, truth, length)
        without = (0.8 - 0.4 * 0.8) / math.sqrt(1 - 0.16)
        assert (found.raw, found.length_alone) == pytest.approx((0.8, 0.8))
        assert found.without_length == pytest.approx(without)
        assert found.share == pytest.approx(1 - without**2 / 0.64)

    def test_nothing_is_known_of_a_constant_score(self) -> None:
        found = length_share([1, 1, 1], [1, 2, 3], [1, 2, 3])
        assert math.isnan(found.raw) and math.isnan(found.share)

    def test_equals_the_regression_of_ranks(self) -> None:
        rng = np.random.default_rng(0)
        length = rng.standard_normal(40)
        truth = length + rng.standard_normal(40)
        score = 0.5 * length + 0.5 * truth + rng.standard_normal(40)
        s, t, w = (stats.rankdata(v) - 20.5 for v in (score, truth, length))
        rest = s - w * (s @ w) / (w @ w)
        assert length_share(score, truth, length).without_length == pytest.approx(np.corrcoef(rest, t)[0, 1])

    @settings(deadline=None)
    @given(pairs(), st.integers(0, 10_000))
    def test_limits_and_order_only(self, values: tuple[list[float], list[float]], seed: int) -> None:
        length = np.random.default_rng(seed).integers(0, 5, len(values[0]))
        found = length_share(values[0], values[1], length)
        if math.isnan(found.raw):
            return
        assert -1 - 1e-9 <= found.without_length <= 1 + 1e-9
        assert math.isnan(found.share) or 0.0 <= found.share <= 1.0
        scaled = length_share(3 * np.array(values[0]) + 2, values[1], -2.0 * length)
        assert (scaled.raw, scaled.length_alone, scaled.without_length) == pytest.approx(
            (found.raw, found.length_alone, found.without_length), abs=1e-9
        )
