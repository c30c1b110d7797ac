"""The clipped objective: values and gradients by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srpo.algorithms import clipped_policy_loss
from srpo.types import SrpoError

NAN, INF = float("nan"), float("inf")


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ratios(values: list, requires_grad: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """log_prob and old_log_prob (-1 everywhere) with the given ratios."""
    return (tensor(values).log() - 1).requires_grad_(requires_grad), torch.full_like(tensor(values), -1.0)


def test_clip_by_hand() -> None:
    new, old = ratios([[1.0, 1.5], [0.5, 1.2], [1.5, 0.5]])
    advantage = tensor([1.0, -2.0, -2.0])
    result = clipped_policy_loss(new, old, advantage, torch.ones(3, 2, dtype=torch.bool))
    # A = 1: 1 and min(1.5, 1.28) = 1.28. A = -2: min(-1, -1.6) = -1.6 and -2.4. A = -2: -3 and -1.6.
    # Sum 1 + 1.28 - 1.6 - 2.4 - 3 - 1.6 = -6.32; the loss is minus its mean over 6 tokens.
    assert result.loss.item() == pytest.approx(6.32 / 6)
    # The clip took effect at three tokens: 1.28, and twice -1.6.
    assert result.clip_fraction.item() == pytest.approx(3 / 6)
    assert (result.ratio_min.item(), result.ratio_max.item()) == pytest.approx((0.5, 1.5))
    # k3: mean of r - 1 - log r.
    k3 = sum(r - 1 - math.log(r) for r in (1.0, 1.5, 0.5, 1.2, 1.5, 0.5)) / 6
    assert result.approx_kl.item() == pytest.approx(k3)
    result.loss.backward()
    # d/dlog_prob of -(r A) / 6 where it is not clipped, 0 where it is.
    expected = tensor([[-1.0, 0.0], [0.0, 2.4], [3.0, 0.0]]) / 6
    torch.testing.assert_close(new.grad, expected)


def test_at_ratio_one_the_gradient_is_the_policy_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 4, 7, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 7, (5, 4))
    advantage, mask = torch.randn(5, dtype=torch.float64), torch.rand(5, 4) < 0.7
    log_prob = torch.log_softmax(logits, -1).gather(-1, tokens[..., None])[..., 0]
    clipped_policy_loss(log_prob, log_prob.detach(), advantage, mask).loss.backward()
    # By hand: d(-A log p) / d logits = A (softmax - onehot), over the number of tokens.
    onehot = torch.nn.functional.one_hot(tokens, 7)
    expected = advantage[:, None, None] * (torch.softmax(logits.detach(), -1) - onehot) * mask[..., None] / mask.sum()
    torch.testing.assert_close(logits.grad, expected)


def test_normalisation_over_tokens_or_decisions() -> None:
    # Ratio 1 everywhere: a token contributes -A. Decision 0 (A = 1) has 3 tokens, decision 1 (A = -1) one,
    # decision 2 none. Tokens: -(3 - 1) / 4 = -0.5. Decisions: -(1 - 1) / 2 = 0.
    new, old = ratios([[1.0] * 3] * 3)
    mask = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 0]]).bool()
    advantage = tensor([1.0, -1.0, 5.0])
    assert clipped_policy_loss(new, old, advantage, mask).loss.item() == pytest.approx(-0.5)
    assert clipped_policy_loss(new, old, advantage, mask, normalise="decision").loss.item() == pytest.approx(0.0)


def test_float_mask_weighs_tokens() -> None:
    # Weights 3 and 1: -(3 * 1 * 1 + 1 * 1.2 * 1) / 4 = -1.05.
    new, old = ratios([[1.0, 1.2]])
    result = clipped_policy_loss(new, old, tensor([1.0]), tensor([[3.0, 1.0]]))
    assert result.loss.item() == pytest.approx(-1.05)


@pytest.mark.parametrize("hole", [NAN, INF, -INF])
def test_masked_entries_contribute_nothing_whatever_they_hold(hole: float) -> None:
    mask = torch.tensor([[True, False], [False, False]])

    def loss(filler: float):
        new = tensor([[-1.0, filler], [filler, filler]]).requires_grad_()
        old, reference = (
            tensor([[-1.2, filler], [filler, filler]]),
            tensor([[-0.9, filler], [filler, filler]]),
        )
        entropy, advantage = tensor([[2.0, filler], [filler, filler]]), tensor([1.0, filler])
        result = clipped_policy_loss(
            new,
            old,
            advantage,
            mask,
            reference_log_prob=reference,
            entropy=entropy,
            kl_weight=0.1,
            entropy_weight=0.01,
        )
        result.loss.backward()
        return result.diagnostics(), new.grad

    (clean, clean_grad), (holed, holed_grad) = loss(0.5), loss(hole)
    assert clean == holed and all(math.isfinite(v) for v in holed.values())
    torch.testing.assert_close(clean_grad, holed_grad)
    assert clean_grad[0, 0] != 0 and (clean_grad.flatten()[1:] == 0).all()


def test_extremes_of_the_ratio_are_those_of_the_tokens_that_count() -> None:
    new, old = ratios([[1.1, 1.2, 9.0, 0.01]])
    result = clipped_policy_loss(new, old, tensor([1.0]), torch.tensor([[True, True, False, False]]))
    assert (result.ratio_min.item(), result.ratio_max.item()) == pytest.approx((1.1, 1.2))


def test_an_empty_mask_is_a_loss_of_zero() -> None:
    new, old = ratios([[1.0, 2.0]])
    for normalise in ("token", "decision"):
        result = clipped_policy_loss(
            new, old, tensor([1.0]), torch.zeros(1, 2), entropy=torch.ones(1, 2), normalise=normalise
        )
        result.loss.backward()
        assert result.diagnostics() == {
            "loss": 0.0, "policy_loss": 0.0, "approx_kl": 0.0, "clip_fraction": 0.0,
            "ratio_min": 1.0, "ratio_max": 1.0, "entropy": 0.0,
        }  # fmt: skip
        assert new.grad is not None and not new.grad.any()


def test_kl_and_entropy_by_hand() -> None:
    # p = 0.5 and reference 0.25 at one token: x = log 0.5, k3 = 0.5 - 1 - log 0.5 = 0.193147.
    new = tensor([[math.log(0.5)]]).requires_grad_()
    result = clipped_policy_loss(
        new, new.detach(), tensor([0.0]), torch.ones(1, 1), reference_log_prob=tensor([[math.log(0.25)]]),
        kl_weight=2.0, entropy=tensor([[0.7]]), entropy_weight=0.1,
    )  # fmt: skip
    assert result.reference_kl is not None and result.entropy is not None
    assert result.reference_kl.item() == pytest.approx(0.193147, abs=1e-6)
    assert result.loss.item() == pytest.approx(2 * 0.193147 - 0.07, abs=1e-6)
    assert result.policy_loss.item() == 0.0
    result.loss.backward()
    # d k3 / d log_prob = 1 - exp(x) = 0.5.
    assert new.grad is not None and new.grad.item() == pytest.approx(2 * 0.5)


def test_the_reference_is_not_read_at_weight_zero() -> None:
    new, old = ratios([[1.0]])
    result = clipped_policy_loss(new, old, tensor([1.0]), torch.ones(1, 1), reference_log_prob=tensor([[NAN]]))
    assert result.reference_kl is None and "reference_kl" not in result.diagnostics()
    assert result.loss.item() == -1.0


def test_huge_ratios_stay_finite() -> None:
    new = tensor([[0.0, 0.0]]).requires_grad_()
    result = clipped_policy_loss(new, tensor([[-2000.0, 0.0]]), tensor([-1.0]), torch.ones(1, 2))
    result.loss.backward()
    assert result.loss.item() == pytest.approx((math.exp(20) + 1) / 2)
    assert new.grad is not None and new.grad.tolist() == [[0.0, 0.5]]


def test_half_precision_is_computed_in_float32() -> None:
    new = torch.full((64, 64), -1.0, dtype=torch.bfloat16, requires_grad=True)
    result = clipped_policy_loss(new, new.detach(), torch.full((64,), 0.1), torch.ones(64, 64, dtype=torch.bool))
    result.loss.backward()
    assert result.loss.dtype == torch.float32 and result.loss.item() == pytest.approx(-0.1, rel=1e-5)
    assert new.grad is not None and new.grad.dtype == torch.bfloat16


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), clip=st.sampled_from([0.05, 0.2, 0.5]))
def test_the_objective_is_a_lower_bound_and_the_order_does_not_matter(seed: int, clip: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    new, old = (torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    advantage = torch.randn(6, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 3, generator=generator) < 0.6
    mask[0, 0] = True
    result = clipped_policy_loss(new, old, advantage, mask, clip_low=clip, clip_high=clip)
    unclipped = -((new - old).exp() * advantage[:, None])[mask].mean()
    assert result.loss >= unclipped - 1e-12
    order = torch.randperm(6, generator=generator)
    again = clipped_policy_loss(new[order], old[order], advantage[order], mask[order], clip_low=clip, clip_high=clip)
    torch.testing.assert_close(again.loss, result.loss)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"log_prob": tensor([[NAN, 0.0]])}, "policy hold NaN"),
        ({"old_log_prob": tensor([[-INF, 0.0]])}, "rollout hold NaN"),
        ({"advantage": tensor([NAN])}, "advantages hold NaN"),
        ({"advantage": tensor([1.0, 2.0])}, "do not fit"),
        ({"mask": torch.ones(2, 2)}, "do not fit"),
        ({"mask": tensor([[-1.0, 1.0]])}, "weights >= 0"),
        ({"kl_weight": 0.1}, "pass reference_log_prob or use 0"),
        ({"entropy_weight": 0.1}, "pass entropy or use 0"),
        ({"entropy": torch.ones(1, 3)}, r"pass \(1, 2\)"),
        ({"normalise": "batch"}, "token or decision"),
    ],
)
def test_bad_input_is_one_sentence_with_a_remedy(change: dict, words: str) -> None:
    arguments = {
        "log_prob": tensor([[-1.0, -1.0]]),
        "old_log_prob": tensor([[-1.0, -1.0]]),
        "advantage": tensor([1.0]),
        "mask": torch.ones(1, 2),
    }
    with pytest.raises(SrpoError, match=words):
        clipped_policy_loss(**(arguments | change))
