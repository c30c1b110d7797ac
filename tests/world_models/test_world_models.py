"""Episodes as vectors: time segments, encoders, and their independence of length and still scenery."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srpo.policies.backbone import shared_backbone
from srpo.types import SrpoError
from srpo.world_models import WorldModel, create, moments, segment_means
from srpo.world_models.base import MOMENTS, at_decisions, evenly
from srpo.world_models.compact import CompactWorldModel
from srpo.world_models.image import ImageWorldModel
from srpo.world_models.pixels import PixelWorldModel

pytestmark = pytest.mark.usefixtures("one_thread")


def picture(seed: int = 0, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_segment_means_worked_out_by_hand() -> None:
    # Edges of 3 segments of 6 frames: 0, 2, 4, 6.
    np.testing.assert_array_equal(segment_means(np.arange(6.0)[:, None], 3), [[0.5], [2.5], [4.5]])
    # Of 5 frames in 2 segments: 0, 2.5, 5; the frame in the middle belongs to both.
    np.testing.assert_array_equal(segment_means(np.arange(5.0)[:, None], 2), [[1.0], [3.0]])
    # 2 frames in 4 segments, and 1 frame.
    np.testing.assert_array_equal(segment_means(np.array([[1.0], [5.0]]), 4), [[1], [1], [5], [5]])
    np.testing.assert_array_equal(segment_means(np.array([[7.0, 8.0]]), 3), [[7, 8]] * 3)
    assert segment_means(np.zeros((4, 2)), 3).dtype == np.float32


@pytest.mark.parametrize("length", range(1, 30))
def test_every_frame_counts_in_some_segment(length: int) -> None:
    for t in range(length):
        features = np.zeros((length, 1))
        features[t] = 1.0
        assert segment_means(features, 4).sum() > 0


def test_length_alone() -> None:
    model = create("length")
    frames = np.zeros((5, 8, 8, 3), np.uint8)
    features = np.stack([model.frame_features(f, {}) for f in frames])
    np.testing.assert_array_equal(model.embed([features, features[:2]]), [[5.0], [2.0]])
    np.testing.assert_array_equal(model.trace(features), [[0], [1], [2], [3], [4]])


def test_moments_begin_with_the_first_frame_and_end_with_the_last() -> None:
    rng = np.random.default_rng(0)
    episodes = [rng.integers(0, 256, (length, 12), dtype=np.uint8) for length in (5, 40)]
    found = moments(PixelWorldModel(size=2), episodes)
    assert found.shape == (2, MOMENTS, 12) and found.dtype == np.float32
    for row, episode in zip(found, episodes, strict=True):
        assert not row[0].any()
        np.testing.assert_array_equal(row[-1], episode[-1].astype(float) - episode[0])
    # Of five frames every one is there, in order, some of them often.
    places = [int(np.flatnonzero((episodes[0] - m == episodes[0][0]).all(1))[0]) for m in found[0].astype(np.int64)]
    assert places == sorted(places) and set(places) == set(range(5))

    class Whole:
        def embed(self, features: list[np.ndarray]) -> np.ndarray: ...

    with pytest.raises(SrpoError, match=r"Whole embeds whole episodes only.*'image'"):
        moments(Whole(), episodes)  # type: ignore[arg-type]


def test_pixels() -> None:
    model = PixelWorldModel(size=2, segments=2)
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = [100, 0, 0]
    image[2:, 2:, 1] = [[200, 0], [0, 0]]
    feature = model.frame_features(image, {})
    np.testing.assert_array_equal(feature, [100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50, 0])
    black, white = np.zeros(12, np.uint8), np.full(12, 255, np.uint8)
    embedded = model.embed([np.stack([black, black, white, white]), np.stack([white, black])])
    assert embedded.dtype == np.float32
    np.testing.assert_array_equal(embedded, [[0] * 12 + [1] * 12, [1] * 12 + [0] * 12])


def test_image_features_are_pooled_stride_16_maps() -> None:
    model, image = ImageWorldModel(), picture(size=128)
    feature = model.frame_features(image, {})
    assert feature.shape == (112 * 16,) and feature.dtype == np.float16
    _, maps = shared_backbone()(torch.from_numpy(image)[None])
    by_hand = maps[0].reshape(112, 4, 2, 4, 2).mean((2, 4)).flatten()  # 8 x 8 places to 4 x 4
    np.testing.assert_allclose(feature.astype(np.float32), by_hand, atol=1e-2)


def test_image_features_are_taken_from_the_policy_where_it_has_them() -> None:
    model, image = ImageWorldModel(), picture()
    _, maps = shared_backbone()(torch.from_numpy(image)[None])
    shared = {"agentview_s16": maps[0].half().numpy()}
    np.testing.assert_array_equal(model.frame_features(image, shared), model.frame_features(image, {}))
    assert not model.frame_features(image, {"agentview_s16": np.zeros((112, 4, 4), np.float16)}).any()


def test_random_weights_are_another_encoder() -> None:
    image, shared = picture(), {"agentview_s16": np.zeros((112, 4, 4), np.float16)}
    random = ImageWorldModel(pretrained=False)
    feature = random.frame_features(image, shared)
    assert feature.any()  # does not take the policy's maps
    np.testing.assert_array_equal(feature, ImageWorldModel(pretrained=False).frame_features(image, {}))
    assert (feature != ImageWorldModel().frame_features(image, {})).any()


def test_image_embedding_is_what_changes() -> None:
    model = ImageWorldModel(segments=3)
    scenery = np.array([3.0, -1.0])
    motion = np.array([[0.0, 0], [1, 0], [1, 0.5]])
    expected = [1, 0, 0, 0.5]
    episodes = [
        (scenery + motion).astype(np.float16),  # three frames
        (10 * scenery + np.repeat(motion, 4, 0)).astype(np.float16),  # other scenery, four times as slow
    ]
    embedded = model.embed(episodes)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, [expected, expected], atol=1e-2)


class Custom:
    """A world model of a user."""

    def frame_features(self, image: np.ndarray, inputs: object) -> np.ndarray:
        return image.mean((0, 1))

    def embed(self, features: list[np.ndarray]) -> np.ndarray:
        return np.stack([f[-1] for f in features])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("image", ImageWorldModel),
        ("image-random", ImageWorldModel),
        ("pixels", PixelWorldModel),
        ("compact-random", CompactWorldModel),
        (f"{__name__}:Custom", Custom),
    ],
)
def test_by_name(name: str, kind: type) -> None:
    model: WorldModel = create(name)
    assert isinstance(model, kind)
    features = [np.stack([model.frame_features(picture(s, 32), {}) for s in range(n)]) for n in (3, 5)]
    embedded = model.embed(features)
    assert embedded.shape[0] == 2 and np.isfinite(embedded).all() and (embedded[0] != embedded[1]).any()


@pytest.mark.parametrize(
    ("name", "message"), [("vjepa", "choose image"), ("no.module:X", "Cannot load"), ("os:NoSuch", "Cannot load")]
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(SrpoError, match=message):
        create(name)


@pytest.mark.parametrize("decisions", [1, 2, 24, 35])
def test_a_decision_knows_no_moment_that_comes_after_it(decisions: int) -> None:
    looked = evenly(np.arange(decisions + 1.0))
    newest = at_decisions(looked, decisions)
    # Up to 31 decisions every frame is a moment, and a decision has its own; of more, no older one than the last.
    expected = np.arange(decisions) if decisions < 32 else [looked[looked <= t].max() for t in range(decisions)]
    np.testing.assert_array_equal(newest, expected)
