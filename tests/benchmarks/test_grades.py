"""Grades with another tolerance in ``benchmarks/grades.py``."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from srpo.rewards import progress_rewards


def test_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance of 1 the grades are the trainer's; with a large one every failure covers everything."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    graded = importlib.import_module("grades").graded
    rng = np.random.default_rng(0)
    seen, success = rng.normal(size=(12, 5, 3)), np.arange(12) % 4 == 0
    task, references = np.array(["a", "b"] * 6), (rng.normal(size=(2, 5, 3)), ["a", "b"])
    expected = progress_rewards(seen, success, task, references=references).reward
    np.testing.assert_allclose(graded(seen, success, task, references, 0.8), expected)
    assert np.ptp(expected[~success]) > 0.1
    np.testing.assert_allclose(graded(seen, success, task, references, 0.8, 1e6)[~success], 0.4)
