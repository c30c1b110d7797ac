"""Advantages within a group: episodes of one task and initial state are compared with each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srpo.types import SrpoError

# A group whose rewards spread less than this carries no information (rewards are between 0 and 1).
MIN_STD = 1e-6


def group_advantages(
    reward: np.ndarray | Sequence[float], group: np.ndarray | Sequence[int], *, normalise_std: bool = True
) -> np.ndarray:
    """A_i = (g_i - mean of its group) / std of its group.

    Source: paper, section 3; GRPO, arXiv 2402.03300, section 4.1. Neither says which std; this is the
    population's (divided by M), so the advantages of a group have mean 0 and mean square 1. Public GRPO code
    mostly divides by M - 1, which makes all advantages of groups of M smaller by one factor,
    sqrt((M - 1) / M), 0.935 for M = 8. The denominator has no epsilon: a group with a std of `MIN_STD` or
    less gets exactly 0.

    Args:
        reward: (N,) finite floats.
        group: (N,) group of each episode.
        normalise_std: divide by the std; without, A_i = g_i - mean (as in Dr. GRPO, arXiv 2503.20783).

    Returns:
        (N,) float64.

    Raises:
        SrpoError: shapes do not fit or a reward is not finite.
    """
    rewards, index = _checked(reward, group)
    mean, std = _mean_std(rewards, index)
    informative = (std > MIN_STD)[index]
    scale = np.where(std > MIN_STD, std, 1.0)[index] if normalise_std else 1.0
    return np.where(informative, (rewards - mean[index]) / scale, 0.0)


def informative_groups(reward: np.ndarray | Sequence[float], group: np.ndarray | Sequence[int]) -> np.ndarray:
    """Which episodes belong to a group whose rewards differ (population std above `MIN_STD`).

    Args:
        reward: (N,) finite floats.
        group: (N,) group of each episode.

    Returns:
        (N,) bool; where it is False, `group_advantages` is 0.

    Raises:
        SrpoError: shapes do not fit or a reward is not finite.
    """
    rewards, index = _checked(reward, group)
    return (_mean_std(rewards, index)[1] > MIN_STD)[index]


def _checked(reward: np.ndarray | Sequence[float], group: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    rewards, groups = np.asarray(reward, dtype=np.float64), np.asarray(group)
    if rewards.ndim != 1 or groups.shape != rewards.shape:
        raise SrpoError(
            f"reward {rewards.shape} and group {groups.shape} do not fit: pass one of each per episode, (N,)."
        )
    if not np.isfinite(rewards).all():
        raise SrpoError(
            f"The reward of episode {np.flatnonzero(~np.isfinite(rewards))[0]} is not finite: check the reward."
        )
    return rewards, np.unique(groups, return_inverse=True)[1]


def _mean_std(rewards: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population std of each group."""
    count = np.bincount(index)
    mean = np.bincount(index, rewards) / count
    return mean, np.sqrt(np.bincount(index, (rewards - mean[index]) ** 2) / count)
