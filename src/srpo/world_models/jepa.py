"""``srpo world-model train``: masked latent prediction on recorded episodes (V-JEPA, arXiv 2404.08471, section 3).

The encoder sees some tokens of a clip; a predictor guesses what a slow copy of the encoder (an exponential moving
average) makes of the others; the loss is their L1 distance. Half of the masks hide the clip's end, so that the encoder
must tell what follows, half hide regions throughout. The actions, the outcome and the task are never seen.

The slow copy alone did not keep so small a model from saying the same of every clip (docs/results.md); `decorrelation`
does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from srpo import checkpoint
from srpo.types import SrpoError
from srpo.world_models.compact import CompactWorldModel
from srpo.world_models.video_frames import chosen_frames
from srpo.world_models.video_transformer import Predictor, VideoConfig, VideoEncoder, gather


@dataclass(frozen=True)
class JepaConfig:
    """Training of the compact world model.

    Attributes:
        steps: gradient steps.
        batch: clips per step.
        learning_rate: peak of a cosine schedule with warm-up.
        weight_decay: of AdamW, on matrices.
        warmup: gradient steps.
        ema: decay of the slow copy at the beginning; it rises to 1.
        decorrelate: weight of `decorrelation` (0: V-JEPA's loss alone).
        validation: share of the episodes held out for the checks.
        check_every: steps between two checks (held-out loss, effective rank, spread); checkpoints are written then.
        seed: of everything.
        model: sizes.
    """

    steps: int = 1500
    batch: int = 32
    learning_rate: float = 3e-4
    weight_decay: float = 0.04
    warmup: int = 200
    ema: float = 0.99
    decorrelate: float = 1.0
    validation: float = 0.1
    check_every: int = 250
    seed: int = 0
    model: VideoConfig = field(default_factory=VideoConfig)


class Jepa(nn.Module):
    """Encoder, its slow copy, and the predictor."""

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.encoder, self.predictor = VideoEncoder(config), Predictor(config)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)

    def loss(self, maps: torch.Tensor, keep: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean absolute difference at the masked tokens, and `decorrelation` of the visible ones.

        Args:
            maps: (B, frames, channels, grid, grid).
            keep, wanted: (K,) and (M,) token numbers, the same for all clips.
        """
        keep, wanted = (p.expand(len(maps), -1) for p in (keep, wanted))
        with torch.no_grad():
            whole = self.target(maps)
            goal = gather(nn.functional.layer_norm(whole, whole.shape[-1:]), wanted)
        visible = self.encoder(maps, keep)
        return nn.functional.l1_loss(self.predictor(visible, keep, wanted), goal), decorrelation(visible)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the slow copy towards the encoder."""
        for slow, fast in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)

    def save_pretrained(self, folder: Path) -> None:
        """All three, for a checkpoint."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")


def decorrelation(tokens: torch.Tensor) -> torch.Tensor:
    """Variance and covariance terms of VICReg (Bardes et al., arXiv 2105.04906, eqs. 1 to 4) between clips.

    Of each token place the mean over the clips is taken off; over all places and clips then
    ``mean_j relu(1 - sqrt(var_j + 1e-4)) + sum_{i != j} cov_ij^2 / D / 25``, the paper's weights (25 to 1).

    Args:
        tokens: (B, K, D), B >= 2 clips.

    Returns:
        A scalar >= 0, near 0 if every dimension tells clips apart, each by something else.
    """
    apart = (tokens - tokens.mean(0)).flatten(0, 1)
    covariance = apart.T @ apart / (len(apart) - tokens.shape[1])
    deviation = (covariance.diagonal() + 1e-4).sqrt()
    shared = covariance.square().sum() - covariance.diagonal().square().sum()
    return torch.relu(1.0 - deviation).mean() + shared / tokens.shape[-1] / 25.0


def train(
    features: Sequence[np.ndarray],
    config: JepaConfig,
    run: Path,
    *,
    resume: bool = False,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
) -> CompactWorldModel:
    """Train on episodes' frame features; the result goes to ``run/world_model``.

    Args:
        features: N arrays (T_i, channels, grid, grid) float16, `CompactWorldModel.frame_features` of episodes' frames.
        config: see `JepaConfig`.
        run: run folder.
        resume: continue from the newest checkpoint.
        on_step: hears of every step: loss, decorrelation, and at checks ``validation_loss``, ``effective_rank``,
            ``spread``.

    Raises:
        SrpoError: fewer than 4 episodes, a loss that is not finite, or a collapse: all episodes embedded alike.
    """
    if len(features) < 4:
        raise SrpoError(f"{len(features)} episodes cannot train a world model: record some hundreds.")
    torch.manual_seed(config.seed)
    order = np.random.default_rng([config.seed, 0]).permutation(len(features))
    held = order[: max(2, round(config.validation * len(features)))]
    used = order[len(held) :]
    model = Jepa(config.model)
    _normalise(model, [features[i] for i in used])
    weights = [*model.encoder.parameters(), *model.predictor.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )
    first = 0
    saved = checkpoint.latest(run / "checkpoints") if resume else None
    if saved is not None:
        state, _ = checkpoint.load(saved, model, optimizer)
        first = int(state["step"])
    for step in range(first, config.steps):
        row = _step(model, optimizer, [features[i] for i in used], config, step)
        done = step + 1
        if done % config.check_every == 0 or done == config.steps:
            row |= check(model, [features[i] for i in held], config)
            alike = len(held) >= 4 and row["effective_rank"] < 1.5
            if alike or row["spread"] < 1e-3:
                raise SrpoError(
                    f"The world model has collapsed after {done} steps (effective rank {row['effective_rank']:.2f}, "
                    f"spread {row['spread']:.4f}): raise --decorrelate or lower --learning-rate."
                )
        on_step({"step": done, **row})  # before the checkpoint, so that a resumed run lacks no row
        if done % config.check_every == 0 and done < config.steps:
            checkpoint.save(run / "checkpoints", done, model, optimizer, {"config": asdict(config)})
    world_model = CompactWorldModel(model.target)
    world_model.save_pretrained(run / "world_model")
    return world_model


