"""Where credit falls, in ``benchmarks/potential.py``."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from srpo.algorithms import StateRecord

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("known", [False, True])
def test_credit_for_what_the_second_decision_does(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Five decisions, of which the second settles the grade, and states that do not show it. Where the potential tells,
    the value knows the grade from then on, and the decision has most of the credit; else nothing is known, and the
    last one has: A_t = 0.7^(4 - t) R, of which 1, .49, .24, .12 and .06 squared are 52, 26, 13, 6 and 3 %."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spans = importlib.import_module("potential").spans
    rng = np.random.default_rng(0)
    reward, group = rng.random(800), np.repeat(np.arange(100), 8)
    features = [np.zeros((5, 2))] * 800
    reached = [np.array([0.0, 0.0, r, r, r]) for r in reward]
    cells = spans(StateRecord.of(features, reward, [0] * 800, reached if known else None), group, 0.7, 5)
    found = [(int(share), float(explained)) for share, explained in re.findall(r"(\d+)% \((\S+)\)", cells)]
    if known:
        assert found[1][0] > 60 and found[4][0] < 2
        assert [round(e, 2) for _, e in found[2:]] == [1.0, 1.0, 1.0]
    else:
        np.testing.assert_allclose([share for share, _ in found], [3, 6, 13, 26, 52], atol=1)
        np.testing.assert_allclose([e for _, e in found[1:]], 0.0, atol=0.03)
