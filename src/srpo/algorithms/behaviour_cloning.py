"""Supervised fine-tuning: cross-entropy on action tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from srpo.types import SrpoError


@dataclass(frozen=True)
class CloningLoss:
    """A loss and how good the most likely tokens are.

    Attributes:
        loss: scalar tensor to minimise, with a gradient; nats per token.
        accuracy: share of tokens whose most likely bin is the demonstrated one.
        within: share of tokens whose most likely bin is at most ``within_bins`` away.
    """

    loss: torch.Tensor
    accuracy: torch.Tensor
    within: torch.Tensor

    def diagnostics(self) -> dict[str, float]:
        """Name -> value, as plain numbers for a log."""
        return {k: float(v.detach()) for k, v in vars(self).items()}


def behaviour_cloning_loss(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    *,
    bin_sigma: float = 0.0,
    label_smoothing: float = 0.0,
    within_bins: int = 2,
) -> CloningLoss:
    """Mean over the tokens that count of -sum_k q_k log softmax(logits)_k.

    q is one-hot, or, as bins are ordered, q_k proportional to exp(-(k - token)^2 / (2 bin_sigma^2)), cut off
    at the first and last bin; mixed with the uniform distribution, (1 - label_smoothing) q + label_smoothing
    / K. With soft targets the least possible loss is the entropy of q, not 0. What the mask excludes
    contributes nothing, whatever it holds; with nothing left the loss is 0.

    Args:
        logits: (B, L, K) float, with a gradient.
        tokens: (B, L) integers, 0 <= token < K (where they count).
        mask: (B, L) bool, or float weights >= 0; 0 excludes a token.
        bin_sigma: width of the targets in bins; 0: one-hot.
        label_smoothing: in [0, 1).
        within_bins: tolerance of the diagnostic ``within``, in bins.

    Raises:
        SrpoError: shapes do not fit, a token or an option is out of range, or a logit that counts is not
            finite.
    """
    if logits.ndim != 3 or tokens.shape != logits.shape[:2] or mask.shape != logits.shape[:2]:
        raise SrpoError(
            f"logits {tuple(logits.shape)}, tokens {tuple(tokens.shape)} and mask {tuple(mask.shape)} "
            "do not fit: pass (B, L, K), (B, L) and (B, L)."
        )
    if bin_sigma < 0 or not 0 <= label_smoothing < 1:
        raise SrpoError(f"bin_sigma {bin_sigma} must be 0 or more and label_smoothing {label_smoothing} in [0, 1).")
    weights = mask.detach().to(torch.promote_types(logits.dtype, torch.float32))
    counts = weights > 0
    bins = logits.shape[-1]
    rows, target = logits[counts].to(torch.promote_types(logits.dtype, torch.float32)), tokens[counts].long()
    if bool(((target < 0) | (target >= bins)).any()):
        raise SrpoError(f"A token is outside 0..{bins - 1}: the data was tokenised for another number of bins.")
    log_p = torch.log_softmax(rows, dim=-1)
    if bin_sigma > 0:
        nll = -(_gaussian_targets(bins, bin_sigma, log_p)[target] * log_p).sum(-1)
    else:
        nll = -log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    if label_smoothing > 0:
        nll = (1 - label_smoothing) * nll - label_smoothing * log_p.mean(-1)
    if not torch.isfinite(nll).all():
        raise SrpoError("The policy's logits hold NaN or infinity: use a smaller learning rate, and check the inputs.")
    weights = weights[counts] / weights.sum()
    with torch.no_grad():
        error = (rows.argmax(-1) - target).abs()
        accuracy = (weights * (error == 0)).sum()
        within = (weights * (error <= within_bins)).sum()
    return CloningLoss((weights * nll).sum(), accuracy, within)


def _gaussian_targets(bins: int, sigma: float, like: torch.Tensor) -> torch.Tensor:
    """(K, K): row t is the target distribution of token t."""
    k = torch.arange(bins, dtype=like.dtype, device=like.device)
    return torch.softmax(-((k[None, :] - k[:, None]) ** 2) / (2 * sigma**2), dim=-1)
