"""Advantages and losses: one algorithm a file, pure functions of arrays and tensors."""

from srpo.algorithms.advantages import group_advantages, informative_groups
from srpo.algorithms.awr import advantage_weights, normalised, step_advantages, weighted_regression_loss
from srpo.algorithms.behaviour_cloning import CloningLoss, behaviour_cloning_loss
from srpo.algorithms.policy_loss import PolicyLoss, clipped_policy_loss
from srpo.algorithms.values import StateRecord, ValueHistory, cross_fitted_values, group_relative_gae

__all__ = [
    "CloningLoss",
    "PolicyLoss",
    "StateRecord",
    "ValueHistory",
    "advantage_weights",
    "behaviour_cloning_loss",
    "clipped_policy_loss",
    "cross_fitted_values",
    "group_advantages",
    "group_relative_gae",
    "informative_groups",
    "normalised",
    "step_advantages",
    "weighted_regression_loss",
]
