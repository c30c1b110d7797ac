"""Metrics to TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srpo.tracking.csv import number

_GROUPS = {
    "rollout": ("episodes", "env_steps", "success_rate", "n_success", "n_episodes", "episodes_per_s"),
    "reward": (
        "reward_failure_mean",
        "reward_failure_std",
        "n_clusters",
        "groups_informative",
        "groups_skipped",
    ),
    "evaluation": ("eval_successes", "eval_episodes", "eval_success_rate"),
}
_TAGS = {column: f"{group}/{column}" for group, columns in _GROUPS.items() for column in columns}


class TensorboardLogger:
    """One scalar per column and RL step; finite numbers only, strings are left out.

    Args:
        folder: where the event files go.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._purge: int | None = None
        self._writer: Any = None

    def log(self, row: Mapping[str, Any]) -> None:
        """Write and flush one row; ``row["step"]`` is the x axis."""
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge)
        step = int(row["step"])
        for column, value in row.items():
            scalar = number(value.item() if hasattr(value, "item") else value)
            if column != "step" and scalar is not None:
                self._writer.add_scalar(tag(column), scalar, step)
        rate = _eval_rate(row)
        if rate is not None:
            self._writer.add_scalar(tag("eval_success_rate"), rate, step)
        self._writer.flush()

    def resume(self, step: int) -> None:
        """Tell TensorBoard to forget what was logged after ``step``."""
        self.close()
        self._purge = step + 1

    def close(self) -> None:
        """Close the event file; the next row opens another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def tag(column: str) -> str:
    """The column with ``rollout/``, ``reward/``, ``evaluation/``, ``time/`` or ``update/`` before it."""
    return _TAGS.get(column) or (f"time/{column}" if column.startswith("seconds_") else f"update/{column}")


def _eval_rate(row: Mapping[str, Any]) -> float | None:
    episodes = row.get("eval_episodes")
    return row["eval_successes"] / episodes if episodes else None
