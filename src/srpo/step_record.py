"""What an RL step's update was computed from, and its groups as rows of ``groups.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srpo.rewards import ProgressRewards
from srpo.types import Episode


@dataclass
class StepRecord:
    """What an RL step's update was computed from.

    Attributes:
        episodes: N episodes.
        reward: (N,).
        embeddings: (N, MOMENTS, E) for coverage, else (N, E); None when the reward is sparse.
        graded: distances and cluster counts, None when the reward is sparse.
    """

    episodes: Sequence[Episode]
    reward: np.ndarray
    embeddings: np.ndarray | None
    graded: ProgressRewards | None

    def groups(self) -> list[dict[str, Any]]:
        """One row a group: task, initial state, episodes, successes, and its failures' least and largest reward
        (None where all succeed)."""
        members: dict[int, list[int]] = {}
        for i, episode in enumerate(self.episodes):
            members.setdefault(episode.request.group, []).append(i)
        rows = []
        for group, indices in members.items():
            request = self.episodes[indices[0]].request
            failed = [float(self.reward[i]) for i in indices if not self.episodes[i].success]
            rows.append(
                {
                    "group": group,
                    "task": request.task.id,
                    "initial_state": f"{request.initial_state.kind}-{request.initial_state.index}",
                    "episodes": len(indices),
                    "successes": len(indices) - len(failed),
                    "reward_failure_min": min(failed, default=None),
                    "reward_failure_max": max(failed, default=None),
                }
            )
        return rows
