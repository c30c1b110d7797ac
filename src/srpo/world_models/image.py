"""Frame encoder with pretrained weights: EfficientNet-Lite0 feature maps, compared as differences between segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from srpo.policies.backbone import shared_backbone
from srpo.world_models.base import change_since_first, segment_means

_GRID = 4


class ImageWorldModel:
    """Stride-16 maps pooled to a 4 x 4 grid per frame; an episode is how they change over four time segments.

    Differences drop what never moves (table, background, which objects stand about) and keep what the robot did.

    Args:
        pretrained: False: the same network with random weights, the baseline every quality table must show.
        segments: time segments S of an episode.
    """

    def __init__(self, pretrained: bool = True, segments: int = 4) -> None:
        self.pretrained, self.segments = pretrained, segments

    def frame_features(self, image: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(112 * 16,) float16."""
        stride16 = inputs.get("agentview_s16") if self.pretrained else None
        if stride16 is None:
            _, maps = shared_backbone(self.pretrained)(torch.from_numpy(np.ascontiguousarray(image))[None])
            stride16 = maps[0].half().numpy()
        pooled = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(stride16).float()[None], _GRID)
        return pooled.flatten().half().numpy()

    def trace(self, features: np.ndarray) -> np.ndarray:
        """(T, 1792) float32: change of the pooled maps since the first frame."""
        return change_since_first(features)

    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """(N, (S - 1) * 1792) float32: successive differences of segment means."""
        return np.stack([np.diff(segment_means(f.astype(np.float32), self.segments), axis=0).ravel() for f in features])
