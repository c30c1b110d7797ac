"""Curves of growing windows, and distances that leave the episode itself out, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from srpo.evaluation.progress_curves import coverage_curves, left_out_distances, progress_curves, window_embeddings
from srpo.types import SrpoError


class LastFrame:
    """Embeds an episode as its last frame."""

    def frame_features(self, image: np.ndarray, inputs: object) -> np.ndarray:
        return image

    def embed(self, features: list[np.ndarray]) -> np.ndarray:
        return np.stack([f[-1] for f in features])


def line(*x: float) -> np.ndarray:
    """Windows on a line, one unit above zero."""
    return np.array([[v, 1.0] for v in x])


def test_windows_grow() -> None:
    one, two = window_embeddings(LastFrame(), [line(1, 2, 3), line(5)])
    np.testing.assert_array_equal(one, line(2, 3))
    np.testing.assert_array_equal(two, line(5))
    np.testing.assert_array_equal(window_embeddings(LastFrame(), [line(1, 2, 3)], shortest=1)[0], line(1, 2, 3))


def test_curves_by_hand() -> None:
    # The success ends at 4. Squared distances: its own 16, 9, 0; the failure's 16, 1, 4.
    windows, success = [line(0, 1, 4), line(0, 3, 2)], [True, False]
    first, second = progress_curves(windows, success, ["a", "a"])
    np.testing.assert_allclose(first, [0, 7 / 16, 1])
    np.testing.assert_allclose(second, [0, 1, 12 / 15])  # farthest 16, nearest 1
    _, comparable = progress_curves(windows, success, ["a", "a"], scale="task")
    np.testing.assert_allclose(comparable, [0, 15 / 16, 12 / 16])


def test_a_success_is_compared_with_itself_a_failure_with_the_nearest_centre() -> None:
    windows = [line(0, 10), line(0, -10), line(0, 10, 9)]
    curves = progress_curves(windows, [True, True, False], ["a"] * 3, clustering="nearest")
    np.testing.assert_allclose(curves[1], [0, 1])
    np.testing.assert_allclose(curves[2], [0, 1, 0.99])


def test_tasks_do_not_mix_and_a_task_without_a_success_has_no_curve() -> None:
    windows = [line(0, 4), line(0, 3), line(0, 1)]
    curves = progress_curves(windows, [True, False, False], ["a", "b", "a"])
    assert np.isnan(curves[1]).all() and len(curves[1]) == 2
    np.testing.assert_allclose(curves[2], [0, 1])


@pytest.mark.parametrize(
    ("change", "message"), [({"scale": "run"}, "choose episode or task"), ({"success": [True]}, "do not fit")]
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(SrpoError, match=message):
        progress_curves(**{"windows": [line(0, 1)] * 2, "success": [True, False], "task": ["a", "a"]} | change)


def test_distances_leave_the_episode_itself_out() -> None:
    points = line(0, 1, 4, 10, 2)
    found = left_out_distances(points, [True, True, False, True, False], ["a", "a", "a", "b", "c"])
    np.testing.assert_array_equal(found, [1, 1, 9, np.nan, np.nan])


def test_coverage_curves_measure_successes_by_the_others():
    """Two successes walk from 0 to 4 and from 0 to 3 on a line, a failure to 1; the task b has one success alone."""
    walks = [np.arange(5.0)[:, None], np.arange(4.0)[:, None], np.array([[0.0], [1.0], [1.0]]), np.ones((2, 1))]
    curves = coverage_curves(walks, [True, True, False, True], ["a", "a", "a", "b"])
    assert [len(c) for c in curves] == [5, 4, 3, 2] and np.isnan(curves[3]).all()
    # Steps of 1: sigma 1/2. The first covers the second wholly; the second misses 4, by 1, at the end of the first.
    assert curves[0][-1] == 1.0
    share = 1 / 8  # of 32 moments evenly over 5 places, those at the last one
    assert curves[1][-1] == pytest.approx(1 - share / 2)
    assert curves[2][1] == curves[2][2] < 0.7 and (np.diff(curves[0]) >= 0).all()
