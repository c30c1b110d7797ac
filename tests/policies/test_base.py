"""Sampling of action tokens and their log-probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from srpo.policies.base import LastingNoise, sample_tokens, token_log_probs, token_temperatures

# Three bins with probabilities 1/2, 1/3, 1/6 at temperature 1.
LOGITS = np.log(np.array([3.0, 2.0, 1.0]))


def test_log_probs_worked_out_by_hand() -> None:
    logits = torch.tensor(np.stack([LOGITS, LOGITS]))[None]
    log_prob, entropy = token_log_probs(logits, torch.tensor([[0, 2]], dtype=torch.int16), temperature=1.0)
    np.testing.assert_allclose(log_prob, [[math.log(1 / 2), math.log(1 / 6)]])
    h = -(math.log(1 / 2) / 2 + math.log(1 / 3) / 3 + math.log(1 / 6) / 6)
    np.testing.assert_allclose(entropy, [[h, h]])


def test_temperature_divides_the_logits() -> None:
    # At temperature 1/2 the weights are squared: 9, 4, 1.
    log_prob, _ = token_log_probs(torch.tensor(LOGITS)[None, None], torch.tensor([[1]]), temperature=0.5)
    np.testing.assert_allclose(log_prob, [[math.log(4 / 14)]])


@pytest.mark.parametrize("wanted", [True, False])
def test_entropy_has_a_gradient_only_on_request(wanted: bool) -> None:
    logits = torch.tensor(LOGITS)[None, None].requires_grad_()
    log_prob, entropy = token_log_probs(logits, torch.tensor([[1]]), 1.0, entropy_gradient=wanted)
    assert log_prob.requires_grad and entropy.requires_grad is wanted


def test_greedy_takes_the_most_likely() -> None:
    tokens, log_probs = sample_tokens(np.stack([LOGITS, LOGITS[::-1]]), 0.0, np.random.default_rng(0))
    np.testing.assert_array_equal(tokens, [0, 2])
    np.testing.assert_array_equal(log_probs, [0, 0])
    assert tokens.dtype == np.int16 and log_probs.dtype == np.float32


@pytest.mark.parametrize(("temperature", "weights"), [(1.0, [3, 2, 1]), (0.5, [9, 4, 1])])
def test_samples_have_the_right_frequencies_and_log_probs(temperature: float, weights: list[int]) -> None:
    n, p = 20_000, np.array(weights) / sum(weights)
    tokens, log_probs = sample_tokens(np.tile(LOGITS, (n, 1)), temperature, np.random.default_rng(1))
    counts = np.bincount(tokens, minlength=3)
    # Four standard deviations of a binomial; the draw is seeded.
    assert (np.abs(counts - n * p) < 4 * np.sqrt(n * p * (1 - p))).all()
    np.testing.assert_allclose(log_probs, np.log(p)[tokens], rtol=1e-6)


def test_sampled_log_prob_is_what_the_learner_reads() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (14, 256)).astype(np.float32)
    tokens, log_probs = sample_tokens(logits, 1.6, rng)
    learner, _ = token_log_probs(torch.from_numpy(logits)[None], torch.from_numpy(tokens)[None], 1.6)
    np.testing.assert_allclose(learner[0], log_probs, atol=1e-5)


def test_the_gripper_has_a_temperature_of_its_own() -> None:
    assert token_temperatures(0.5, None, 4, 2).tolist() == [0.5, 0.5, 0.5, 0.5]
    temperatures = token_temperatures(0.5, 1.0, 4, 2)
    assert temperatures.tolist() == [0.5, 1.0, 0.5, 1.0]
    # Weights 9, 4, 1 at temperature 1/2; 3, 2, 1 at 1.
    tokens, log_probs = sample_tokens(np.tile(LOGITS, (4, 1)), temperatures, np.random.default_rng(3))
    weights = 2 * [np.array([9, 4, 1]) / 14, np.array([3, 2, 1]) / 6]
    expected = [math.log(w[t]) for w, t in zip(weights, tokens, strict=True)]
    np.testing.assert_allclose(log_probs, expected, rtol=1e-6)
    logits = torch.tensor(np.tile(LOGITS, (1, 4, 1)))
    learner, _ = token_log_probs(logits, torch.from_numpy(tokens)[None], torch.from_numpy(temperatures))
    np.testing.assert_allclose(learner[0], expected, rtol=1e-6)
    # At one half of the cumulative probability: 9 of 14 is in the first bin, 3 of 6 just so.
    median, _ = sample_tokens(np.tile(LOGITS[::-1], (4, 1)), temperatures, np.random.default_rng(0), median=True)
    assert median.tolist() == [2, 1, 2, 1]


def test_impossible_bins_are_never_drawn_and_huge_logits_do_not_overflow() -> None:
    logits = np.tile([-1e30, 1e4, -1e30], (1000, 1))
    tokens, log_probs = sample_tokens(logits, 1.0, np.random.default_rng(3))
    assert (tokens == 1).all()
    np.testing.assert_array_equal(log_probs, 0)


def test_same_seed_same_tokens() -> None:
    logits = np.random.default_rng(4).normal(size=(14, 256))
    first, again, other = (sample_tokens(logits, 1.0, np.random.default_rng(s))[0] for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_correlated_noise_keeps_each_token_distribution_and_ties_a_dimension() -> None:
    # Two tokens of two bins at even odds: with noise shared within the one dimension they nearly always agree.
    rng = np.random.default_rng(0)
    draws = np.stack([sample_tokens(np.zeros((2, 2)), 1.0, rng, groups=1, correlation=0.98)[0] for _ in range(2000)])
    # Standard error of a mean of 2000 fair coins: 0.011. P(same side) = 1/2 + asin(0.98) / pi = 0.936.
    assert np.abs(draws.mean(0) - 0.5).max() < 0.05
    assert abs((draws[:, 0] == draws[:, 1]).mean() - 0.936) < 0.03
    # Tokens of different dimensions stay independent: agreement of one half.
    draws = np.stack([sample_tokens(np.zeros((2, 2)), 1.0, rng, groups=2, correlation=0.98)[0] for _ in range(2000)])
    assert abs((draws[:, 0] == draws[:, 1]).mean() - 0.5) < 0.05


def test_median_by_hand() -> None:
    # Probabilities (with the peak first) 0.4, 0.3, 0.3 pass one half in the second bin; 0.2, 0.2, 0.6 in the third.
    logits = np.log([[0.4, 0.3, 0.3], [0.2, 0.2, 0.6], [0.6, 0.2, 0.2]])
    tokens, _ = sample_tokens(logits, 1.0, np.random.default_rng(0), median=True)
    np.testing.assert_array_equal(tokens, [1, 2, 0])
    again, _ = sample_tokens(logits, 1.0, np.random.default_rng(1), median=True)
    np.testing.assert_array_equal(tokens, again)


def test_shared_noise_can_be_handed_in() -> None:
    # Wholly correlated noise of +3 and -3 standard deviations: the last bin in one dimension, the first in the other.
    logits, shared = np.zeros((4, 8)), np.array([3.0, -3.0])
    tokens, log_probs = sample_tokens(
        logits, 1.0, np.random.default_rng(0), groups=2, correlation=1 - 1e-9, shared=shared
    )
    assert tokens.tolist() == [7, 0, 7, 0]
    np.testing.assert_allclose(log_probs, -np.log(8), rtol=1e-6)


def test_lasting_noise_is_standard_normal_and_wears_off_geometrically() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(3000):
        noise = LastingNoise(2, 0.8)
        runs.append([noise.next(rng) for _ in range(4)])
    drawn = np.array(runs)  # (3000, 4, 2)
    np.testing.assert_allclose(drawn.std(0), 1.0, atol=0.06)
    for lag in (1, 2, 3):
        products = (drawn[:, 0] * drawn[:, lag]).mean(0)
        np.testing.assert_allclose(products, 0.8**lag, atol=0.08)
    np.testing.assert_allclose((drawn[:, :, 0] * drawn[:, :, 1]).mean(0), 0.0, atol=0.08)
    fresh = LastingNoise(2, 0.0)
    again = np.random.default_rng(5)
    assert fresh.next(np.random.default_rng(5)).tolist() == again.standard_normal(2).tolist()
