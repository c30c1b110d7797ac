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
from srpo.rewards.progress import paper_failure_rewards
from srpo.step_record import StepRecord
from srpo.trainer import Trainer
from srpo.types import Episode


class TrueTrainer(Trainer):
    """Grades by true progress; episodes that succeed have 1, as ever."""

    def _grade(
        self, episodes: Sequence[Episode], embeddings: np.ndarray | None, success: np.ndarray, task: np.ndarray
    ) -> StepRecord:
        record = super()._grade(episodes, embeddings, success, task)
        return replace(record, reward=self.true_rewards(episodes, success, task))

    def true_rewards(self, episodes: Sequence[Episode], success: np.ndarray, task: np.ndarray) -> np.ndarray:
        """(N,) rewards, faded as the settings say."""
        missing = np.array([1.0 - e.info["true_progress"].max() for e in episodes], np.float64)
        rates: dict[str, float] = self.outcomes.rates() if self.config.fade_grades else {}
        reward = success.astype(np.float64)
        for name in np.unique(task):
            failed = (task == name) & ~success
            if failed.any():
                graded = paper_failure_rewards(missing[failed], self.config.alpha)
                reward[failed] = (1.0 - rates.get(str(name), 0.0)) * graded
        return reward


def main(arguments: list[str]) -> int:
    """``srpo``, its trainer replaced."""
    patched: Any = commands
    patched.Trainer = TrueTrainer
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
