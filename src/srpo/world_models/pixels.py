"""Raw pixels: the baseline that any latent space has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from srpo.world_models.base import change_since_first, segment_means


class PixelWorldModel:
    """Frames at ``size`` x ``size`` pixels, averaged over time segments and concatenated.

    Args:
        size: side of the shrunken frame, pixels.
        segments: time segments S of an episode.
    """

    def __init__(self, size: int = 24, segments: int = 4) -> None:
        self.size, self.segments = size, segments

    def frame_features(self, image: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(size * size * 3,) uint8."""
        small = Image.fromarray(image).resize((self.size, self.size), Image.Resampling.BOX)
        return np.asarray(small).reshape(-1)

    def trace(self, features: np.ndarray) -> np.ndarray:
        """(T, size * size * 3) float32: change since the first frame, in grey levels."""
        return change_since_first(features)

    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """(N, S * size * size * 3) float32 in [0, 1]."""
        return np.stack([segment_means(f.astype(np.float32) / 255, self.segments).ravel() for f in features])
