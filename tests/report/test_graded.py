"""Progress curves of graded episodes share one scale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srpo.report.graded import write_graded
from srpo.types import Episode, EpisodeRequest, InitialState, Task
from srpo.world_models import moments

TASK = Task("suite", 0, "name", "do it", 24)


class LastFrame:
    """World model: the features of the last frame."""

    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([f[-1] for f in features])

    def trace(self, features: np.ndarray) -> np.ndarray:
        return features - features[:1]


def episode(way: list[float], success: bool) -> Episode:
    t = len(way) - 1
    return Episode(
        request=EpisodeRequest(TASK, InitialState("sampled", 0), 0, 0, keep_frames=True),
        success=success,
        n_steps=8 * t,
        inputs={},
        tokens=np.zeros((t, 2), np.int16),
        log_probs=np.zeros((t, 2), np.float32),
        executed=np.full(t, 8, np.int16),
        frames={"agentview": np.zeros((t + 1, 8, 8, 3), np.uint8)},
        frame_features=np.array([[x, 1.0] for x in way], np.float32),
    )


def test_a_failure_that_stayed_away_does_not_reach_one(tmp_path: Path) -> None:
    # The success ends at 4; of the failures one comes to 3, the other to 1 (squared distances 1 and 9, from 16 on).
    episodes = [episode([0, 0, 2, 4], True), episode([0, 0, 2, 3], False), episode([0, 0, 1, 1], False)]
    embeddings = LastFrame().embed([e.frame_features for e in episodes if e.frame_features is not None])
    path = write_graded(tmp_path, episodes, np.array([1.0, 0.6, 0.3]), embeddings, LastFrame(), clustering="dbscan")  # type: ignore[arg-type]
    assert path is not None
    success, near, far = json.loads(path.read_text())["curves"]
    assert [c["label"] for c in (success, near, far)] == ["success", "failure", "failure"]
    assert success["progress"] == [0.0, 0.75, 1.0] and success["steps"] == [8, 16, 24]
    assert near["progress"] == [0.0, 0.75, round(15 / 16, 4)]
    assert far["progress"] == [0.0, round(7 / 16, 4), round(7 / 16, 4)]
    assert all((tmp_path / name).is_file() for c in (success, near, far) for name in c["thumbnails"])


def test_by_coverage_a_failure_has_the_share_of_the_moments_that_it_reached(tmp_path: Path) -> None:
    episodes = [episode([0, 2, 4], True), episode([0, 2, 4.5], True), episode([0, 2, 2], False)]
    embeddings = moments(LastFrame(), [e.frame_features for e in episodes if e.frame_features is not None])
    path = write_graded(tmp_path, episodes, np.array([1.0, 1.0, 0.3]), embeddings, LastFrame())
    assert path is not None
    success, failure = json.loads(path.read_text())["curves"]
    # Of 32 moments 8 are at the beginning, 16 in the middle, 8 at the end. Sigma is half the mean of the squared steps
    # 4, 4, 4 and 6.25; the failure stays 2 away from the nearer end, the success 0.5 from the other's.
    assert failure["progress"] == [round(0.75 + 0.25 * 2.28125 / 4, 4)] * 2
    steps = (4 + 6.25) / 4  # of the other success alone
    assert success["progress"] == [round(0.75 + 0.25 * steps / 2.5**2, 4), 1.0]


def test_nothing_to_show_without_a_success(tmp_path: Path) -> None:
    failure = episode([0, 1], False)
    assert write_graded(tmp_path, [failure], np.zeros(1), np.ones((1, 2)), LastFrame(), clustering="dbscan") is None  # type: ignore[arg-type]
    assert not (tmp_path / "graded.json").exists()
