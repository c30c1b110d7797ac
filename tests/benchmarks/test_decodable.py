"""The linear probe of ``benchmarks/decodable.py``."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest


def test_no_group_is_read_by_a_probe_that_has_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is linear in the features is read everywhere; what only a group's own label tells, nowhere."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    predicted = importlib.import_module("decodable").predicted
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(10), 40)
    x = np.concatenate([rng.normal(size=(400, 3)), np.eye(10)[group]], axis=1)
    linear, own = x[:, 0] - 2.0 * x[:, 1], np.where(np.arange(10) % 5 == 0, 5.0, 0.0)[group]
    told = predicted(x, np.stack([linear, own], 1), group)
    np.testing.assert_allclose(told[:, 0], linear, atol=0.1)
    assert np.abs(told[group % 5 == 0, 1]).max() < 1.0  # none of the other groups has the label
