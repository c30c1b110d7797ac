"""PPO's clipped objective on action tokens, with KL divergence to a reference policy and entropy bonus."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from srpo.types import SrpoError

NORMALISATIONS = ("token", "decision")

# exp(20) is 5e8: beyond this log-ratio the ratio is held (its gradient is 0), so that nothing overflows.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True)
class PolicyLoss:
    """A loss and what it is made of. Means are over the tokens that count, weighted by the mask.

    Attributes:
        loss: scalar tensor to minimise, with a gradient.
        policy_loss: scalar, the clipped objective alone (sign turned).
        approx_kl: KL(old || new) estimated by mean(r - 1 - log r), nats (Schulman's k3).
        clip_fraction: share of tokens at which the clip took effect.
        ratio_min, ratio_max: new over old probability of a token, extremes.
        entropy: mean entropy of a token in nats; None if none was passed.
        reference_kl: KL(new || reference) by k3, nats; None if its weight is 0.
    """

    loss: torch.Tensor
    policy_loss: torch.Tensor
    approx_kl: torch.Tensor
    clip_fraction: torch.Tensor
    ratio_min: torch.Tensor
    ratio_max: torch.Tensor
    entropy: torch.Tensor | None = None
    reference_kl: torch.Tensor | None = None

    def diagnostics(self) -> dict[str, float]:
        """Name -> value of everything that is there, as plain numbers for a log."""
        return {k: float(v.detach()) for k, v in vars(self).items() if v is not None}


def clipped_policy_loss(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantage: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    reference_log_prob: torch.Tensor | None = None,
    kl_weight: float = 0.0,
    entropy: torch.Tensor | None = None,
    entropy_weight: float = 0.0,
    normalise: str = "token",
) -> PolicyLoss:
    """-mean min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl_weight KL - entropy_weight H.

    The update of SRPO (paper, section 3) with r = exp(log_prob - old_log_prob) per token (PPO, arXiv
    1707.06347, equation 7; unequal clips: DAPO, arXiv 2503.14476). KL to the reference by k3, exp(x) - 1 - x
    with x = reference_log_prob - log_prob (GRPO, arXiv 2402.03300, equation 4). What the mask excludes
    contributes nothing, whatever it holds, NaN included. With nothing left the loss is 0. Half-precision
    log-probabilities are computed with in float32.

    Args:
        log_prob: (B, L) float, log-probability of each token under the policy, with a gradient.
        old_log_prob: (B, L) float, the same when it was sampled.
        advantage: (B,) float, one per decision.
        mask: (B, L) bool, or float weights >= 0; 0 excludes a token.
        clip_low, clip_high: width of the clip below and above 1.
        reference_log_prob: (B, L) float; read only if ``kl_weight`` is not 0.
        kl_weight: beta of the paper.
        entropy: (B, L) float, nats; needed for a bonus, otherwise only reported.
        entropy_weight: weight of the entropy bonus.
        normalise: ``"token"``: mean over all tokens; ``"decision"``: mean over decisions of the mean over
            their tokens.

    Raises:
        SrpoError: shapes do not fit, a weight without what it weighs, or a value that counts is not finite.
    """
    weights = _weights(log_prob, old_log_prob, advantage, mask, normalise)
    counts = weights > 0
    new = kept_where("log-probabilities of the policy", log_prob, counts)
    old = kept_where("log-probabilities of the rollout", old_log_prob, counts)
    gain = kept_where("advantages", advantage.to(new.dtype).unsqueeze(1).expand_as(new), counts)

    log_ratio = (new - old.detach()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    policy_loss = -(weights * torch.minimum(ratio * gain, clipped * gain)).sum()
    loss = policy_loss
    reference_kl = mean_entropy = None
    if kl_weight != 0.0:
        if reference_log_prob is None:
            raise SrpoError(f"kl_weight is {kl_weight} without a reference: pass reference_log_prob or use 0.")
        reference = kept_where("log-probabilities of the reference policy", reference_log_prob, counts)
        x = (reference.detach() - new).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        reference_kl = (weights * (x.exp() - 1.0 - x)).sum()
        loss = loss + kl_weight * reference_kl
    if entropy is not None:
        mean_entropy = (weights * kept_where("entropies", entropy, counts)).sum()
        loss = loss - entropy_weight * mean_entropy if entropy_weight != 0.0 else loss
    elif entropy_weight != 0.0:
        raise SrpoError(f"entropy_weight is {entropy_weight} but there is no entropy: pass entropy or use 0.")
    with torch.no_grad():
        seen = ratio[counts] if counts.any() else ratio.new_ones(1)
        return PolicyLoss(
            loss=loss,
            policy_loss=policy_loss.detach(),
            approx_kl=(weights * (ratio - 1.0 - log_ratio)).sum(),
            clip_fraction=(weights * (clipped * gain < ratio * gain)).sum(),
            ratio_min=seen.amin(),
            ratio_max=seen.amax(),
            entropy=mean_entropy.detach() if mean_entropy is not None else None,
            reference_kl=reference_kl.detach() if reference_kl is not None else None,
        )


def _weights(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantage: torch.Tensor,
    mask: torch.Tensor,
    normalise: str,
) -> torch.Tensor:
    """(B, L) weights that sum to 1, or to 0 if the mask is empty."""
    shape = tuple(log_prob.shape)
    if (
        len(shape) != 2
        or tuple(old_log_prob.shape) != shape
        or tuple(mask.shape) != shape
        or tuple(advantage.shape) != shape[:1]
    ):
        raise SrpoError(
            f"log_prob {shape}, old_log_prob {tuple(old_log_prob.shape)}, mask {tuple(mask.shape)} and "
            f"advantage {tuple(advantage.shape)} do not fit: pass (B, L), (B, L), (B, L) and (B,)."
        )
    if normalise not in NORMALISATIONS:
        raise SrpoError(f"No normalisation named '{normalise}': choose {' or '.join(NORMALISATIONS)}.")
    weights = mask.detach().to(torch.promote_types(log_prob.dtype, torch.float32))
    if not (torch.isfinite(weights).all() and (weights >= 0).all()):
        raise SrpoError("The mask holds negative or non-finite weights: pass True and False, or weights >= 0.")
    if normalise == "decision":
        per_decision = weights.sum(1, keepdim=True)
        weights = weights / torch.where(per_decision > 0, per_decision, torch.ones_like(per_decision))
    total = weights.sum()
    return weights / torch.where(total > 0, total, torch.ones_like(total))


def kept_where(what: str, values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The values where they count, 0 elsewhere, also in the gradient.

    Args:
        what: their name in the error.
        values: float tensor; half precision becomes float32.
        counts: bool tensor of the same shape.

    Raises:
        SrpoError: the shapes differ, or a value that counts is not finite.
    """
    if values.shape != counts.shape:
        raise SrpoError(f"The {what} have the shape {tuple(values.shape)}: pass {tuple(counts.shape)}.")
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    kept = torch.where(counts, values, torch.zeros_like(values))
    if not torch.isfinite(kept).all():
        raise SrpoError(
            f"The {what} hold NaN or infinity: resume from the last checkpoint with a smaller learning rate."
        )
    return kept
