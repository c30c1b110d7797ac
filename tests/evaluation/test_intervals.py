"""Confidence intervals against published values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from srpo.evaluation.intervals import Interval, bootstrap_mean, stratified_bootstrap, wilson
from srpo.types import SrpoError


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        # R. G. Newcombe 1998, Statistics in Medicine 17, table I, method 3 (no continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(n=st.integers(1, 2000), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_wilson_agrees_with_scipy_and_holds_the_rate(n: int, share: float, confidence: float) -> None:
    successes = round(share * n)
    low, high = wilson(successes, n, confidence)
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0.0 <= low <= successes / n <= high <= 1.0


def test_wilson_without_episodes_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 95.0)])
def test_wilson_refuses_the_impossible(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(SrpoError, match="impossible"):
        wilson(successes, n, confidence)


def test_bootstrap_of_two_values() -> None:
    # Means of 2 draws from {0, 1}: 0, 0.5, 1 with probability 1/4, 1/2, 1/4. So the middle 40 % are all 0.5
    # and the middle 95 % reach from 0 to 1.
    assert bootstrap_mean([0.0, 1.0], confidence=0.4) == (0.5, 0.5)
    assert bootstrap_mean([0.0, 1.0]) == (0.0, 1.0)


def test_bootstrap_of_many_values_is_the_normal_interval() -> None:
    # 400 values of mean 0.5 and std 0.5: standard error 0.025, 1.96 of it 0.049.
    low, high = bootstrap_mean(np.arange(400) % 2)
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.004)


def test_bootstrap_is_repeatable_and_degenerates_to_the_value() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean([0.7]) == pytest.approx((0.7, 0.7))


def test_bootstrap_in_blocks_draws_all_resamples() -> None:
    # 300,000 values: 6 resamples to a block. The standard error is 0.2887 / sqrt(300,000) = 0.0005.
    low, high = bootstrap_mean(np.linspace(0, 1, 300_000), resamples=20)
    assert 0.497 < low < 0.5 < high < 0.503


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0]]])
def test_bootstrap_refuses_what_is_no_list_of_numbers(values: list) -> None:
    with pytest.raises(SrpoError, match="finite numbers"):
        bootstrap_mean(values)


class TestStratifiedBootstrap:
    values = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 30.0])
    tasks = ("a", "a", "a", "b", "b", "b")

    def mean(self, rows: np.ndarray) -> float:
        return float(self.values[rows].mean())

    def test_one_episode_a_task_is_always_drawn(self) -> None:
        found = stratified_bootstrap(self.mean, range(6), resamples=20)
        assert (found.value, found.low, found.high) == (11.0, 11.0, 11.0)

    def test_each_task_keeps_its_number_of_episodes(self) -> None:
        seen = []

        def measure(rows: np.ndarray) -> float:
            seen.append(sorted(rows // 3))
            return 0.0

        stratified_bootstrap(measure, self.tasks, resamples=20)
        assert all(s == [0, 0, 0, 1, 1, 1] for s in seen) and len(seen) == 21

    def test_seeded_and_near_the_normal_interval(self) -> None:
        rng = np.random.default_rng(0)
        sample = rng.standard_normal(200)
        found = stratified_bootstrap(lambda rows: float(sample[rows].mean()), ["a"] * 200, resamples=2000)
        half = 1.96 * sample.std() / np.sqrt(200)
        assert found.low == pytest.approx(sample.mean() - half, abs=0.02)
        assert found.high == pytest.approx(sample.mean() + half, abs=0.02)
        again = stratified_bootstrap(lambda rows: float(sample[rows].mean()), ["a"] * 200, resamples=2000)
        other = stratified_bootstrap(lambda rows: float(sample[rows].mean()), ["a"] * 200, resamples=2000, seed=1)
        assert found == again != other

    def test_unknown_resamples_are_left_out_unless_they_are_the_half(self) -> None:
        def known_if(test: Callable[[np.ndarray], bool]) -> Interval:
            return stratified_bootstrap(lambda rows: 5.0 if test(rows) else math.nan, self.tasks, resamples=200)

        rare = known_if(lambda rows: len(set(rows)) > 2)
        assert (rare.value, rare.low, rare.high) == (5.0, 5.0, 5.0)
        mostly_unknown = known_if(lambda rows: len(set(rows)) == 6)
        assert mostly_unknown.value == 5.0 and math.isnan(mostly_unknown.low) and math.isnan(mostly_unknown.high)

    def test_infinite_values_do_not_become_unknown(self) -> None:
        found = stratified_bootstrap(lambda rows: math.inf if 0 in rows else 1.0, self.tasks, resamples=200)
        assert (found.low, found.high) == (1.0, math.inf)

    def test_impossible_settings_are_refused(self) -> None:
        with pytest.raises(SrpoError, match="one or more episodes"):
            stratified_bootstrap(self.mean, [])
        with pytest.raises(SrpoError, match="confidence"):
            stratified_bootstrap(self.mean, self.tasks, confidence=95)
