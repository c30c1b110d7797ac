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
from typing import Any

import numpy as np

from srpo import cli, commands
from srpo.rewards import ProgressRewards
from srpo.rewards.progress import paper_failure_rewards
from srpo.trainer import Trainer
from srpo.types import Episode


class TrueTrainer(Trainer):
    """Grades by true progress."""

    def _progress(
        self, episodes: Sequence[Episode], embeddings: np.ndarray, success: np.ndarray, task: np.ndarray
    ) -> ProgressRewards:
        missing = np.array([1.0 - e.info["true_progress"].max() for e in episodes], np.float64)
        reward = success.astype(np.float64)
        for name in np.unique(task[~success]):
            failed = (task == name) & ~success
            reward[failed] = paper_failure_rewards(missing[failed], self.config.alpha)
        return ProgressRewards(reward, np.where(success, np.nan, missing), {})


def main(arguments: list[str]) -> int:
    """``srpo``, its trainer replaced."""
    patched: Any = commands
    patched.Trainer = TrueTrainer
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
