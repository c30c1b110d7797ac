"""Advantages and losses: one algorithm a file, pure functions of arrays and tensors."""

from srpo.algorithms.advantages import group_advantages, informative_groups
from srpo.algorithms.awr import advantage_weights, normalised, step_advantages, weighted_regression_loss
from srpo.algorithms.behaviour_cloning import CloningLoss, behaviour_cloning_loss
from srpo.algorithms.policy_loss import PolicyLoss, clipped_policy_loss

__all__ = [
    "CloningLoss",
    "PolicyLoss",
    "advantage_weights",
    "behaviour_cloning_loss",
    "clipped_policy_loss",
    "group_advantages",
    "informative_groups",
    "normalised",
    "step_advantages",
    "weighted_regression_loss",
]
