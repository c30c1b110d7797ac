"""Advantage-weighted regression in one step, for recorded episodes graded by their progress.

Source: SRPO, arXiv 2511.15605, offline part; AWR, arXiv 1910.00177.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from srpo.algorithms.policy_loss import kept_where
from srpo.types import SrpoError


def step_advantages(progress: np.ndarray | Sequence[float]) -> np.ndarray:
    """D_t = R_t - R_(t-1): how much progress each decision made.

    Args:
        progress: (T + 1,) finite floats, progress at each of the T decision points and at the end of the
            episode (`srpo.rewards.progress_curve`).

    Returns:
        (T,) float64, one per decision; they sum to the progress of the episode.

    Raises:
        SrpoError: not one finite number per moment.
    """
    array = np.asarray(progress, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise SrpoError(
            f"progress has the shape {array.shape}: pass the finite progress of one episode, shape (T + 1,)."
        )
    return np.diff(array)


def normalised(advantage: np.ndarray | Sequence[float]) -> np.ndarray:
    """A = (D - mean) / std over the whole batch (population std; exactly 0 where the std is 1e-6 or less).

    Args:
        advantage: (N,) finite floats, the step advantages of all episodes in one array.

    Returns:
        (N,) float64.

    Raises:
        SrpoError: not one finite number per decision.
    """
    array = np.asarray(advantage, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise SrpoError(f"advantage has the shape {array.shape}: pass finite numbers, one per decision, shape (N,).")
    if not len(array) or array.std() <= 1e-6:
        return np.zeros(len(array))
    return (array - array.mean()) / array.std()


def advantage_weights(
    advantage: np.ndarray | Sequence[float], *, temperature: float = 1.0, max_weight: float = 20.0
) -> np.ndarray:
    """w = min(exp(A / temperature), max_weight) (AWR, arXiv 1910.00177, sections 3 and 5).

    Args:
        advantage: (N,) finite floats, see `normalised`.
        temperature: > 0; small values copy the best decisions alone, large ones copy all alike.
        max_weight: > 0, ceiling that keeps single decisions from ruling a batch.

    Returns:
        (N,) float64 in [0, max_weight] (a very bad decision's weight may round to 0).

    Raises:
        SrpoError: temperature or max_weight not positive, or advantages that are not finite.
    """
    array = np.asarray(advantage, dtype=np.float64)
    if not np.isfinite(array).all():
        raise SrpoError("An advantage is not finite: check the progress it was computed from.")
    if temperature <= 0 or max_weight <= 0:
        raise SrpoError(f"temperature {temperature} and max_weight {max_weight} must be positive.")
    return np.exp(np.minimum(array / temperature, np.log(max_weight)))


def weighted_regression_loss(log_prob: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """-mean over the tokens that count of weight * log_prob: cloning in which good decisions weigh more.

    Args:
        log_prob: (B, L) float, log-probability of the recorded tokens, with a gradient.
        weight: (B,) float >= 0, one per decision, see `advantage_weights`.
        mask: (B, L) bool; what it excludes contributes nothing, whatever it holds.

    Returns:
        Scalar tensor, nats per token; 0 if the mask is empty.

    Raises:
        SrpoError: shapes do not fit, or a value that counts is not finite.
    """
    if log_prob.ndim != 2 or mask.shape != log_prob.shape or weight.shape != log_prob.shape[:1]:
        raise SrpoError(
            f"log_prob {tuple(log_prob.shape)}, weight {tuple(weight.shape)} and mask {tuple(mask.shape)} "
            "do not fit: pass (B, L), (B,) and (B, L)."
        )
    counts = mask.detach().bool()
    kept = kept_where("log-probabilities of the policy", log_prob, counts)
    scale = kept_where("weights", weight.detach().unsqueeze(1).expand_as(log_prob), counts)
    return -(scale * kept).sum() / counts.sum().clamp(min=1)
