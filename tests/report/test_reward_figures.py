"""Pictures of reward quality."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from srpo.evaluation.reward_bench import Graded
from srpo.report.reward_figures import distances_png


def graded(distance: list[float]) -> Graded:
    n = len(distance)
    zeros = np.zeros(n)
    return Graded(
        success=np.arange(n) < n // 2,
        task=np.array(["suite/0"] * n),
        length=np.full(n, 10),
        truth=zeros,
        best=zeros,
        reward=zeros,
        distance=np.array(distance),
        curves=[np.linspace(0, 1, 3)] * n,
        final=zeros,
    )


@pytest.mark.parametrize("first", [[0.1, 0.2, 1.0, 1.5], [0.0, 0.0, 0.0, 0.0]])
def test_a_world_model_that_sees_no_distance_is_drawn_without_a_warning(first: list[float], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = distances_png(tmp_path / "one.png", {"a": graded(first), "b": graded([0.1, 0.2, 1.0, 1.5])})
        other = distances_png(tmp_path / "other.png", {"a": graded(first), "b": graded([0.0] * 4)})
    assert one.read_bytes() != other.read_bytes()
