"""Cross-entropy on action tokens, with one-hot, smoothed and ordinal targets."""

from __future__ import annotations

import math

import pytest
import torch

from srpo.algorithms import behaviour_cloning_loss
from srpo.types import SrpoError


def test_one_hot_agrees_with_torch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 9, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 9, (4, 3)).to(torch.int16)
    mask = torch.rand(4, 3) < 0.6
    for smoothing in (0.0, 0.1):
        expected = torch.nn.functional.cross_entropy(logits[mask], tokens[mask].long(), label_smoothing=smoothing)
        result = behaviour_cloning_loss(logits, tokens, mask, label_smoothing=smoothing)
        torch.testing.assert_close(result.loss, expected)


def test_ordinal_targets_by_hand() -> None:
    # Bins 0, 1, 2, token 0, sigma 1: weights 1, e^-1/2, e^-2 = 1, 0.606531, 0.135335, sum 1.741866.
    # Log-probabilities 0.5, 0.25, 0.25: loss (log 2 + (0.606531 + 0.135335) log 4) / 1.741866 = 0.988361.
    logits = torch.tensor([[[0.5, 0.25, 0.25]]], dtype=torch.float64).log()
    result = behaviour_cloning_loss(logits, torch.tensor([[0]]), torch.ones(1, 1), bin_sigma=1.0)
    expected = (math.log(2) + (math.exp(-0.5) + math.exp(-2)) * math.log(4)) / (1 + math.exp(-0.5) + math.exp(-2))
    assert result.loss.item() == pytest.approx(expected)
    assert expected == pytest.approx(0.988361, abs=1e-6)


def test_ordinal_targets_prefer_a_near_miss() -> None:
    tokens, mask = torch.tensor([[100]]), torch.ones(1, 1)

    def loss(peak: int, sigma: float) -> float:
        logits = torch.zeros(1, 1, 256)
        logits[0, 0, peak] = 5.0
        return behaviour_cloning_loss(logits, tokens, mask, bin_sigma=sigma).loss.item()

    assert loss(100, 2.0) < loss(101, 2.0) < loss(103, 2.0) < loss(150, 2.0)
    assert loss(101, 0.0) == pytest.approx(loss(150, 0.0))
    # A very narrow Gaussian is the one-hot target.
    assert loss(100, 0.05) == pytest.approx(loss(100, 0.0))


def test_least_loss_is_reached_at_the_targets_themselves() -> None:
    k = torch.arange(16, dtype=torch.float64)
    target = torch.softmax(-((k - 6) ** 2) / (2 * 1.5**2), 0)
    logits = target.log()[None, None].clone().requires_grad_()
    result = behaviour_cloning_loss(logits, torch.tensor([[6]]), torch.ones(1, 1), bin_sigma=1.5)
    assert result.loss.item() == pytest.approx(-(target * target.log()).sum().item())
    result.loss.backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


def test_accuracy_and_within_bins() -> None:
    # Most likely bins 3, 4, 7, 0 for the tokens 3, 3, 3, 3: errors 0, 1, 4, 3; the last does not count.
    logits = torch.nn.functional.one_hot(torch.tensor([[3, 4], [7, 0]]), 10).double() * 9
    mask = torch.tensor([[True, True], [True, False]])
    result = behaviour_cloning_loss(logits, torch.full((2, 2), 3), mask, within_bins=1)
    assert result.diagnostics()["accuracy"] == pytest.approx(1 / 3)
    assert result.diagnostics()["within"] == pytest.approx(2 / 3)


def test_masked_entries_contribute_nothing_whatever_they_hold() -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 2, 5)
    tokens = torch.tensor([[1, 4], [2, 0]])
    mask = torch.tensor([[True, False], [True, False]])
    clean = behaviour_cloning_loss(logits, tokens, mask, bin_sigma=1.0)
    holed_logits, holed_tokens = logits.clone(), tokens.clone()
    holed_logits[:, 1], holed_tokens[:, 1] = float("nan"), -7
    holed_logits.requires_grad_()
    holed = behaviour_cloning_loss(holed_logits, holed_tokens, mask, bin_sigma=1.0)
    assert clean.diagnostics() == holed.diagnostics()
    holed.loss.backward()
    assert holed_logits.grad is not None
    assert (holed_logits.grad[:, 1] == 0).all() and (holed_logits.grad[:, 0] != 0).any()


def test_an_empty_mask_is_a_loss_of_zero() -> None:
    logits = torch.randn(1, 2, 3, requires_grad=True)
    result = behaviour_cloning_loss(logits, torch.zeros(1, 2), torch.zeros(1, 2))
    result.loss.backward()
    assert result.loss.item() == 0.0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": torch.tensor([[3]])}, r"outside 0\.\.2"),
        ({"tokens": torch.tensor([[-1]])}, r"outside 0\.\.2"),
        ({"tokens": torch.zeros(2, 1)}, "do not fit"),
        ({"logits": torch.full((1, 1, 3), float("nan"))}, "hold NaN"),
        ({"bin_sigma": -1.0}, "0 or more"),
        ({"label_smoothing": 1.0}, r"\[0, 1\)"),
    ],
)
def test_bad_input_is_one_sentence_with_a_remedy(change: dict, words: str) -> None:
    arguments = {"logits": torch.zeros(1, 1, 3), "tokens": torch.tensor([[0]]), "mask": torch.ones(1, 1)}
    with pytest.raises(SrpoError, match=words):
        behaviour_cloning_loss(**(arguments | change))
