"""A run's files through a kill: every step has its rows, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from srpo import distributed
from srpo.session import Session
from srpo.tracking import Console, read_csv
from synthetic_training import TASKS, Make, trainer


class Killed(Exception):
    """Stands for a kill."""


def practise(run: Path, tiny_policy: Make, killed_after: str | None = None) -> None:
    """Three steps; the second one's process is killed after its checkpoint, or after the rows before that."""
    loop = trainer(tiny_policy(0), run, reward="sparse", steps=3)
    loop.resume()
    save = loop.save

    def saving() -> Path:
        if killed_after == "rows" and loop.done == 2:
            raise Killed
        folder = save()
        if killed_after == "checkpoint" and loop.done == 2:
            raise Killed
        return folder

    loop.save = saving  # type: ignore[method-assign]
    session = Session(loop.config, TASKS, loop.collector, run, Console(), "start", distributed.ALONE)
    session.practise(loop)


@pytest.mark.parametrize("moment", ["rows", "checkpoint"])
def test_a_kill_costs_no_row_and_repeats_none(tmp_path: Path, tiny_policy: Make, moment: str) -> None:
    practise(tmp_path / "whole", tiny_policy)
    with pytest.raises(Killed):
        practise(tmp_path / "cut", tiny_policy, moment)
    assert [r["step"] for r in read_csv(tmp_path / "cut/metrics.csv")] == [1, 2]
    practise(tmp_path / "cut", tiny_policy)
    assert [r["step"] for r in read_csv(tmp_path / "cut/metrics.csv")] == [1, 2, 3]
    groups = [(tmp_path / name / "groups.csv").read_text() for name in ("whole", "cut")]
    assert groups[0] == groups[1] and len(groups[0].splitlines()) == 1 + 3 * 4
