"""Videos of episodes: MP4 that every browser plays, small GIFs for a README, captions."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from srpo.types import SrpoError

_INK, _STRIP = (238, 238, 238), (24, 27, 31)
_MARKS = {"success": (70, 190, 130), "failure": (235, 110, 80)}
_SMALLEST = 256


def write_mp4(path: str | Path, frames: np.ndarray, fps: float = 10, banner: str | None = None) -> Path:
    """Write H.264 in yuv420p, under a temporary name that is renamed at the end.

    Small frames are enlarged by a whole number to at least 256 px; odd sizes gain an edge row or column.

    Args:
        path: the .mp4 file; its folder is made if need be.
        frames: (T, H, W, 3) uint8 RGB.
        fps: frames per second.
        banner: a line of text on a strip above the picture, see `caption`.

    Raises:
        SrpoError: frames of another shape or dtype, or none.
        OSError: the file could not be written whole, because the disk is full for instance.
    """
    import imageio_ffmpeg

    frames = enlarge(_checked(frames))
    if banner:
        frames = caption(frames, banner)
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial.mp4")
    writer = imageio_ffmpeg.write_frames(
        str(partial),
        size=(frames.shape[2], frames.shape[1]),
        fps=fps,
        codec="libx264",
        pix_fmt_in="rgb24",
        pix_fmt_out="yuv420p",
        macro_block_size=1,
        quality=None,
        output_params=["-crf", "23", "-preset", "slow", "-movflags", "+faststart", "-threads", "1"],
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    _check_complete(partial)
    partial.replace(path)
    return path


def _check_complete(path: Path) -> None:
    """The encoder says nothing when it cannot write: a whole file has its index and ends where its last box ends."""
    boxes, position = [], 0
    with path.open("rb") as file:
        while head := file.read(8):
            size = int.from_bytes(head[:4], "big")
            boxes.append(head[4:])
            position += max(size, 8)
            file.seek(position)
    if b"moov" not in boxes or position != path.stat().st_size:
        path.unlink()
        raise OSError(errno.EIO, "the video could not be written whole", str(path))


def write_gif(
    path: str | Path,
    frames: np.ndarray,
    fps: float = 8,
    width: int | None = None,
    colors: int = 96,
    hold: float = 1.5,
) -> Path:
    """Write a looping GIF with one palette for all frames.

    Args:
        path: the .gif file.
        frames: (T, H, W, 3) uint8 RGB.
        fps: frames per second (GIF counts in hundredths of a second).
        width: scale to this many pixels; None: as it is.
        colors: size of the palette, at most 256.
        hold: seconds that the last frame stays.
    """
    frames = _checked(frames)
    images = [Image.fromarray(frame) for frame in frames]
    if width is not None:
        height = round(frames.shape[1] * width / frames.shape[2])
        images = [image.resize((width, height), Image.Resampling.LANCZOS) for image in images]
    sample = images[:: max(1, len(images) // 8)]
    sheet = Image.fromarray(np.concatenate([np.asarray(image) for image in sample]))
    palette = sheet.quantize(colors, method=Image.Quantize.MEDIANCUT)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    frame_ms = round(100 / fps) * 10
    durations = [frame_ms] * (len(indexed) - 1) + [frame_ms + round(hold * 100) * 10]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial.gif")
    indexed[0].save(partial, save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=True)
    partial.replace(path)
    return path


def side_by_side(
    left: np.ndarray, right: np.ndarray, captions: tuple[str, str] | None = None, gap: int = 8
) -> np.ndarray:
    """Two clips next to each other; the shorter one rests on its last frame.

    Args:
        left: (T1, H1, W1, 3) uint8.
        right: (T2, H2, W2, 3) uint8; scaled to the height of ``left`` if it differs.
        captions: text above each, see `caption`.
        gap: pixels between them.

    Returns:
        (max(T1, T2), H, W1 + gap + W2, 3) uint8; H is the enlarged height (see `enlarge`) plus the caption's.
    """
    clips = [enlarge(_checked(left)), enlarge(_checked(right))]
    height = clips[0].shape[1]
    if clips[1].shape[1] != height:
        size = (round(clips[1].shape[2] * height / clips[1].shape[1]), height)
        clips[1] = np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in clips[1]])
    if captions is not None:
        clips = [caption(clip, text) for clip, text in zip(clips, captions, strict=True)]
    length = max(len(clip) for clip in clips)
    clips = [np.concatenate([clip, np.repeat(clip[-1:], length - len(clip), axis=0)]) for clip in clips]
    between = np.full((length, clips[0].shape[1], gap, 3), 255, np.uint8)
    return np.concatenate([clips[0], between, clips[1]], axis=2)


def caption(frames: np.ndarray, text: str) -> np.ndarray:
    """Add a strip with a line of text above the picture, and a thin line below it that grows with time.

    A green mark stands before a text that contains the word "success", a red one before "failure".

    Args:
        frames: (T, H, W, 3) uint8.
        text: shortened with dots where it is wider than the picture.

    Returns:
        (T, H + h, W, 3) uint8 with h = max(20, H // 9), made even.
    """
    frames = _checked(frames)
    length, _, width, _ = frames.shape
    strip_height = max(20, frames.shape[1] // 9) // 2 * 2
    strip = Image.new("RGB", (width, strip_height), _STRIP)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size=round(0.56 * strip_height))
    x = margin = strip_height // 3
    mark = next((color for word, color in _MARKS.items() if word in text.lower()), None)
    if mark is not None:
        radius = strip_height // 6
        draw.ellipse((x, strip_height // 2 - radius, x + 2 * radius, strip_height // 2 + radius), fill=mark)
        x += 2 * radius + margin // 2
    draw.text((x, strip_height // 2), _shortened(text, width - x - margin, font), _INK, font=font, anchor="lm")
    out = np.empty((length, strip_height + frames.shape[1], width, 3), np.uint8)
    out[:, :strip_height] = np.asarray(strip)
    out[:, strip_height:] = frames
    for t in range(length):
        out[t, strip_height - 2 : strip_height, : round(width * (t + 1) / length)] = mark or _INK
    return out


def enlarge(frames: np.ndarray, smallest: int = _SMALLEST) -> np.ndarray:
    """Scale (T, H, W, 3) up by the least whole number that makes both sides ``smallest`` px or more."""
    factor = -(-smallest // min(frames.shape[1:3]))
    if factor <= 1:
        return frames
    size = (frames.shape[2] * factor, frames.shape[1] * factor)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])


def read_mp4(path: str | Path) -> np.ndarray:
    """All frames of a video, (T, H, W, 3) uint8 RGB."""
    import imageio_ffmpeg

    if not Path(path).is_file():
        raise SrpoError(f"There is no video at {path}; evaluate with videos first.")
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def _shortened(text: str, room: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text.rstrip() + "..."


def _checked(frames: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise SrpoError(
            f"A video needs frames of shape (T, H, W, 3) in uint8, got {frames.shape} {frames.dtype}; "
            "convert them first."
        )
    return frames
