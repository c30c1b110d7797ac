from __future__ import annotations

import numpy as np
import pytest

from srpo.policies.backbone import STRIDE16_CHANNELS as C
from srpo.types import SrpoError
from srpo.world_models import change, create
from srpo.world_models.base import MOMENTS, moments, trace


def features(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((length, C, 8, 8)).astype(np.float16)


@pytest.fixture(scope="module")
def model():
    return create("change")


def test_fitted_changes_have_unit_covariance_but_for_the_ridge():
    rng = np.random.default_rng(0)
    mix = np.linalg.qr(rng.standard_normal((C, C)))[0] * np.linspace(0.5, 2.0, C)
    episodes = [np.einsum("cd,tdhw->tchw", mix, rng.standard_normal((30, C, 8, 8))) for _ in range(8)]
    fitted = change.fit(episodes, every=1)
    changes = np.concatenate([(e - e[:1])[1:] for e in episodes]).transpose(0, 2, 3, 1).reshape(-1, C)
    covariance = np.cov((changes @ fitted.whitening).T)
    np.testing.assert_allclose(covariance, np.eye(C), atol=0.05)


def test_projection_keeps_distances(model):
    maps = features(12)
    white = np.einsum("tchw,cd->tdhw", maps.astype(np.float32) - maps[:1], model.whitening).reshape(12, -1)
    seen = model.trace(maps)
    assert seen.shape == (12, 1024) and seen.dtype == np.float32
    assert not seen[0].any()
    pairs = np.triu_indices(12, 1)
    exact = np.linalg.norm(white[:, None] - white[None], axis=-1)[pairs]
    short = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[pairs]
    np.testing.assert_allclose(short / exact, 1.0, atol=0.1)


def test_embedding_is_the_largest_change_in_either_direction(model):
    unit = change.ChangeWorldModel(np.eye(C))
    maps = np.zeros((4, C, 8, 8), np.float16)
    maps[1, 3, 2, 5], maps[2, 3, 2, 5] = -2.0, 1.0
    embedded = unit.embed([maps])[0].reshape(C, 8, 8)
    assert embedded[3, 2, 5] == 2.0 and embedded.sum() == 2.0


def test_moments_begin_with_the_first_frame_and_end_with_the_last(model):
    episodes = [features(5), features(40, 1)]
    found = moments(model, episodes)
    assert found.shape == (2, MOMENTS * 1024)
    for row, episode in zip(found.reshape(2, MOMENTS, 1024), episodes, strict=True):
        whole = trace(model, episode)
        np.testing.assert_array_equal(row[0], whole[0])
        np.testing.assert_array_equal(row[-1], whole[-1])
    with pytest.raises(SrpoError, match="whole episodes only"):
        moments(create("length"), [np.zeros((3, 1))])


def test_frame_features_are_the_policys_maps_at_any_size(model):
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert model.frame_features(image, {}).shape == (C, 8, 8)
    maps = features(1)[0]
    np.testing.assert_array_equal(model.frame_features(image, {"agentview_s16": maps}), maps)


def test_saved_and_read_again(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = create(f"change:{tmp_path}")
    np.testing.assert_array_equal(again.trace(features(3)), model.trace(features(3)))
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(SrpoError, match="cannot be read as whitened changes"):
        create(f"change:{tmp_path}")


@pytest.mark.parametrize("episodes, message", [([], "nothing to fit"), ([np.ones((6, C, 8, 8))], "Nothing moves")])
def test_nothing_to_fit(episodes, message):
    with pytest.raises(SrpoError, match=message):
        change.fit(episodes)
