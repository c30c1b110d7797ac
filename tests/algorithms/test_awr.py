"""Advantage-weighted regression on progress, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from srpo.algorithms import advantage_weights, normalised, step_advantages, weighted_regression_loss
from srpo.types import SrpoError


def test_step_advantages_are_differences() -> None:
    np.testing.assert_allclose(step_advantages([0.0, 0.25, 0.2, 1.0]), [0.25, -0.05, 0.8])
    assert step_advantages([0.3]).tolist() == []
    with pytest.raises(SrpoError, match="one episode"):
        step_advantages([[0.0, 1.0]])  # type: ignore[list-item]
    with pytest.raises(SrpoError, match="finite"):
        step_advantages([0.0, float("nan")])


def test_normalised_over_the_batch() -> None:
    # Mean 2, std sqrt(8/3) for 0, 2, 4.
    np.testing.assert_allclose(normalised([0.0, 2.0, 4.0]), np.array([-2, 0, 2]) / math.sqrt(8 / 3))
    assert normalised([0.3, 0.3]).tolist() == [0.0, 0.0] and normalised([]).tolist() == []


def test_weights_by_hand() -> None:
    weights = advantage_weights([0.0, 1.0, -1.0, 100.0], temperature=0.5, max_weight=10.0)
    np.testing.assert_allclose(weights, [1.0, math.exp(2), math.exp(-2), 10.0])
    # The ceiling keeps what would overflow finite.
    assert advantage_weights([1e6], max_weight=20.0).tolist() == pytest.approx([20.0])
    for options in ({"temperature": 0.0}, {"max_weight": 0.0}):
        with pytest.raises(SrpoError, match="positive"):
            advantage_weights([0.0], **options)
    with pytest.raises(SrpoError, match="not finite"):
        advantage_weights([float("inf")])


def test_loss_by_hand() -> None:
    log_prob = torch.tensor([[-1.0, -2.0], [-3.0, float("nan")]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    # (2 * 1 + 2 * 2 + 0.5 * 3) / 3 = 2.5; gradient -weight / 3.
    loss = weighted_regression_loss(log_prob, torch.tensor([2.0, 0.5]), mask)
    assert loss.item() == pytest.approx(2.5)
    loss.backward()
    torch.testing.assert_close(log_prob.grad, torch.tensor([[-2.0, -2.0], [-0.5, 0.0]]) / 3)
    assert weighted_regression_loss(log_prob, torch.ones(2), torch.zeros(2, 2)).item() == 0.0
    with pytest.raises(SrpoError, match="do not fit"):
        weighted_regression_loss(log_prob, torch.ones(3), mask)
    with pytest.raises(SrpoError, match="NaN"):
        weighted_regression_loss(log_prob, torch.ones(2), torch.ones(2, 2))
