"""The value by one ridge regression in ``benchmarks/value_fit.py``."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from srpo.algorithms import StateRecord, cross_fitted_values

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("unknown", [0, 5, 32])
def test_of_one_task_it_is_the_trainers_value(monkeypatch: pytest.MonkeyPatch, unknown: int) -> None:
    """There is no correction by task then; of some episodes the potential is not known, of all, or of none."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    common_ridge = importlib.import_module("value_fit").common_ridge
    rng = np.random.default_rng(0)
    reward, group = rng.random(32), np.repeat(np.arange(8), 4)
    reached = [np.full(3, np.nan) if i < unknown else reward[i] * np.array([0.0, 0.4, 0.9]) for i in range(32)]
    record = StateRecord.of([rng.standard_normal((3, 5)) for _ in reward], reward, [0] * 32, reached)
    np.testing.assert_allclose(common_ridge(record, group), cross_fitted_values(record, group), atol=1e-9)
