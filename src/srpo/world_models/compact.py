"""The compact video world model: V-JEPA's idea at a size that embeds an episode in milliseconds on a CPU core."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from srpo.policies.backbone import shared_backbone
from srpo.types import SrpoError
from srpo.world_models.base import segment_means
from srpo.world_models.video_frames import chosen_frames
from srpo.world_models.video_transformer import VideoConfig, VideoEncoder

POOLS = ("mean", "change")


class CompactWorldModel:
    """Frozen image features of an episode's frames, read by a small video transformer, pooled to one vector.

    Args:
        encoder: trained by `srpo.world_models.jepa`.
        pool: ``"mean"``: over all tokens, as V-JEPA 2 is read in the paper; ``"change"``: the mean token of each
            quarter of the clip less that of the first, so that what never moves drops out.
    """

    def __init__(self, encoder: VideoEncoder, pool: str = "change") -> None:
        if pool not in POOLS:
            raise SrpoError(f"No pooling named '{pool}': choose {' or '.join(POOLS)}.")
        self.encoder, self.pool = encoder.eval().requires_grad_(False), pool

    def frame_features(self, image: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(channels, grid, grid) float16: the frozen stride-16 map, brought to the model's grid."""
        maps = inputs.get("agentview_s16")
        if maps is None:
            _, batch = shared_backbone()(torch.from_numpy(np.ascontiguousarray(image))[None])
            maps = batch[0].numpy()
        grid = self.encoder.config.grid
        if maps.shape[-1] != grid:
            maps = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(maps).float(), grid).numpy()
        return maps.astype(np.float16)

    @torch.inference_mode()
    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """(N, width) or (N, 3 * width) float32, see ``pool``. One episode at a time: no episode's vector depends on
        the company it is in."""
        return np.stack([self._embed(f) for f in features])

    @torch.inference_mode()
    def trace(self, features: np.ndarray) -> np.ndarray:
        """(T, tokens a time * width) float32: of every frame the tokens of its time, less those of the first."""
        c = self.encoder.config
        chosen = chosen_frames(len(features), c.frames)
        tokens = self.encoder(torch.from_numpy(features[chosen]).float()[None])[0]
        times = tokens.unflatten(0, (c.times, -1)).flatten(1)
        nearest = np.abs(np.arange(len(features))[:, None] - chosen).argmin(1) // c.tubelet
        return (times - times[:1])[torch.from_numpy(nearest)].numpy()

    def _embed(self, features: np.ndarray) -> np.ndarray:
        c = self.encoder.config
        clip = torch.from_numpy(features[chosen_frames(len(features), c.frames)]).float()
        tokens = self.encoder(clip[None])[0]
        if self.pool == "mean":
            return tokens.mean(0).numpy()
        per_time = tokens.unflatten(0, (c.times, -1)).mean(1).numpy()
        quarters = segment_means(per_time, 4)
        return (quarters[1:] - quarters[:1]).ravel()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` (float16)."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": "srpo-compact-world-model", "pool": self.pool, **asdict(self.encoder.config)}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file({k: v.half().contiguous() for k, v in self.encoder.state_dict().items()}, folder / "partial")
        (folder / "partial").rename(folder / "model.safetensors")

    @classmethod
    def untrained(cls, seed: int = 0) -> CompactWorldModel:
        """The default sizes with random weights: the baseline of quality tables."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(VideoEncoder(VideoConfig()))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> CompactWorldModel:
        """Read a folder written by `save_pretrained`.

        Raises:
            SrpoError: a file is missing or damaged, or does not fit the other.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text())
            if config.pop("model_type", None) != "srpo-compact-world-model":
                raise ValueError("it is not one of a compact world model")
            pool = config.pop("pool")
            encoder = VideoEncoder(VideoConfig(**config))
            encoder.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
            return cls(encoder, pool)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            if isinstance(error, SrpoError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise SrpoError(
                f"{folder} cannot be read as a compact world model ({reason}): give a folder written by "
                "srpo world-model train."
            ) from error