def masks(config: VideoConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Token numbers that are seen and that are guessed, (K,) and (M,) int64, rising, together all.

    Every other time the end of the clip is hidden (half to seven eighths of it), else one or two rectangles of the map,
    from 2 x 2 tokens to nearly all of it, throughout.
    """
    hidden = np.zeros((config.times, config.side, config.side), bool)
    if rng.random() < 0.5:
        hidden[int(rng.integers(1, config.times // 2 + 1)) :] = True
    else:
        for _ in range(int(rng.integers(1, 3))):
            height, width = rng.integers(2, config.side + 1, 2)
            top, left = rng.integers(0, config.side - height + 1), rng.integers(0, config.side - width + 1)
            region = hidden.copy()
            region[:, top : top + height, left : left + width] = True
            if not region.all():
                hidden = region
        if not hidden.any():
            hidden[:, : config.side // 2] = True
    flat = hidden.ravel()
    return np.flatnonzero(~flat), np.flatnonzero(flat)


def clip_of(features: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """(frames, ...) of a random stretch of an episode, at least half of it and at least two moments long."""
    length = len(features)
    span = int(rng.integers(max(2, (length + 1) // 2), length + 1)) if length > 2 else length
    start = int(rng.integers(0, length - span + 1))
    return features[start + chosen_frames(span, frames)]


@torch.inference_mode()
def check(model: Jepa, features: Sequence[np.ndarray], config: JepaConfig) -> dict[str, float]:
    """Held-out loss, and whether the embeddings still differ.

    Returns:
        ``validation_loss``; ``effective_rank``: exp of the entropy of the normalised squared singular values of the
        centred mean embeddings (Roy and Vetterli 2007); ``spread``: their standard deviation, mean over dimensions.
    """
    model.eval()
    rng = np.random.default_rng([config.seed, 3])
    clips = torch.from_numpy(np.stack([clip_of(f, config.model.frames, rng) for f in features])).float()
    losses = []
    for _ in range(4):
        keep, wanted = (torch.from_numpy(m) for m in masks(config.model, rng))
        losses.append(float(model.loss(clips, keep, wanted)[0]))
    pooled = model.target(clips).mean(1)
    centred = pooled - pooled.mean(0)
    power = torch.linalg.svdvals(centred).square()
    share = power / power.sum().clamp_min(1e-30)
    entropy = -(share * share.clamp_min(1e-30).log()).sum()
    return {
        "validation_loss": float(np.mean(losses)),
        "effective_rank": float(entropy.exp()),
        "spread": float(centred.std(0).mean()),
    }


def _step(
    model: Jepa, optimizer: torch.optim.Optimizer, features: Sequence[np.ndarray], config: JepaConfig, step: int
) -> dict[str, float]:
    rng = np.random.default_rng([config.seed, 1, step])
    picks = rng.integers(len(features), size=config.batch)
    clips = torch.from_numpy(np.stack([clip_of(features[i], config.model.frames, rng) for i in picks])).float()
    keep, wanted = (torch.from_numpy(m) for m in masks(config.model, rng))
    rate = min(1.0, (step + 1) / config.warmup) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
    for group in optimizer.param_groups:
        group["lr"] = max(config.learning_rate * rate, 1e-6)
    model.train()
    guessing, alike = model.loss(clips, keep, wanted)
    loss = guessing + config.decorrelate * alike
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    if not torch.isfinite(norm):
        raise SrpoError(f"The gradient of step {step} is not finite; lower --learning-rate.")
    optimizer.step()
    model.follow(1 - (1 - config.ema) * (1 - step / config.steps))
    return {"loss": guessing.item(), "decorrelation": alike.item()}


def _normalise(model: Jepa, features: Sequence[np.ndarray]) -> None:
    values = np.concatenate([f[:: max(1, len(f) // 4)].astype(np.float32) for f in features[:200]])
    mean = torch.from_numpy(values.mean((0, 2, 3)))
    std = torch.from_numpy(np.maximum(values.std((0, 2, 3)), 1e-2))
    for encoder in (model.encoder, model.target):
        encoder.mean.copy_(mean)
        encoder.std.copy_(std)
