"""The bench on episodes whose grades can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from srpo.data.episodes import RecordedEpisode
from srpo.evaluation.reward_bench import MEASURES, grade, measure, table
from srpo.types import InitialState, SrpoError, Task


class Brightness:
    """An episode is the brightness at which it ends (and a constant, so that no embedding is zero)."""

    def frame_features(self, image: np.ndarray, inputs: object) -> np.ndarray:
        return image[0, 0, :1]

    def embed(self, features: list[np.ndarray]) -> np.ndarray:
        return np.array([[float(f[-1, 0]), 100.0] for f in features], np.float32)


def episode(last: int, success: bool, truth: float, task: int = 0, seed: int = 0) -> RecordedEpisode:
    """Four frames of rising brightness; true progress rises with it."""
    levels = np.linspace(0, last, 4).round().astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (4, 2, 2, 3)).copy()
    return RecordedEpisode(
        Task("fake", task, "t", "t", 24), InitialState("sampled", seed), seed, "test", success,
        16 if success else 24, frames, np.linspace(0, truth, 4, dtype=np.float32),
    )  # fmt: skip


EPISODES = [episode(200, True, 1.0), episode(202, True, 1.0), episode(190, False, 0.8), episode(150, False, 0.5),
            episode(100, False, 0.3), episode(50, False, 0.1)]  # fmt: skip


def test_grades_by_hand() -> None:
    g = grade(EPISODES, Brightness(), clustering="dbscan")
    # two successes are references as they are; squared distances of the failures to the nearer one, 200
    np.testing.assert_allclose(g.distance, [4, 4, 100, 2500, 10000, 22500])
    d = np.array([100, 2500, 10000, 22500.0])
    np.testing.assert_allclose(g.reward[2:], 0.8 / (1 + np.exp((d - d.mean()) / d.std())))
    assert (g.reward[:2] == 1).all()
    np.testing.assert_allclose(g.truth, [1, 1, 0.8, 0.5, 0.3, 0.1], rtol=1e-6)
    assert g.length.tolist() == [16, 16, 24, 24, 24, 24] and g.task.tolist() == ["fake/0"] * 6


def test_a_reward_that_follows_the_truth_is_perfect_and_one_that_runs_against_it_is_not() -> None:
    right = measure(grade(EPISODES, Brightness(), clustering="dbscan"), resamples=50)
    assert set(right) == set(MEASURES)
    assert right["rank"].value == right["rank_pooled"].value == right["auc"].value == 1.0
    assert right["time"].value == 1.0 and right["monotonicity"].value == 1.0
    wrong = [episode(int(e.frames.max()), e.success, 1 - float(e.true_progress[-1])) for e in EPISODES]
    assert measure(grade(wrong, Brightness(), clustering="dbscan"), resamples=50)["rank"].value == -1.0
    # successes are the short ones here, so that length alone tells them apart
    assert right["length_share"].value == pytest.approx(1.0)


def test_only_as_many_references_as_allowed() -> None:
    far = [episode(100, True, 1.0), episode(200, True, 1.0), episode(99, False, 0.9), episode(199, False, 0.1)]
    both = grade(far, Brightness(), clustering="dbscan")
    assert both.reward[2] == both.reward[3]
    draws = [grade(far, Brightness(), clustering="dbscan", references=1, seed=s).reward for s in range(8)]
    assert {bool(r[2] > r[3]) for r in draws} == {True, False}  # either success was drawn at some time


def test_tasks_without_both_outcomes() -> None:
    with pytest.raises(SrpoError, match="both a success and a failure"):
        grade([episode(1, True, 1.0), episode(2, False, 0.0, task=1)], Brightness(), clustering="dbscan")
    mixed = [*EPISODES, episode(77, False, 0.2, task=1)]
    g = grade(mixed, Brightness(), clustering="dbscan")
    assert g.reward[-1] == 0 and np.isnan(g.distance[-1])
    assert measure(g, resamples=20)["rank"].value == 1.0  # what nothing is known of is left out


def test_table() -> None:
    rows = {"one": measure(grade(EPISODES, Brightness(), clustering="dbscan"), resamples=20)}
    lines = table(rows, ["rank", "auc"]).splitlines()
    assert lines[0] == "| | rank | auc |" and lines[2].startswith("| one | 1.00 [") and len(lines) == 3
