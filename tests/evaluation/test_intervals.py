"""Confidence intervals against published values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from srpo.evaluation.intervals import bootstrap_mean, wilson
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
