"""Metrics to the console, to CSV, to TensorBoard and to Weights & Biases.

Every logger has ``log(row)``, ``resume(step)`` and ``close()``; a row is a flat mapping with a key ``step``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from srpo.tracking.console import Console, Phase
from srpo.tracking.csv import CsvLogger, read_csv
from srpo.tracking.tensorboard import TensorboardLogger
from srpo.tracking.wandb import WandbLogger

__all__ = ["Console", "CsvLogger", "Logger", "Phase", "TensorboardLogger", "WandbLogger", "read_csv"]


class Logger(Protocol):
    """What the training loop writes its metrics to."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Record one RL step; ``row["step"]`` is its number."""

    def resume(self, step: int) -> None:
        """Forget what was recorded after ``step``."""

    def close(self) -> None:
        """Write out what is buffered."""
