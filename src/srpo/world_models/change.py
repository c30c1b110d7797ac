"""What has changed since the first frame, in whitened image features: the world model that ships with the package."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from srpo.policies.backbone import STRIDE16_CHANNELS, shared_backbone
from srpo.types import SrpoError

SHIPPED = Path(__file__).parent / "weights/change"
GRID = 8
#: Share of the largest variance that is added to all of them before whitening.
RIDGE = 1e-3


class ChangeWorldModel:
    """Frozen EfficientNet-Lite0 maps at stride 16, less those of the first frame, their channels whitened.

    Whitening gives every direction in which the features of moving robots and objects vary the same weight; without it,
    the arm's large movements drown those of a bowl. The place in the picture is kept (8 x 8 cells). A random projection
    with signs (Achlioptas 2003, J. Comput. Syst. Sci. 66) then shortens a moment to 1,024 numbers, which changes
    distances by a few per cent.

    Args:
        whitening: (C, C) float32, see `fit`.
        size: numbers per moment.
    """

    def __init__(self, whitening: np.ndarray, size: int = 1024) -> None:
        self.whitening = np.asarray(whitening, np.float32)
        self.size = size
        values = len(self.whitening) * GRID**2
        bits = np.unpackbits(np.frombuffer(np.random.default_rng(0).bytes(values * size // 8), np.uint8))
        self._signs = torch.from_numpy(bits.reshape(values, size).astype(np.float32) * 2 - 1) / np.sqrt(size)

    def frame_features(self, image: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(112, 8, 8) float16."""
        maps = inputs.get("agentview_s16")
        if maps is None:
            _, batch = shared_backbone()(torch.from_numpy(np.ascontiguousarray(image))[None])
            maps = batch[0].numpy()
        if maps.shape[-1] != GRID:
            maps = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(maps).float(), GRID).numpy()
        return maps.astype(np.float16)

    @torch.inference_mode()
    def trace(self, features: np.ndarray) -> np.ndarray:
        """(T, size) float32: every moment's whitened change since the first."""
        maps = torch.from_numpy(np.asarray(features)).float()
        white = torch.einsum("tchw,cd->tdhw", maps - maps[:1], torch.from_numpy(self.whitening))
        return (white.flatten(1) @ self._signs).numpy()

    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """(N, 7168) float32: the largest change of every value over the episode, in either direction."""
        return np.stack([self._largest(f) for f in features])

    def _largest(self, features: np.ndarray) -> np.ndarray:
        change = np.asarray(features, np.float32) - np.asarray(features[:1], np.float32)
        return np.abs(np.einsum("tchw,cd->tdhw", change, self.whitening, optimize=True)).max(0).ravel()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "srpo-change", "size": self.size}) + "\n")
        save_file({"whitening": self.whitening}, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: str | Path = SHIPPED) -> ChangeWorldModel:
        """Read a folder written by `save_pretrained`; without one, what ships with the package.

        Raises:
            SrpoError: a file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text())
            if config["model_type"] != "srpo-change":
                raise ValueError(f"it holds a '{config['model_type']}' model")
            whitening = load_file(folder / "model.safetensors")["whitening"]
            if whitening.shape != (STRIDE16_CHANNELS, STRIDE16_CHANNELS) or not np.isfinite(whitening).all():
                raise ValueError(f"whitening of shape {whitening.shape}")
            return cls(whitening, int(config["size"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise SrpoError(
                f"{folder} cannot be read as whitened changes ({reason}): give a folder written by "
                "srpo world-model whiten."
            ) from error


def fit(episodes: Iterable[np.ndarray], every: int = 3) -> ChangeWorldModel:
    """Whitening from the changes of recorded episodes; no actions, outcomes or tasks are seen.

    ``W = V (w + RIDGE max w)^(-1/2)`` with the covariance ``V diag(w) V^T`` of the channels over cells and moments.

    Args:
        episodes: arrays (T_i, 112, 8, 8), features of each episode's frames.
        every: of an episode, every how many moments are used.

    Raises:
        SrpoError: no episodes, or nothing moves in them.
    """
    count, total, products = 0, np.zeros(STRIDE16_CHANNELS), np.zeros((STRIDE16_CHANNELS, STRIDE16_CHANNELS))
    for features in episodes:
        change = (features[::every].astype(np.float64) - features[:1]).transpose(0, 2, 3, 1)
        values = change.reshape(-1, STRIDE16_CHANNELS)
        count, total, products = count + len(values), total + values.sum(0), products + values.T @ values
    if count < 2:
        raise SrpoError("There is nothing to fit the whitening to: record some episodes first.")
    mean = total / count
    variance, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
    if variance[-1] <= 0:
        raise SrpoError("Nothing moves in these episodes: record some in which the robot acts.")
    scale = np.sqrt(np.maximum(variance, 0) + RIDGE * variance[-1])
    return ChangeWorldModel((directions / scale).astype(np.float32))
