"""Recent successes, kept so that a task without a success in this batch can still be graded.

The paper uses the successes of the current batch alone; then a batch in which every attempt at a task fails
teaches nothing about that task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from srpo.types import SrpoError


class ReferenceReplay:
    """First in, first out store of the successes' embeddings, bounded per task.

    Args:
        capacity_per_task: most embeddings kept per task, >= 1.
    """

    def __init__(self, capacity_per_task: int = 64) -> None:
        if capacity_per_task < 1:
            raise SrpoError(f"The replay's capacity is {capacity_per_task}: keep 1 or more per task, or use no replay.")
        self.capacity_per_task = int(capacity_per_task)
        self._kept: dict[Hashable, deque[np.ndarray]] = {}

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._kept.values())

    def add(
        self,
        embeddings: np.ndarray,
        success: np.ndarray | Sequence[bool],
        task: np.ndarray | Sequence[str] | Sequence[int],
    ) -> None:
        """Keep the successes of a batch, in its order; the oldest of a full task are dropped.

        Args:
            embeddings: (N, D) or (N, M, E) float; stored as float32.
            success: (N,) bool; failures are passed over.
            task: (N,) strings or integers (they are saved as JSON).

        Raises:
            SrpoError: shapes do not fit, each other or the stored embeddings.
        """
        points = np.asarray(embeddings, dtype=np.float32)
        succeeded = np.asarray(success).astype(bool)
        tasks = task.tolist() if isinstance(task, np.ndarray) else list(task)
        if points.ndim not in (2, 3) or succeeded.shape != (len(points),) or len(tasks) != len(points):
            raise SrpoError(
                f"embeddings {points.shape}, success {succeeded.shape} and {len(tasks)} tasks do not fit: "
                "pass (N, D) or (N, M, E), (N,) and (N,)."
            )
        if any(not isinstance(t, str | int) for t in tasks):
            raise SrpoError("The replay is saved as JSON, so name its tasks by strings or integers.")
        first = next((rows[0] for rows in self._kept.values()), None)
        if first is not None and len(points) and points.shape[1:] != first.shape:
            raise SrpoError(
                f"The replay holds embeddings of shape {first.shape} and was given {points.shape[1:]}: "
                "use the world model and clustering it was filled with, or start a new run."
            )
        for row, kept, name in zip(points, succeeded, tasks, strict=True):
            if kept:
                self._kept.setdefault(name, deque(maxlen=self.capacity_per_task)).append(row.copy())

    def references(self) -> tuple[np.ndarray, list[Any]] | None:
        """((R, D) or (R, M, E) float32, R tasks), task after task, each from its oldest success; None when empty."""
        if not self._kept:
            return None
        rows = [row for kept in self._kept.values() for row in kept]
        return np.stack(rows), [name for name, kept in self._kept.items() for _ in kept]

    def state_dict(self) -> dict[str, Any]:
        """What is kept: ``embeddings`` (R, ...) float32; ``tasks`` and ``capacity_per_task`` fit for JSON."""
        embeddings, tasks = self.references() or (np.zeros((0, 0), np.float32), [])
        return {"capacity_per_task": self.capacity_per_task, "tasks": tasks, "embeddings": embeddings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the contents by those of `state_dict`; of a task with more than fits, the newest stay.

        The capacity stays that of this object, so that a run may be continued with another one.

        Raises:
            SrpoError: the state is incomplete or its parts do not fit together.
        """
        missing = {"tasks", "embeddings"} - state.keys()
        if missing:
            raise SrpoError(f"The saved replay lacks {sorted(missing)}; resume from an earlier checkpoint.")
        self._kept = {}
        tasks = list(state["tasks"])
        self.add(state["embeddings"], np.ones(len(tasks), dtype=bool), tasks)
