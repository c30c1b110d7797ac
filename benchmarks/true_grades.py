"""``srpo`` with failures graded by what the simulator knows: what good grades could do, whatever the world model.

    python benchmarks/true_grades.py train libero-spatial ... --rollout.true-progress True

Commands and options are those of ``srpo``; the method ``srpo-true`` of ``libero_suite.py`` and ``hard_start.py`` runs
it. In place of its distance in a world model, a failure is graded by 1 less its best true progress
(`srpo.evaluation.true_progress`), by the same formula. No reward may see the simulator's state: this is for judging
rewards, not for practice.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from srpo import cli, commands
from srpo.rewards import ProgressRewards
from srpo.rewards.progress import differ, paper_failure_rewards
from srpo.trainer import Trainer
from srpo.types import Episode
from srpo.world_models.base import evenly


def true_progress_rewards(
    episodes: Sequence[Episode], success: np.ndarray, task: np.ndarray, alpha: float
) -> ProgressRewards:
    """What `srpo.rewards.progress_rewards` returns, with the true progress that is missing as the distance."""
    progress = [e.info["true_progress"].astype(np.float64) for e in episodes]
    missing = np.stack([evenly(np.minimum.accumulate(1.0 - p)) for p in progress])
    reached, reward = np.full_like(missing, np.nan), success.astype(np.float64)
    for name in np.unique(task[~success]):
        mine = task == name
        failed = mine & ~success
        distance = missing[failed, -1]
        reward[failed] = paper_failure_rewards(distance, alpha)
        if differ("paper", distance):
            reached[mine] = paper_failure_rewards(distance, alpha, missing[mine])
    return ProgressRewards(reward, np.where(success, np.nan, missing[:, -1]), {}, reached)


class TrueTrainer(Trainer):
    """Grades by true progress."""

    def _progress(
        self, episodes: Sequence[Episode], embeddings: np.ndarray, success: np.ndarray, task: np.ndarray
    ) -> ProgressRewards:
        found = true_progress_rewards(episodes, success, task, self.config.alpha)
        return found if self.config.potential else replace(found, reached=None)


def main(arguments: list[str]) -> int:
    """``srpo``, its trainer replaced."""
    patched: Any = commands
    patched.Trainer = TrueTrainer
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
