"""Rewards: progress in a world model's latent space (SRPO), and plain success. Pure functions of arrays."""

from srpo.rewards.clustering import success_centres
from srpo.rewards.coverage import coverage_scale, covered_progress
from srpo.rewards.progress import ProgressRewards, progress_curve, progress_rewards
from srpo.rewards.references import ReferenceReplay
from srpo.rewards.sparse import sparse_rewards

__all__ = [
    "ProgressRewards",
    "ReferenceReplay",
    "coverage_scale",
    "covered_progress",
    "progress_curve",
    "progress_rewards",
    "sparse_rewards",
    "success_centres",
]
