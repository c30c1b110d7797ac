"""From frames to a clip: which, and resized, cropped and normalised as V-JEPA 2 expects it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from srpo.types import SrpoError
from srpo.world_models.video_frames import Preprocessing, checked_frames, chosen_frames

pytestmark = pytest.mark.usefixtures("one_thread")


def grey_levels(clip: torch.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """(T, 3, crop, crop) as pixels from 0 to 255."""
    std, mean = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocessing.std, preprocessing.mean))
    return ((clip * std + mean) * 255).numpy()


def test_frames_worked_out_by_hand() -> None:
    assert chosen_frames(9, 5).tolist() == [0, 2, 4, 6, 8]
    assert chosen_frames(10, 4).tolist() == [0, 3, 6, 9]
    assert chosen_frames(8, 4).tolist() == [0, 2, 4, 7]  # floor of 0, 7/3, 14/3, 7
    assert chosen_frames(3, 8).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert chosen_frames(1, 4).tolist() == [0, 0, 0, 0]
    assert chosen_frames(7, 1).tolist() == [0]


@given(length=st.integers(1, 600), count=st.sampled_from([2, 8, 16, 64]))
def test_frames_are_spread_evenly_and_never_start_again(length: int, count: int) -> None:
    chosen = chosen_frames(length, count)
    steps = np.diff(chosen)
    assert chosen.shape == (count,) and chosen[0] == 0 and chosen[-1] == length - 1
    assert (steps >= 0).all() and np.ptp(steps) <= 1
    if length <= count:
        assert np.ptp(np.bincount(chosen, minlength=length)) <= 1  # each frame as often as any other
    else:
        late = np.linspace(0, length - 1, count) - chosen  # rounded down to a frame, as the paper's code does
        assert (late > -1e-9).all() and (late < 1).all()


@pytest.mark.parametrize(("crop", "short"), [(256, 292), (384, 438), (224, 256)])
def test_short_side(crop: int, short: int) -> None:
    assert Preprocessing(crop).short_side == short


def test_grey_levels_of_the_processor_of_transformers() -> None:
    # What VJEPA2VideoProcessor(crop_size=32) of transformers 5.23 (torchvision 0.28, uint8 on a CPU) makes of this clip
    # of (2, 45, 64, 3): second frame, every eighth pixel.
    expected = [
        [99, 100, 99, 98, 131, 128, 129, 129, 158, 159, 158, 157, 143, 118, 135, 111],
        [114, 111, 112, 112, 141, 142, 141, 140, 173, 101, 171, 94, 135, 74, 127, 144],
        [124, 125, 124, 123, 156, 153, 154, 154, 118, 134, 110, 127, 87, 143, 87, 136],
    ]
    clip = (np.arange(2 * 45 * 64 * 3) * 7919 % 251).astype(np.uint8).reshape(2, 45, 64, 3)
    preprocessing = Preprocessing(32)
    ours = grey_levels(preprocessing(torch.from_numpy(clip)), preprocessing)[1, :, ::8, ::8].reshape(3, -1)
    assert np.abs(ours - expected).max() <= 1.001


@pytest.mark.parametrize("size", [(20, 20), (45, 64), (71, 40), (36, 36), (90, 51)])
def test_resizing_equals_pillows_to_one_grey_level(size: tuple[int, int]) -> None:
    preprocessing, rng = Preprocessing(32), np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    resized = preprocessing.resize(torch.from_numpy(frames)).numpy().astype(int)
    assert min(resized.shape[1:3]) == 36
    for ours, frame in zip(resized, frames, strict=True):
        theirs = Image.fromarray(frame).resize(ours.shape[1::-1], Image.Resampling.BILINEAR)
        assert np.abs(ours - np.asarray(theirs).astype(int)).max() <= 1


def test_crop_and_normalisation_by_hand() -> None:
    preprocessing = Preprocessing(4, mean=(0.0, 0.5, 0.25), std=(1.0, 0.5, 0.25))  # short side 4: no margin above
    frames = np.zeros((1, 4, 7, 3), np.uint8)
    frames[0, :, :, 0] = np.arange(7)  # columns 0 to 6; a margin of 3: one on the left, two on the right
    frames[..., 1:] = 255
    clip = preprocessing(torch.from_numpy(frames))
    assert clip.shape == (1, 3, 4, 4) and clip.dtype == torch.float32
    np.testing.assert_allclose(clip[0, 0, 0] * 255, [1, 2, 3, 4], rtol=1e-6)
    np.testing.assert_allclose(clip[0, 1:, 0, 0], [1.0, 3.0], rtol=1e-6)


@pytest.mark.parametrize("size", [(20, 30), (36, 36), (64, 48), (200, 120)])
def test_shrinking_first_changes_nothing(size: tuple[int, int]) -> None:
    preprocessing = Preprocessing(32)
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    small = preprocessing.shrink(frames)
    assert small.numel() <= frames.numel()
    assert torch.equal(preprocessing(small), preprocessing(frames))


@pytest.mark.parametrize(
    "episode",
    [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 64), np.uint8)],
    ids=["empty", "floats", "features"],
)
def test_what_is_no_video_is_refused(episode: np.ndarray) -> None:
    with pytest.raises(SrpoError, match=r"Episode 1 is an array.*keep them while rolling out"):
        checked_frames([np.zeros((1, 8, 8, 3), np.uint8), episode])
