"""The latent space in which episodes are compared.

A world model works in two places: `frame_features` runs in the rollout worker, once per decision point, on a CPU core
that has just rendered the frame; the rest runs in the trainer: `trace` makes one vector a frame, which coverage
compares, and `embed` one an episode, for the paper's distance. A video model such as V-JEPA 2 returns the (resized)
frame from the first and does its work in the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from srpo.types import SrpoError


class WorldModel(Protocol):
    """One frozen encoder."""

    def frame_features(self, image: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """What is kept of one frame.

        Args:
            image: (H, W, 3) uint8, the third-person camera.
            inputs: what the policy computed from the same moment; an encoder that shares the policy's frozen
                backbone reads its feature maps here instead of running it again. Of a demonstration, its ``state``.

        Returns:
            An array of one shape for all frames.
        """
        ...

    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """One vector an episode.

        Args:
            features: N arrays (T_i, ...): the features of an episode's frames in time order.

        Returns:
            (N, E) float32.
        """
        ...

    def trace(self, features: np.ndarray) -> np.ndarray:
        """One vector a frame, of what has changed since the first.

        Args:
            features: (T, ...): the features of an episode's frames in time order.

        Returns:
            (T, E) float32.
        """
        ...


def segment_means(features: np.ndarray, segments: int) -> np.ndarray:
    """Mean features of equal time segments of an episode, so that its length drops out.

    Args:
        features: (T, D), T >= 1. Fewer frames than segments: neighbouring segments share a frame.
        segments: number of segments S.

    Returns:
        (S, D) float32.
    """
    length = len(features)
    edges = np.linspace(0, length, segments + 1)
    starts = np.minimum(np.floor(edges[:-1]).astype(int), length - 1)
    ends = np.maximum(np.ceil(edges[1:]).astype(int), starts + 1)
    return np.stack([features[s:e].mean(0) for s, e in zip(starts, ends, strict=True)]).astype(np.float32)


#: Moments of an episode that are kept for coverage. Episodes with fewer decisions repeat some, which changes nothing.
MOMENTS = 32


def moments(world_model: WorldModel, features: Sequence[np.ndarray]) -> np.ndarray:
    """Episodes as moments, for `srpo.rewards.progress_rewards` with ``clustering="coverage"``, the default.

    Args:
        world_model: has ``trace(features (T, ...)) -> (T, E)``, a vector a frame.
        features: N arrays (T_i, ...): the features of an episode's frames in time order.

    Returns:
        (N, MOMENTS, E) float32: the first moment, the last, and evenly between.

    Raises:
        SrpoError: the world model knows whole episodes only.
    """
    return np.stack([evenly(trace(world_model, f)) for f in features]).astype(np.float32)


def evenly(trace: np.ndarray, count: int = MOMENTS) -> np.ndarray:
    """(count, E): rows of (T, E) from the first to the last, the nearest ones to evenly spaced times."""
    return trace[np.linspace(0, len(trace) - 1, count).round().astype(int)]


def at_decisions(moment: np.ndarray, decisions: int) -> np.ndarray:
    """What is known at each decision of numbers that belong to the moments that `evenly` takes of an episode's frames:
    one frame before every decision, and a last one of what the last decision led to.

    Args:
        moment: (count,), one a moment.
        decisions: of the episode, D >= 1.

    Returns:
        (D,), at each decision the number of the newest moment until then.
    """
    looked = np.linspace(0, decisions, len(moment)).round()
    return moment[np.searchsorted(looked, np.arange(decisions), side="right") - 1]


def trace(world_model: WorldModel, features: np.ndarray) -> np.ndarray:
    """(T, E) float32, a vector a frame; SrpoError if the world model knows whole episodes only."""
    own = getattr(world_model, "trace", None)
    if own is None:
        raise SrpoError(
            f"{type(world_model).__name__} embeds whole episodes only: set --clustering dbscan, or use the world model "
            "'image'."
        )
    return own(features)


def change_since_first(features: np.ndarray) -> np.ndarray:
    """(T, ...) to (T, E) float32, each frame less the first."""
    flat = features.reshape(len(features), -1).astype(np.float32)
    return flat - flat[:1]


def create(name: str) -> WorldModel:
    """A world model by name.

    ``"image"``, ``"image-random"``, ``"pixels"``, ``"proprio"``, ``"image-proprio"``, ``"length"``,
    ``"compact-random"``;
    ``"vjepa2-vitl"``, ``"vjepa2-vith"``, ``"vjepa2-vitg"``, ``"vjepa2-vitg-384"`` with weights from the Hugging Face
    hub, ``"vjepa2:<folder>"`` with weights from there; ``"compact:<folder>"``, made by ``srpo world-model train``; or
    an import string ``module:Class``.

    Raises:
        SrpoError: there is none of that name.
    """
    from srpo.world_models.compact import CompactWorldModel
    from srpo.world_models.image import ImageWorldModel
    from srpo.world_models.length import LengthWorldModel
    from srpo.world_models.pixels import PixelWorldModel
    from srpo.world_models.proprio import ImageProprioWorldModel, ProprioWorldModel
    from srpo.world_models.vjepa2 import PUBLISHED, VJepa2WorldModel

    if name == "image":
        return ImageWorldModel()
    if name == "image-random":
        return ImageWorldModel(pretrained=False)
    if name == "pixels":
        return PixelWorldModel()
    if name == "proprio":
        return ProprioWorldModel()
    if name == "image-proprio":
        return ImageProprioWorldModel()
    if name == "length":
        return LengthWorldModel()
    if name == "compact-random":
        return CompactWorldModel.untrained()
    if name.startswith("compact:"):
        return CompactWorldModel.from_pretrained(name.removeprefix("compact:"))
    if name in PUBLISHED or name.startswith("vjepa2:"):
        return VJepa2WorldModel(name.removeprefix("vjepa2:"))
    if ":" in name:
        from srpo.plugins import load

        return load(name)()
    own = ("image", "image-random", "pixels", "proprio", "image-proprio", "length", "compact-random")
    known = ", ".join([*own, *PUBLISHED])
    raise SrpoError(
        f"No world model named '{name}': choose {known}, or give compact:<folder>, vjepa2:<folder> or module:Class."
    )
