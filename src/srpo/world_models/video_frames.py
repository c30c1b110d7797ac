"""From an episode's frames to the clip that a video model reads: which frames, resized and cropped how.

Plain torch: the processors of `transformers` need torchvision, whose PyPI build does not import beside a CPU build of
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from srpo.types import SrpoError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Short side to ``short_side``, square of ``crop`` from the centre, normalised per channel.

    Attributes:
        crop: side of the square that the model sees, pixels.
        mean: of R, G and B in [0, 1].
        std: of R, G and B.
    """

    crop: int = 256
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side after resizing: floor(crop * 256 / 224), as V-JEPA 2 was evaluated and as the
        processor of `transformers` computes it (it does not read a ``size`` from the model's folder); 438 for a crop
        of 384, 292 for 256."""
        return int(self.crop * 256 / 224)

    def shrink(self, frames: torch.Tensor) -> torch.Tensor:
        """Resize only if that makes the frames smaller: the cheapest form of them that still gives the same clip.

        Args:
            frames: (T, H, W, 3) uint8.

        Returns:
            (T, h, w, 3) uint8, h and w not below the short side unless H or W were.
        """
        return self.resize(frames) if min(frames.shape[1:3]) > self.short_side else frames

    def resize(self, frames: torch.Tensor) -> torch.Tensor:
        """Bilinear with antialiasing, rounded to whole grey levels, so that resizing twice is resizing once.

        Args:
            frames: (T, H, W, 3) uint8.

        Returns:
            (T, h, w, 3) uint8 with min(h, w) = ``short_side``; the longer side is rounded down.
        """
        height, width = frames.shape[1:3]
        short = min(height, width)
        if short == self.short_side:
            return frames
        size = (self.short_side * height // short, self.short_side * width // short)
        planes = frames.permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)
        return resized.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Resize, crop (an odd margin leaves the extra line at the bottom or right), scale, normalise.

        Args:
            frames: (T, H, W, 3) uint8, on any device.

        Returns:
            (T, 3, crop, crop) float32.
        """
        resized = self.resize(frames)
        top, left = ((side - self.crop) // 2 for side in resized.shape[1:3])
        square = resized[:, top : top + self.crop, left : left + self.crop].permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v, device=frames.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (square / 255 - mean) / std


def chosen_frames(length: int, count: int) -> np.ndarray:
    """Which frames make the clip: evenly over the episode, the first and the last among them.

    From ``count`` frames on: floor(i * (length - 1) / (count - 1)), as in the paper's code. A shorter episode is played
    slower, frame floor(i * length / count), each shown equally often up to one time; the paper's code starts it again
    from the beginning instead, which shows the model a motion that never happened.

    Args:
        length: frames of the episode T >= 1.
        count: frames of the clip >= 1.

    Returns:
        (count,) int64, rising.
    """
    steps = np.arange(count)
    if length < count or count == 1:
        return steps * length // count
    return steps * (length - 1) // (count - 1)


def checked_frames(episodes: Sequence[np.ndarray]) -> None:
    """Refuse what is no video.

    Raises:
        SrpoError: an episode is not (T, H, W, 3) uint8 with T >= 1.
    """
    for i, frames in enumerate(episodes):
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise SrpoError(
                f"Episode {i} is an array of shape {frames.shape} and type {frames.dtype}: a video model needs its "
                "frames, (T, H, W, 3) uint8 with one frame or more, so keep them while rolling out."
            )
