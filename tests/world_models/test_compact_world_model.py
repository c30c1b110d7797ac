"""The compact video world model: tokens in their places, masks, training that does not collapse, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo.types import SrpoError
from srpo.world_models import jepa
from srpo.world_models.compact import CompactWorldModel
from srpo.world_models.video_transformer import Predictor, VideoConfig, VideoEncoder, gather, positions

TINY = VideoConfig(frames=8, grid=4, channels=6, width=24, depth=2, heads=2, predictor_width=12, predictor_depth=1)


@pytest.fixture
def encoder() -> VideoEncoder:
    torch.manual_seed(0)
    return VideoEncoder(TINY).eval()


def wandering(seed: int, length: int = 9) -> np.ndarray:
    """(T, 6, 4, 4): a bright spot that walks over the map, in a channel of its own."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((length, 6, 4, 4), np.float16)
    start, end, channel = rng.uniform(0, 3, 2), rng.uniform(0, 3, 2), rng.integers(6)
    for t in range(length):
        row, column = (start + (end - start) * t / (length - 1)).round().astype(int)
        maps[t, channel, row, column] = 3.0
    return maps


def test_a_token_reads_its_own_tubelet_and_no_other(encoder: VideoEncoder) -> None:
    """Token (time, row, column) holds 2 frames x 2 x 2 cells; before the blocks nothing is mixed."""
    maps = torch.zeros(1, 8, 6, 4, 4)
    maps[0, 5, 3, 2, 1] = 1.0  # frame 5: time 2; cell (2, 1): token row 1, column 0
    changed = (encoder._tubelets(maps) != 0).any(-1)[0].nonzero().flatten().tolist()
    assert changed == [2 * 4 + 1 * 2 + 0] and TINY.tokens == 16


def test_hidden_tokens_are_not_seen(encoder: VideoEncoder) -> None:
    maps = torch.randn(1, 8, 6, 4, 4)
    keep = torch.tensor([[0, 1, 2, 3, 4]])
    before = encoder(maps, keep)
    maps[:, 4:] = 99.0  # times 2 and 3: tokens 8 to 15
    torch.testing.assert_close(encoder(maps, keep), before)
    assert before.shape == (1, 5, 24)
    whole = encoder(maps, torch.arange(16)[None])
    torch.testing.assert_close(whole, encoder(maps))


def test_positions_tell_all_places_apart() -> None:
    table = positions(TINY, 24)[0]
    assert table.shape == (16, 24) and torch.pdist(table).min() > 0.1
    assert positions(TINY, 20).shape == (1, 16, 20)  # not a multiple of six


def test_the_predictor_answers_for_the_places_asked() -> None:
    torch.manual_seed(0)
    predictor = Predictor(TINY)
    visible, keep = torch.randn(2, 3, 24), torch.tensor([[0, 5, 9], [0, 5, 9]])
    wanted = torch.tensor([[1, 2], [1, 2]])
    there = predictor(visible, keep, wanted)
    back = predictor(visible, keep, wanted.flip(1))
    assert there.shape == (2, 2, 24)
    torch.testing.assert_close(there, back.flip(1))


def test_gather() -> None:
    tokens = torch.arange(12.0).reshape(1, 4, 3)
    assert gather(tokens, torch.tensor([[2, 0]])).tolist() == [[[6, 7, 8], [0, 1, 2]]]


@given(st.integers(0, 10_000))
def test_masks_hide_something_and_leave_something(seed: int) -> None:
    config = VideoConfig()
    seen, hidden = jepa.masks(config, np.random.default_rng(seed))
    assert len(seen) and len(hidden) and sorted([*seen, *hidden]) == list(range(config.tokens))
    places = np.zeros(config.tokens, bool)
    places[hidden] = True
    places = places.reshape(config.times, -1)
    end = places.all(1) | ~places.any(1)
    assert end.all() or (places == places[0]).all()  # the end of the clip, or regions throughout


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_clips_run_forward(seed: int, length: int) -> None:
    clip = jepa.clip_of(np.arange(length), 8, np.random.default_rng(seed))
    assert clip.shape == (8,) and (np.diff(clip) >= 0).all() and 0 <= clip[0] <= clip[-1] < length
    assert clip[-1] - clip[0] + 1 >= min(length, max(2, length / 2)) - 1e-9


def test_training_learns_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    features = [wandering(seed) for seed in range(60)]
    config = jepa.JepaConfig(steps=60, batch=16, learning_rate=2e-3, warmup=5, check_every=20, model=TINY)
    rows: list[dict[str, float]] = []
    whole = jepa.train(features, config, tmp_path / "whole", on_step=rows.append)
    checks = [r for r in rows if "effective_rank" in r]
    assert [r["step"] for r in checks] == [20, 40, 60]
    assert np.mean([r["loss"] for r in rows[-10:]]) < 0.9 * np.mean([r["loss"] for r in rows[:10]])
    assert checks[-1]["effective_rank"] > 2

    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 47:
            raise Killed

    with pytest.raises(Killed):
        jepa.train(features, config, tmp_path / "cut", on_step=kill)
    again = jepa.train(features, config, tmp_path / "cut", resume=True)
    for key, value in whole.encoder.state_dict().items():
        torch.testing.assert_close(again.encoder.state_dict()[key], value, rtol=0, atol=0)


