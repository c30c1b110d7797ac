"""Metrics to Weights & Biases (optional)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srpo.tracking.csv import number
from srpo.tracking.tensorboard import tag
from srpo.types import SrpoError


class WandbLogger:
    """One wandb run per run folder; a resumed run continues under the same id.

    Args:
        project: wandb project.
        folder: the run folder; wandb's files go below it and its name is the run's name and id.
        config: the resolved configuration, shown on the run's page.
        mode: ``"online"``, ``"offline"`` or ``"disabled"``.

    Raises:
        SrpoError: wandb is not installed.
    """

    def __init__(
        self, project: str, folder: str | Path, config: Mapping[str, Any] | None = None, mode: str = "online"
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise SrpoError('Logging to wandb needs the extra: pip install "srpo[wandb]".') from error
        name = Path(folder).resolve().name
        self._run = wandb.init(
            project=project,
            dir=str(folder),
            config=dict(config or {}),
            name=name,
            id=name,
            resume="allow",
            mode=mode,
        )

    def log(self, row: Mapping[str, Any]) -> None:
        """Log one row; ``row["step"]`` is the x axis."""
        values = {}
        for column, value in row.items():
            scalar = number(value.item() if hasattr(value, "item") else value)
            if column != "step" and scalar is not None:
                values[tag(column)] = scalar
        self._run.log(values, step=int(row["step"]))

    def resume(self, step: int) -> None:
        """wandb keeps the rows it has and ignores a step it has seen; nothing to do."""

    def close(self) -> None:
        """Finish the run, so that its last rows are sent."""
        self._run.finish()
