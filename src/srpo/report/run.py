"""A run folder read back: metrics, evaluations, videos, graded episodes."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from srpo.evaluation.intervals import wilson
from srpo.tracking.csv import Cell, number, read_csv
from srpo.types import SrpoError

Row = dict[str, Cell]
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Rate:
    """Successes among episodes.

    Attributes:
        successes: how many succeeded.
        episodes: out of how many, at least 1.
    """

    successes: int
    episodes: int

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the share."""
        low, high = wilson(self.successes, self.episodes)
        return float(low), float(high)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation file.

    Attributes:
        values: its content.
    """

    values: dict[str, Any]

    @property
    def episodes(self) -> list[dict[str, Any]]:
        """Every episode, as `srpo.evaluation` writes it."""
        return self.values["episodes"]

    @property
    def overall(self) -> Rate:
        """All tasks together."""
        return _rate([bool(e["success"]) for e in self.episodes])

    @cached_property
    def by_task(self) -> dict[str, Rate]:
        """Task id -> rate."""
        outcomes: dict[str, list[bool]] = defaultdict(list)
        for e in self.episodes:
            outcomes[e["task"]].append(bool(e["success"]))
        return {task: _rate(values) for task, values in outcomes.items()}

    @property
    def outcomes(self) -> dict[Key, bool]:
        """(task, kind, index of the initial state) -> success of the first episode from there."""
        out: dict[Key, bool] = {}
        for e in self.episodes:
            out.setdefault(key(e), bool(e["success"]))
        return out


@dataclass(frozen=True)
class Run:
    """Everything a run folder holds; what is absent is empty or None.

    Attributes:
        folder: where it lies.
        rows: metrics, one row per RL step, at least one.
        config: resolved configuration.
        provenance: versions, machine, seed, command.
        before: evaluation before the first RL step.
        after: evaluation after the last.
        graded: progress curves.
        videos: entries of ``videos/index.json``.
    """

    folder: Path
    rows: list[Row]
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    before: Evaluation | None = None
    after: Evaluation | None = None
    graded: dict[str, Any] | None = None
    videos: list[dict[str, Any]] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """The last RL step in the metrics."""
        return int(number(self.rows[-1].get("step")) or 0)

    @property
    def training(self) -> dict[str, Any]:
        """The part of the configuration that is about RL."""
        part = self.config.get("train", self.config)
        return part if isinstance(part, dict) else {}

    @property
    def planned_steps(self) -> int | None:
        """RL steps that the configuration asks for."""
        steps = number(self.training.get("steps"))
        return None if steps is None else int(steps)

    @property
    def protocol(self) -> str:
        """``"held-out"``, ``"paper"`` or whatever the evaluation says; empty if unknown."""
        evaluation = self.after or self.before
        return str((evaluation.values.get("protocol") if evaluation else self.training.get("protocol")) or "")

    @cached_property
    def instructions(self) -> dict[str, str]:
        """Task id -> instruction, in the order of the evaluations."""
        out: dict[str, str] = {}
        for evaluation in (self.before, self.after):
            for e in evaluation.episodes if evaluation else []:
                out.setdefault(e["task"], e.get("instruction") or e["task"])
        return out

    def column(self, name: str) -> list[float | None]:
        """One metric over the steps; None where it is absent, not finite or about no failures at all."""
        graded = name.startswith("reward_failure")
        return [None if graded and _all_succeeded(row) else number(row.get(name)) for row in self.rows]

    def training_curve(self) -> list[tuple[int, Rate]]:
        """(RL step, success of its rollouts)."""
        return self._rates("n_success", "n_episodes")

    def evaluation_curve(self) -> list[tuple[int, Rate]]:
        """(RL steps done, success in evaluation): before, on the way, after."""
        points = [(0, self.before.overall)] if self.before else []
        between = self._rates("eval_successes", "eval_episodes")
        if self.after:
            between = [(step, rate) for step, rate in between if step != self.last_step]
            return [*points, *between, (self.last_step, self.after.overall)]
        return [*points, *between]

    def paired(self) -> tuple[int, int, int]:
        """Initial states attempted both before and after: how many, newly solved, no longer solved."""
        if not self.before or not self.after:
            return 0, 0, 0
        before, after = self.before.outcomes, self.after.outcomes
        both = before.keys() & after.keys()
        gained = sum(after[k] and not before[k] for k in both)
        return len(both), gained, sum(before[k] and not after[k] for k in both)

    def _rates(self, successes: str, episodes: str) -> list[tuple[int, Rate]]:
        points = []
        for row in self.rows:
            step, n, total = number(row.get("step")), number(row.get(successes)), number(row.get(episodes))
            if step is not None and n is not None and total:
                points.append((int(step), Rate(int(n), int(total))))
        return points


def load_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        SrpoError: there are no metrics, or a file is not what it should be.
    """
    folder = Path(folder)
    rows = read_csv(folder / "metrics.csv")
    if not rows:
        raise SrpoError(f"{folder / 'metrics.csv'} has no rows yet; wait for the first RL step.")
    return Run(
        folder,
        rows,
        _json(folder / "config.json") or {},
        _json(folder / "provenance.json") or {},
        _evaluation(folder / "eval_before.json"),
        _evaluation(folder / "eval_after.json"),
        _json(folder / "graded.json"),
        _json(folder / "videos" / "index.json") or [],
    )


def key(entry: dict[str, Any]) -> Key:
    """(task, kind, index of the initial state) of an episode or a video."""
    return entry["task"], entry["initial_state"]["kind"], int(entry["initial_state"]["index"])


def percent(share: float) -> str:
    """``46 %``; with one decimal where rounding would claim all or nothing."""
    rounded = f"{100 * share:.0f}"
    if rounded in ("0", "100") and share not in (0.0, 1.0):
        rounded = f"{min(99.9, max(0.1, 100 * share)):.1f}"
    return f"{rounded} %"


def _all_succeeded(row: Row) -> bool:
    return bool(row.get("n_episodes")) and row.get("n_success") == row["n_episodes"]


def _rate(outcomes: list[bool]) -> Rate:
    return Rate(sum(outcomes), len(outcomes))


def _evaluation(path: Path) -> Evaluation | None:
    values = _json(path)
    return Evaluation(values) if values and values.get("episodes") else None


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SrpoError(f"{path} is not valid JSON ({error}); restore or remove it.") from error
