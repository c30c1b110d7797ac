"""Demonstrations as the first references of the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srpo.data.demonstrations import Demonstration
from srpo.types import InitialState, SrpoError, Task
from synthetic_training import CONFIG, TASKS, LastFrame, Make, trainer


class EndOfPicture(LastFrame):
    """World model that reads the first two grey levels of a picture as the place where it was taken."""

    def frame_features(self, image: np.ndarray, inputs: Any) -> np.ndarray:
        return image[0, 0, :2].astype(np.float32)


def demonstration(task: Task, cameras: tuple[str, ...] = ("agentview",)) -> Demonstration:
    """Five control steps; the pictures say (0, 1) to (4, 1)."""
    images = np.ones((5, 16, 16, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(5)
    nothing = np.zeros((5, 8), np.float32)
    return Demonstration(task, InitialState("sampled", 3), dict.fromkeys(cameras, images), nothing, nothing[:, :7])


def test_demonstrations_grade_where_nothing_has_succeeded(tmp_path: Path, tiny_policy: Make) -> None:
    loop = trainer(tiny_policy(0), tmp_path, verdict=lambda request, tokens: False)
    loop.world_model = EndOfPicture()
    elsewhere = Task("synthetic", 7, "t7", "go", max_steps=4)
    loop.show([demonstration(TASKS[0]), demonstration(elsewhere)])
    assert loop.replay is not None and len(loop.replay) == 1  # of another task there is nothing to grade
    row, record = loop.step()
    first = np.array([e.request.task.index == 0 for e in record.episodes])
    gap = (record.embeddings[first, 0] - 4.0) ** 2
    np.testing.assert_allclose(record.reward[first], 0.8 / (1 + np.exp((gap - gap.mean()) / gap.std())), rtol=1e-5)
    assert (record.reward[~first] == 0).all() and row["groups_informative"] == 2


def test_own_successes_push_demonstrations_out(tmp_path: Path, tiny_policy: Make) -> None:
    loop = trainer(tiny_policy(0), tmp_path, verdict=lambda request, tokens: True, replay=3)
    loop.world_model = EndOfPicture()
    loop.show([demonstration(t) for t in TASKS])
    loop.step()
    kept = loop.replay.references()[0]
    assert len(kept) == 6 and not (kept[:, 0] == 4.0).any()


def test_a_world_model_may_read_the_state_of_a_demonstration(tmp_path: Path, tiny_policy: Make) -> None:
    class Hand(LastFrame):
        def frame_features(self, image: np.ndarray, inputs: Any) -> np.ndarray:
            return inputs["state"][:2]

    loop = trainer(tiny_policy(0), tmp_path)
    loop.world_model = Hand()
    shown = [demonstration(t) for t in TASKS]
    for k, one in enumerate(shown):
        one.states[:] = k + np.arange(5)[:, None]
    loop.show(shown)
    assert loop.replay is not None
    np.testing.assert_array_equal(loop.replay.references()[0][:, 0], [4 + k for k in range(len(TASKS))])


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ([demonstration(TASKS[0], ("wrist",))], "lack the camera 'agentview'"),
        ([demonstration(Task("synthetic", 7, "t7", "go", max_steps=4))], "No demonstration is of synthetic/0"),
        ([], "No demonstration"),
    ],
)
def test_demonstrations_that_cannot_be_references(
    tmp_path: Path, tiny_policy: Make, shown: list[Demonstration], message: str
) -> None:
    loop = trainer(tiny_policy(0), tmp_path)
    loop.world_model = EndOfPicture()
    with pytest.raises(SrpoError, match=message):
        loop.show(shown)
    with pytest.raises(SrpoError, match="--replay 1"):
        replace(CONFIG, demonstrations="demos", replay=0)
