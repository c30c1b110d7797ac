from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from synthetic_run import picture

from srpo.report.video import _check_complete, caption, enlarge, read_mp4, side_by_side, write_gif, write_mp4
from srpo.types import SrpoError


def test_mp4_plays_in_browsers_and_holds_the_frames(tmp_path: Path) -> None:
    frames = np.full((5, 257, 301, 3), 90, np.uint8)
    frames[:, :, 150:] = (200, 60, 40)
    path = write_mp4(tmp_path / "new" / "a.mp4", frames, fps=5)
    meta = next(imageio_ffmpeg.read_frames(str(path)))
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p") and meta["fps"] == 5
    back = read_mp4(path)
    assert back.shape == (5, 258, 302, 3)  # odd sizes made even
    assert np.abs(back[2, 100, 50].astype(int) - 90).max() < 12
    assert np.abs(back[2, 100, 250].astype(int) - (200, 60, 40)).max() < 25
    head = path.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # starts before it has been loaded
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_video_cut_short_is_an_error_and_is_removed(tmp_path: Path, share: float) -> None:
    path = write_mp4(tmp_path / "clip.mp4", np.zeros((3, 64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(OSError, match="could not be written whole"):
        _check_complete(path)
    assert not path.exists()


def test_small_frames_are_enlarged_by_a_whole_number() -> None:
    assert enlarge(picture(2, 128)).shape == (2, 256, 256, 3)
    assert enlarge(picture(2, 100)).shape == (2, 300, 300, 3)
    assert enlarge(picture(2, 300)).shape == (2, 300, 300, 3)


def test_caption_leaves_the_picture_and_marks_the_verdict() -> None:
    frames = picture(4, 220)
    out = caption(frames, "success, 48 steps")
    assert out.shape == (4, 244, 220, 3)
    assert (out[:, 24:] == frames).all()
    green, red = out[-1, 23, 219], caption(frames, "failure")[-1, 23, 219]
    assert green[1] > green[0] and red[0] > red[1]
    assert (out[0, 23, 56] != green).all() and (out[0, 23, 54] == green).all()  # a quarter of the time: 55 px


def test_long_captions_are_cut(tmp_path: Path) -> None:
    strip = caption(picture(1, 64), "pick up the alphabet soup and place it in the basket")[0, :18]
    assert (strip[:, -4:] == strip[0, 0]).all()
    assert (strip != strip[0, 0]).any()


def test_side_by_side_waits_for_the_longer_one() -> None:
    left, right = picture(3, 256), picture(5, 128)
    out = side_by_side(left, right, gap=8)
    assert out.shape == (5, 256, 520, 3)
    assert (out[4, :, :256] == left[2]).all() and (out[:, :, 256:264] == 255).all()
    assert side_by_side(left, right, ("before", "after")).shape == (5, 256 + 28, 520, 3)


def test_gif(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "a.gif", picture(4, 128), fps=10, width=64, hold=1.0)
    with Image.open(path) as image:
        assert image.size == (64, 64) and image.n_frames == 4 and image.info["loop"] == 0
        durations = []
        for k in range(4):
            image.seek(k)
            durations.append(image.info["duration"])
        assert durations == [100, 100, 100, 1100]
        pixel = np.asarray(image.convert("RGB"))[25, 58]
    assert pixel[0] > 150 and pixel[1] < 90  # the square has arrived on the right


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_frames_of_another_kind_get_a_sentence(frames: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(SrpoError, match=r"shape \(T, H, W, 3\) in uint8"):
        write_mp4(tmp_path / "a.mp4", frames)


def test_no_video(tmp_path: Path) -> None:
    with pytest.raises(SrpoError, match="no video"):
        read_mp4(tmp_path / "a.mp4")
