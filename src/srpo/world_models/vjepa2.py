"""V-JEPA 2 (Assran et al. 2025, arXiv 2506.09985), the video encoder of the paper.

A clip of 64 frames goes through the encoder alone (the predictor is neither loaded nor run); the embedding is the mean
over all tokens of its last layer, after the final layer norm, as in the code of SRPO's authors. Weights and layers are
those of `transformers`; the preprocessing is our own (`srpo.world_models.video_frames`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srpo.types import SrpoError
from srpo.world_models.embedding_cache import EmbeddingCache, content_key
from srpo.world_models.video_frames import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, checked_frames, chosen_frames
from srpo.world_models.vjepa2_layers import clip_bytes, install

#: Our names -> repository on the Hugging Face hub, side of the square it sees (pixels).
PUBLISHED = {
    "vjepa2-vitl": ("facebook/vjepa2-vitl-fpc64-256", 256),
    "vjepa2-vith": ("facebook/vjepa2-vith-fpc64-256", 256),
    "vjepa2-vitg": ("facebook/vjepa2-vitg-fpc64-256", 256),
    "vjepa2-vitg-384": ("facebook/vjepa2-vitg-fpc64-384", 384),
}
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CPU_BUDGET_GB = 2.0
_FREE_GPU_SHARE = 0.6


@dataclass(frozen=True)
class VJepa2Config:
    """Which encoder, and how it is run.

    Attributes:
        source: one of `PUBLISHED`, or a folder with ``config.json`` and ``model.safetensors`` (in shards or not).
        frames: frames of a clip; None: what the encoder was trained with (64). Fewer are cheaper; even numbers only, as
            two frames make a token.
        device: torch's name of it; None: the GPU if there is one, else the CPU.
        precision: ``"fp32"``, ``"fp16"`` or ``"bf16"``; None: fp16 on a GPU (what the paper's code computes in), fp32
            on a CPU. The mean over the tokens is always taken in fp32.
        memory_gb: 1e9 bytes that the activations of a micro-batch may take beside the weights, by the arithmetic of
            `srpo.world_models.vjepa2_layers.clip_bytes`; None: 2 on a CPU, 0.6 of what is free on a GPU. A single clip
            is always tried.
        cache: clips whose mean tokens are kept, in memory and in ``cache_folder`` each (180 kB a clip of ViT-g).
        cache_folder: keep them on disk as well.
    """

    source: str = "vjepa2-vitg-384"
    frames: int | None = None
    device: str | None = None
    precision: str | None = None
    memory_gb: float | None = None
    cache: int = 1024
    cache_folder: str | None = None

    def __post_init__(self) -> None:
        if self.source not in PUBLISHED and not Path(self.source).is_dir():
            raise SrpoError(
                f"There is no folder {self.source} with V-JEPA 2's weights: give an existing one, or choose "
                f"{', '.join(PUBLISHED)}."
            )
        if self.precision is not None and self.precision not in PRECISIONS:
            raise SrpoError(f"No precision named '{self.precision}': choose {', '.join(PRECISIONS)}.")
        if self.memory_gb is not None and self.memory_gb <= 0:
            raise SrpoError(f"A memory budget of {self.memory_gb} GB is impossible: give more than 0, or none.")


class VJepa2WorldModel:
    """V-JEPA 2 as a world model. Rollout workers only shrink frames; the weights are loaded at the first embedding.

    Args:
        config: see `VJepa2Config`; a name or folder alone means its defaults.
    """

    def __init__(self, config: VJepa2Config | str) -> None:
        self.config = VJepa2Config(config) if isinstance(config, str) else config
        self.preprocessing = _preprocessing(self.config.source)
        self.cache = EmbeddingCache(self.config.cache, self.config.cache_folder)
        self._loaded: _Encoder | None = None

    def frame_features(self, image: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The frame, (h, w, 3) uint8: a large one resized to the encoder's short side, a small one as it is.

        Enlarging waits for `embed`, so that less travels from the workers; the clip is the same.
        """
        return self.preprocessing.shrink(torch.from_numpy(np.ascontiguousarray(image))[None])[0].numpy()

    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Embeddings of episodes, from the cache where their frames were seen before.

        Args:
            features: N arrays (T_i, H, W, 3) uint8; `frame_features` of the frames or the frames themselves.

        Returns:
            (N, hidden size) float32.

        Raises:
            SrpoError: what is passed is no video, the weights cannot be had, or an embedding is zero or not finite.
        """
        rows = [times.mean(0) for times in self._times(features)]
        return np.stack(rows) if rows else np.zeros((0, self._encoder().hidden_size), np.float32)

    def trace(self, features: np.ndarray) -> np.ndarray:
        """(T, hidden size) float32: of every frame the mean token of its time, less that of the first time.

        Not in the paper; made for coverage (`srpo.rewards.coverage`). A token has seen the whole clip.
        """
        times = self._times([features])[0]
        place = np.linspace(0, len(times) - 1, len(features)).round().astype(int)
        return (times - times[:1])[place]

    def _times(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(F / 2, hidden size) float32 an episode: mean tokens of the clip's times, from the cache if it has them."""
        checked_frames(features)
        encoder = self._encoder()
        count = self.config.frames or encoder.frames
        chosen = [chosen_frames(len(f), count) for f in features]
        keys = [content_key(f"{encoder.fingerprint} {count}", f, c) for f, c in zip(features, chosen, strict=True)]
        rows: dict[str, np.ndarray] = {}
        missing: dict[str, int] = {}
        for i, key in enumerate(keys):
            if key not in rows and key not in missing:
                row = self.cache.get(key)
                if row is None:
                    missing[key] = i
                else:
                    rows[key] = row
        clips = [(features[i], chosen[i]) for i in missing.values()]
        for key, row in zip(missing, encoder.embed(clips, self.preprocessing), strict=True):
            _check_embedding(row, missing[key], encoder.precision)
            self.cache.put(key, row)
            rows[key] = row
        return [rows[k] for k in keys]

    def _encoder(self) -> _Encoder:
        if self._loaded is None:
            self._loaded = _Encoder(self.config, self.preprocessing.crop)
        return self._loaded


class _Encoder:
    """The weights, on their device."""

    def __init__(self, config: VJepa2Config, crop: int) -> None:
        # By number: the current device is a thread's own, and episodes are embedded in another thread.
        local = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        name = config.device or (local if torch.cuda.is_available() else "cpu")
        self.device = torch.device(name)
        self.precision = config.precision or ("fp32" if self.device.type == "cpu" else "fp16")
        self.dtype = PRECISIONS[self.precision]
        self.memory_gb = config.memory_gb
        self.model = _load(config.source, self.dtype, crop).to(self.device)
        self.settings = self.model.config
        self.frames, self.hidden_size = int(self.settings.frames_per_clip), int(self.settings.hidden_size)
        if config.frames is not None and (config.frames < 1 or config.frames % self.settings.tubelet_size):
            raise SrpoError(
                f"{config.frames} frames cannot be encoded: {self.settings.tubelet_size} of them make a token, so take "
                "a multiple of that."
            )
        install(self.model.encoder, crop // self.settings.patch_size)
        self.fingerprint = f"vjepa2 times {_fingerprint(self.model)} {self.precision} {crop}"

    @torch.inference_mode()
    def embed(
        self, clips: Sequence[tuple[np.ndarray, np.ndarray]], preprocessing: Preprocessing
    ) -> Iterator[np.ndarray]:
        """(times, hidden size) float32 per (frames, chosen), the mean over the picture of the tokens of each time; all
        chosen alike in length, micro-batch by micro-batch."""
        if not clips:
            return
        size = self.micro_batch(len(clips[0][1]))
        for start in range(0, len(clips), size):
            pixels = torch.stack([self._pixels(*clip, preprocessing) for clip in clips[start : start + size]])
            tokens = self.model.encoder(pixel_values_videos=pixels).last_hidden_state
            times = pixels.shape[1] // self.settings.tubelet_size
            yield from tokens.unflatten(1, (times, -1)).mean(2, dtype=torch.float32).cpu().numpy()

    def micro_batch(self, frames: int) -> int:
        """How many clips fit the memory budget, at least one."""
        s = self.settings
        tokens = frames // s.tubelet_size * (s.crop_size // s.patch_size) ** 2
        clip = clip_bytes(tokens, s.hidden_size, s.mlp_ratio, frames, s.crop_size, self.dtype.itemsize)
        if self.memory_gb is not None:
            budget = self.memory_gb * 1e9
        elif self.device.type == "cuda":
            budget = _FREE_GPU_SHARE * torch.cuda.mem_get_info(self.device)[0]
        else:
            budget = _CPU_BUDGET_GB * 1e9
        return max(1, int(budget // clip))

    def _pixels(self, frames: np.ndarray, chosen: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
        """(F, 3, crop, crop) in the encoder's precision; a frame shown more than once is prepared once."""
        shown, order = np.unique(chosen, return_inverse=True)
        prepared = preprocessing(torch.from_numpy(frames[shown]).to(self.device)).to(self.dtype)
        return prepared[torch.from_numpy(order).to(self.device)]


def _preprocessing(source: str) -> Preprocessing:
    """That of a published encoder, or what the folder's preprocessor config says."""
    if source in PUBLISHED:
        return Preprocessing(PUBLISHED[source][1])
    folder = Path(source)
    found: dict[str, Any] = {}
    for name in ("video_preprocessor_config.json", "preprocessor_config.json", "config.json"):
        if (folder / name).is_file():
            try:
                found = json.loads((folder / name).read_text())
            except ValueError as error:
                raise SrpoError(f"{folder / name} is damaged ({error}); copy the model's folder again.") from error
            break
    crop = found.get("crop_size", 256)
    crop = crop["height"] if isinstance(crop, dict) else crop
    mean, std = found.get("image_mean", IMAGENET_MEAN), found.get("image_std", IMAGENET_STD)
    return Preprocessing(int(crop), tuple(mean), tuple(std))


def _load(source: str, dtype: torch.dtype, crop: int) -> Any:
    """A `transformers` module with V-JEPA 2's ``encoder`` and nothing else, in eval mode."""
    try:
        from transformers import VJEPA2Config
        from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder, VJEPA2PreTrainedModel
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises RuntimeError
        reason = " ".join(str(error).split())[:200]
        raise SrpoError(
            f'V-JEPA 2 needs transformers ({reason}): pip install "srpo[vla]", and uninstall a torchvision that does '
            "not fit torch."
        ) from error

    class EncoderOnly(VJEPA2PreTrainedModel):
        _keys_to_ignore_on_load_unexpected: Any = (r"^predictor\.", r"^pooler\.", r"^classifier\.")

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.encoder = VJEPA2Encoder(config)
            self.post_init()

    repository = PUBLISHED[source][0] if source in PUBLISHED else source
    try:
        config = VJEPA2Config.from_pretrained(repository)
        config.crop_size = crop  # positions are counted on the grid of patches that is really there
        with _no_progress_bar():
            loaded: Any = EncoderOnly.from_pretrained(
                repository, config=config, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        if source in PUBLISHED:
            raise SrpoError(
                f"The weights of {repository} are not on this machine and cannot be fetched from the hub ({reason}): "
                f"run `hf download {repository}` where the network is, or give a folder, vjepa2:<folder>."
            ) from error
        raise SrpoError(
            f"{source} cannot be loaded as V-JEPA 2 ({reason}): give a folder with config.json and model.safetensors."
        ) from error
    model, report = loaded
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise SrpoError(
            f"{source} lacks {len(lacking)} of V-JEPA 2's weights, such as {lacking[0]}: copy the folder again."
        )
    return model.eval().requires_grad_(False)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """`transformers` draws none over our own console while it loads."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _fingerprint(model: torch.nn.Module) -> str:
    """Tells weights apart: a hash of 64 numbers of every tensor, evenly spread over it."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        flat = weight.flatten()
        places = torch.linspace(0, flat.numel() - 1, 64, dtype=torch.float64).long()
        digest.update(flat[places.to(flat.device)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_embedding(times: np.ndarray, episode: int, precision: str) -> None:
    row = times.mean(0)
    if np.isfinite(row).all() and row.any():
        return
    what = "all zeros" if np.isfinite(row).all() else "not finite (NaN or infinity)"
    remedy = {"fp16": "use bf16 or fp32, or check the weights", "bf16": "use fp32, or check the weights"}
    raise SrpoError(
        f"V-JEPA 2's embedding of episode {episode} is {what} in {precision}: "
        f"{remedy.get(precision, 'check the weights and the frames')}."
    )
