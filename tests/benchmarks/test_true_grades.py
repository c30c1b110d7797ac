"""Grades by true progress in ``benchmarks/true_grades.py``."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from srpo.types import Episode, EpisodeRequest, InitialState, Task

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def episode(progress: list[float], success: bool) -> Episode:
    task = Task("synthetic", 0, "t0", "go", max_steps=4)
    request = EpisodeRequest(task, InitialState("sampled", 0), seed=0, group=0)
    return Episode(
        request, success, n_steps=4, inputs={}, tokens=np.zeros((2, 56)), log_probs=np.zeros((2, 56)),
        executed=np.full(2, 2), info={"true_progress": np.array(progress, np.float32)},
    )  # fmt: skip


@pytest.mark.parametrize(("fade", "factor"), [(False, 1.0), (True, 0.75)])
def test_failures_are_graded_by_their_best_progress(monkeypatch: pytest.MonkeyPatch, fade: bool, factor: float) -> None:
    """Of a task's failures the best progress is 0.25, 0.5 and 0.75: with the mean 0.5 and the std sqrt(1 / 24) they are
    -1.2247, 0 and 1.2247 stds from it, and sigmoid(1.2247) = 0.7729. The other task's lone failure is at its mean."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    trainer = importlib.import_module("true_grades").TrueTrainer
    episodes = [
        episode([0.0, 0.25, 0.1], False), episode([0.5, 0.0, 0.0], False), episode([0.0, 0.2, 0.75], False),
        episode([0.0, 0.5, 1.0], True), episode([0.0, 0.0, 0.9], False),
    ]  # fmt: skip
    other = replace(episodes[4].request, task=replace(episodes[4].request.task, index=1))
    episodes[4] = replace(episodes[4], request=other)
    practice = object.__new__(trainer)  # grading needs no policy
    practice.config = SimpleNamespace(alpha=0.8, fade_grades=fade, potential=True)
    practice.outcomes = SimpleNamespace(rates=lambda: {"t0": 0.25})
    success = np.array([e.success for e in episodes])
    record = practice._grade(episodes, np.zeros((5, 1, 1)), success, np.array(["t0", "t0", "t0", "t0", "t1"]))
    expected = [0.8 * 0.2271 * factor, 0.4 * factor, 0.8 * 0.7729 * factor, 1.0, 0.4]
    np.testing.assert_allclose(record.reward, expected, atol=1e-4)
    # The first reaches its best half-way, the success then what would be the second's grade.
    reached = record.graded.reached
    np.testing.assert_allclose(reached[0, [16, -1]], expected[0], atol=1e-4)
    np.testing.assert_allclose(reached[3, 16], expected[1], atol=1e-4)
    assert reached[0, 0] < reached[0, 16] and np.isnan(reached[4]).all()
