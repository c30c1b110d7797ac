"""What the rollout workers and the learner need of a policy. Nothing here knows which network it is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from scipy.special import ndtr

from srpo.types import Observation, SrpoError

Inputs = dict[str, np.ndarray]
"""What a policy keeps of an observation: name -> array, without a batch axis. Frozen features rather than pixels
where the backbone is frozen, so that the learner never runs it again."""


class Policy(Protocol):
    """A policy with discrete action tokens, decoded in parallel: L = chunk * action_dim tokens of K bins a decision.

    A policy that is to learn with credit by decision also has ``features(inputs) -> (B, F)``, what its head reads; one
    whose tokens are to be weighed by range, ``action_range``: (action_dim,) float64, largest less smallest action that
    its tokens stand for, of the environment's 2 (-1 to 1).
    """

    chunk: int
    action_dim: int

    def prepare(self, observation: Observation) -> Inputs:
        """The frozen part of the network, run once per decision."""
        ...

    def logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, L, K) action-token logits at temperature 1, differentiable; ``inputs`` have a leading batch axis."""
        ...

    def actions(self, tokens: np.ndarray) -> np.ndarray:
        """(..., L) tokens to (..., chunk, action_dim) environment actions."""
        ...


def range_weights(policy: Policy) -> np.ndarray:
    """(action_dim,) weights in (0, 1] of the action dimensions: the share of the environment's range that the policy's
    actions reach; SrpoError if the policy does not say (`Policy`)."""
    reach = getattr(policy, "action_range", None)
    if reach is None:
        raise SrpoError("The policy does not say how far its actions reach: set --token-weights equal.")
    return np.minimum(reach / 2.0, 1.0)


def token_temperatures(temperature: float, gripper: float | None, n_tokens: int, action_dim: int) -> np.ndarray:
    """(n_tokens,) float64: the temperature of each token of a decision, the last dimension of an action being the
    gripper's; ``gripper`` None: as the others."""
    out = np.full(n_tokens, temperature)
    if gripper is not None:
        out[action_dim - 1 :: action_dim] = gripper
    return out


def token_log_probs(
    logits: torch.Tensor, tokens: torch.Tensor, temperature: float | torch.Tensor, entropy_gradient: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy of each token under softmax(logits / temperature).

    Args:
        logits: (B, L, K).
        tokens: (B, L) integers.
        temperature: sampling temperature, one or (L,); the old and the new policy must be read at the same one.
        entropy_gradient: whether the entropy is differentiable (an entropy bonus needs it).

    Returns:
        log_prob (B, L) and entropy (B, L, in nats).
    """
    if isinstance(temperature, torch.Tensor):
        temperature = temperature.to(logits.device, torch.float32).unsqueeze(-1)
    log_p = torch.log_softmax(logits / temperature, dim=-1)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = -(log_p.exp() * log_p).sum(-1)
    return log_p.gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1), entropy


def sample_tokens(
    logits: np.ndarray,
    temperature: float | np.ndarray,
    rng: np.random.Generator,
    groups: int = 0,
    correlation: float = 0.0,
    median: bool = False,
    shared: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one token a row from (L, K) logits; temperature 0 takes the most likely one.

    Args:
        logits: (L, K).
        temperature: of the softmax, one or (L,) above 0.
        rng: source of the randomness.
        groups: number A of action dimensions; tokens l and l + A belong to the same one. Needed for a correlation.
        correlation: of the Gaussian noise behind the draws within one action dimension, in [0, 1). Each token still
            has exactly its own distribution, but a chunk errs to one side as a whole, instead of trembling; what is
            tried out is then an offset that can decide an episode (correlated action noise for policy gradients:
            Hollenstein et al., arXiv 2312.11091).
        median: no randomness: the token in which the cumulative probability passes one half. Bins are ordered, and RL
            moves the mass of a distribution; its peak may stay behind (a narrow second mode keeps it), its median
            does not.
        shared: (A,) standard normal numbers, the part of the noise that the tokens of a dimension have in common; None:
            drawn here.

    Returns:
        tokens (L,) int16 and their log-probability (L,) float32 under the sampling distribution (0 when greedy).
    """
    if not np.any(temperature):
        tokens = logits.argmax(-1)
        return tokens.astype(np.int16), np.zeros(len(tokens), np.float32)
    scaled = logits.astype(np.float64) / np.reshape(temperature, (-1, 1))
    scaled -= scaled.max(-1, keepdims=True)
    cumulative = np.exp(scaled).cumsum(-1)
    uniform = np.full(len(logits), 0.5) if median else _uniforms(len(logits), rng, groups, correlation, shared)
    draw = uniform[:, None] * cumulative[:, -1:]
    tokens = np.minimum((cumulative < draw).sum(-1), logits.shape[-1] - 1)
    log_z = np.log(cumulative[:, -1])
    return tokens.astype(np.int16), (scaled[np.arange(len(tokens)), tokens] - log_z).astype(np.float32)


def _uniforms(
    count: int, rng: np.random.Generator, groups: int, correlation: float, shared: np.ndarray | None
) -> np.ndarray:
    """(count,) uniform numbers, those of one group correlated by a Gaussian copula."""
    if correlation == 0.0:
        return rng.random(count)
    common = np.tile(rng.standard_normal(groups) if shared is None else shared, count // groups)
    own = rng.standard_normal(count)
    return ndtr(np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * own)


class LastingNoise:
    """The shared part of the noise over an episode: a stationary autoregressive process, one number a dimension.

    What one decision tries out the next undoes unless it tries the same: an error of some centimetres takes several.
    (Coloured noise in policy gradients: Hollenstein et al., arXiv 2312.11091.)

    Args:
        groups: action dimensions A.
        persistence: correlation from one decision to the next, in [0, 1).
    """

    def __init__(self, groups: int, persistence: float) -> None:
        self.groups, self.persistence = groups, persistence
        self._now: np.ndarray | None = None

    def next(self, rng: np.random.Generator) -> np.ndarray:
        """(A,) for the next decision, each standard normal."""
        fresh, kept = rng.standard_normal(self.groups), self.persistence
        self._now = fresh if self._now is None else kept * self._now + np.sqrt(1.0 - kept**2) * fresh
        return self._now