def test_decorrelation_by_hand() -> None:
    """Two clips of one token with two dimensions. At (+-3, 0): variances 18 (one degree of freedom) and 0, no
    covariance; the second dimension lacks 1 - 0.01. At (+-3, +-3): variances 18, covariance 18, twice its square."""
    apart = torch.tensor([[[3.0, 0.0]], [[-3.0, 0.0]]])
    assert float(jepa.decorrelation(apart)) == pytest.approx((1 - 0.01) / 2, rel=1e-4)
    same = torch.tensor([[[3.0, 3.0]], [[-3.0, -3.0]]])
    assert float(jepa.decorrelation(same)) == pytest.approx(2 * 18**2 / 2 / 25, rel=1e-4)


def test_decorrelation_counts_differences_between_clips_alone() -> None:
    places = torch.randn(1, 5, 8).expand(6, -1, -1)  # six clips that differ in nothing, tokens that differ by place
    assert float(jepa.decorrelation(places)) == pytest.approx(1 - 0.01, rel=1e-4)


def test_every_frame_has_the_tokens_of_its_time(encoder: VideoEncoder) -> None:
    model = CompactWorldModel(encoder)
    features = wandering(0, 16)
    found = model.trace(features)
    assert found.shape == (16, 4 * 24) and not found[0].any()
    # 8 of the 16 frames are read, two to a token: frames lie in four times in turn, each with the same tokens.
    kind = np.unique(found, axis=0, return_inverse=True)[1].ravel()
    assert len(set(kind.tolist())) == 4 and (np.diff(np.flatnonzero(np.diff(kind))) >= 3).all()
    assert model.trace(features[:1]).shape == (1, 96)


def test_a_collapse_stops_the_run(tmp_path: Path) -> None:
    same = [np.repeat(wandering(0)[:1], 9, 0)] * 8  # still pictures, all alike
    with pytest.raises(SrpoError, match="collapsed after 1 steps"):
        jepa.train(same, jepa.JepaConfig(steps=1, batch=2, model=TINY), tmp_path)


def test_too_few_episodes(tmp_path: Path) -> None:
    with pytest.raises(SrpoError, match="record some hundreds"):
        jepa.train([wandering(0)] * 3, jepa.JepaConfig(model=TINY), tmp_path)


@pytest.mark.parametrize(("pool", "size"), [("mean", 24), ("change", 72)])
def test_embeddings_do_not_depend_on_company_and_survive_the_disk(
    encoder: VideoEncoder, tmp_path: Path, pool: str, size: int
) -> None:
    model = CompactWorldModel(encoder, pool)
    features = [wandering(1), wandering(2, length=20), wandering(3, length=2)]
    together = model.embed(features)
    assert together.shape == (3, size) and together.dtype == np.float32
    np.testing.assert_array_equal(model.embed(features[1:2])[0], together[1])
    model.save_pretrained(tmp_path)
    again = CompactWorldModel.from_pretrained(tmp_path)
    assert again.pool == pool
    np.testing.assert_allclose(again.embed(features), together, atol=0.02)  # float16 on disk


def test_an_episode_without_any_change_has_no_change(encoder: VideoEncoder) -> None:
    """Positions in time differ, so the change is not zero, but it is the same for every still scene of a kind."""
    still = np.repeat(wandering(1)[:1], 8, 0)
    moving = wandering(1)
    model = CompactWorldModel(encoder, "change")
    a, b = model.embed([still, still])
    np.testing.assert_array_equal(a, b)
    assert np.abs(model.embed([moving])[0] - a).max() > 1e-3


def test_frame_features_from_pixels_or_from_the_policys_maps() -> None:
    model = CompactWorldModel(VideoEncoder(VideoConfig(depth=1)))
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    own = model.frame_features(image, {})
    assert own.shape == (112, 8, 8) and own.dtype == np.float16
    np.testing.assert_array_equal(model.frame_features(image, {"agentview_s16": own}), own)
    small = model.frame_features(image[:64, :64], {})
    assert small.shape == (112, 8, 8)


@pytest.mark.parametrize("damage", ["missing", "config", "weights", "other"])
def test_bad_files(encoder: VideoEncoder, tmp_path: Path, damage: str) -> None:
    CompactWorldModel(encoder).save_pretrained(tmp_path)
    if damage == "missing":
        (tmp_path / "model.safetensors").unlink()
    elif damage == "config":
        (tmp_path / "config.json").write_text("{")
    elif damage == "weights":
        (tmp_path / "model.safetensors").write_bytes(b"12345")
    else:
        (tmp_path / "config.json").write_text('{"model_type": "srpo-compact"}')
    with pytest.raises(SrpoError, match="cannot be read as a compact world model"):
        CompactWorldModel.from_pretrained(tmp_path)


def test_unknown_pooling(encoder: VideoEncoder) -> None:
    with pytest.raises(SrpoError, match="mean or change"):
        CompactWorldModel(encoder, "max")


def test_untrained_is_the_same_every_time_and_leaves_the_random_state_alone() -> None:
    features = [np.random.default_rng(0).normal(size=(5, 112, 8, 8)).astype(np.float16)]
    torch.manual_seed(7)
    first = CompactWorldModel.untrained().embed(features)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)
    np.testing.assert_array_equal(CompactWorldModel.untrained().embed(features), first)
    assert not np.array_equal(CompactWorldModel.untrained(seed=1).embed(features), first)
