"""The world models that feel the hand: `srpo.world_models.proprio`."""

from __future__ import annotations

import numpy as np
import pytest

from srpo.types import SrpoError
from srpo.world_models import create
from srpo.world_models.proprio import ImageProprioWorldModel, ProprioWorldModel

NO_PICTURE = np.zeros((2, 2, 3), np.uint8)


def test_hand_and_fingers_and_no_rotation() -> None:
    state = np.array([0.1, 0.2, 0.3, 3.1, -3.1, 0.5, 0.04, -0.04], np.float32)
    feature = ProprioWorldModel().frame_features(NO_PICTURE, {"state": state})
    np.testing.assert_array_equal(feature, np.array([0.1, 0.2, 0.3, 0.04, -0.04], np.float32))
    assert feature.dtype == np.float32


def test_a_trace_weighs_fingers_three_times_as_much() -> None:
    trace = ProprioWorldModel().trace(np.array([[0, 0, 0, 0, 0], [0.001, 0, 0, 0, -0.001]], np.float32))
    np.testing.assert_allclose(trace, [[0, 0, 0, 0, 0], [2, 0, 0, 0, -6]], rtol=1e-6)


def test_an_embedding_is_four_segments_means() -> None:
    way = np.repeat(np.arange(4, dtype=np.float32), 2)[:, None] * np.ones(5, np.float32)  # two frames a segment
    (embedded,) = ProprioWorldModel().embed([way])
    by_hand = np.outer([0, 1, 2, 3], [2000, 2000, 2000, 6000, 6000]).ravel()
    np.testing.assert_array_equal(embedded, by_hand)


@pytest.mark.parametrize("name", ["proprio", "image-proprio"])
def test_without_a_state_the_remedy_is_named(name: str) -> None:
    with pytest.raises(SrpoError, match=r"reads the robot's state.*--rollout\.world-model image"):
        create(name).frame_features(NO_PICTURE, {})
    with pytest.raises(SrpoError, match=r"another \(7 numbers"):
        create(name).frame_features(NO_PICTURE, {"state": np.zeros(7)})


def test_picture_and_hand_side_by_side() -> None:
    rng = np.random.default_rng(0)
    model, seen = create("image-proprio"), create("image")
    pictures = rng.integers(0, 255, (3, 64, 64, 3), np.uint8)
    states = rng.normal(size=(3, 8)).astype(np.float32)
    features = np.stack([model.frame_features(p, {"state": s}) for p, s in zip(pictures, states, strict=True)])
    images = np.stack([seen.frame_features(p, {}) for p in pictures])
    assert isinstance(model, ImageProprioWorldModel)
    trace = model.trace(features)
    np.testing.assert_array_equal(trace[:, :-5], seen.trace(images))
    np.testing.assert_allclose(trace[:, -5:], states[:, [0, 1, 2, 6, 7]] * [2000, 2000, 2000, 6000, 6000], rtol=1e-6)
    embedded = model.embed([features, features[:2]])
    np.testing.assert_array_equal(embedded[:, :-20], seen.embed([images, images[:2]]))
    np.testing.assert_array_equal(embedded[:, -20:], ProprioWorldModel().embed([features[:, -5:], features[:2, -5:]]))
