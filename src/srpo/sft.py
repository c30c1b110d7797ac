"""``srpo sft``: behaviour cloning of the compact policy on demonstrations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from srpo import checkpoint
from srpo.algorithms import behaviour_cloning_loss
from srpo.data.demonstrations import Demonstration, DemonstrationSet
from srpo.policies.action_tokens import ActionScale
from srpo.policies.compact import CompactConfig, CompactPolicy
from srpo.types import SrpoError


@dataclass(frozen=True)
class SftConfig:
    """Behaviour cloning.

    Attributes:
        steps: gradient steps.
        batch: decisions per step.
        learning_rate: peak of a cosine schedule with a short warm-up.
        weight_decay: of AdamW.
        augmentations: recoloured copies of every frame (their frozen features are computed once, before training).
        shift: pixels by which the pictures of those copies are moved at most, see `moved`.
        bin_sigma: width of the soft targets over neighbouring action bins, in bins (0: one-hot).
        validation: share of the demonstrations held out for the validation loss.
        validate_every: steps between two validations.
        save_every: steps between two checkpoints.
        stride: every how many control steps a demonstrated moment is used as a decision.
        seed: of initialisation, augmentation and the order of batches.
        threads: torch threads; None: all cores.
        policy: architecture (its normalisation is replaced by the demonstrations').
    """

    steps: int = 1500
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    augmentations: int = 2
    shift: int = 0
    bin_sigma: float = 2.0
    validation: float = 0.1
    validate_every: int = 250
    save_every: int = 250
    stride: int = 1
    seed: int = 0
    threads: int | None = None
    policy: CompactConfig = field(default_factory=CompactConfig)

    def __post_init__(self) -> None:
        if min(self.augmentations, self.shift) < 0:
            raise SrpoError("--augmentations and --shift are 0 or more.")


def train(
    demonstrations: DemonstrationSet,
    config: SftConfig,
    run: Path,
    *,
    resume: bool = False,
    on_features: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
) -> CompactPolicy:
    """Clone the demonstrations; checkpoints go to ``run/checkpoints``, the result to ``run/policy``.

    Args:
        demonstrations: what to clone.
        config: see `SftConfig`.
        run: run folder.
        resume: continue from the newest checkpoint of ``run``; the result is that of an uninterrupted run.
        on_features: hears of the frozen features' progress (demonstrations done, total).
        on_step: hears of every gradient step (loss, and validation loss when there is one).

    Raises:
        SrpoError: no demonstrations, or they lack one of the policy's cameras.
    """
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    episodes = list(demonstrations)
    if not episodes:
        raise SrpoError(f"{demonstrations.folder} holds no demonstrations: run srpo collect first.")
    policy = CompactPolicy(_with_statistics(config.policy, episodes))
    n_validation = max(1, round(config.validation * len(episodes))) if config.validation and len(episodes) > 1 else 0
    order = np.random.default_rng([config.seed, 0]).permutation(len(episodes))
    kept = _told(order[n_validation:], on_features)
    data = [_decisions(policy, episodes[i], config, int(i), augment=True) for i in kept]
    held = [_decisions(policy, episodes[i], config, int(i), augment=False) for i in order[:n_validation]]
    training, validation = _join(data), _join(held) if held else None

    optimizer = optimizer_for(policy, config)
    first = 0
    saved = checkpoint.latest(run / "checkpoints") if resume else None
    if saved is not None:
        state, _ = checkpoint.load(saved, policy, optimizer)
        first = int(state["step"])
    for step in range(first, config.steps):
        row = _step(policy, optimizer, training, config, step)
        done = step + 1
        if validation is not None and (done % config.validate_every == 0 or done == config.steps):
            row |= _validate(policy, validation)
        on_step({"step": done, **row})  # before the checkpoint, so that a resumed run lacks no row
        if done % config.save_every == 0 and done < config.steps:
            checkpoint.save(run / "checkpoints", done, policy, optimizer, {"config": asdict(config)})
    policy.eval().save_pretrained(run / "policy")
    return policy


def fit(
    policy: CompactPolicy,
    data: Batch,
    config: SftConfig,
    weights: np.ndarray | None = None,
    steps: range | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Iterator[dict[str, float]]:
    """Clone decisions, one gradient step at a time, without checkpoints; yields the loss of each.

    Args:
        policy: trained in place.
        data: the policy's inputs, ``tokens`` (N, L) integers, and ``mask`` (N, L) bool, which tokens exist.
        config: see `SftConfig`; its steps, batch, rate, targets and seed are used.
        weights: (N,) > 0, how often each decision is drawn, relative to the others; None: all alike.
        steps: which of the ``config.steps``; None: all.
        optimizer: of the steps before these; None: a new one (`optimizer_for`).
    """
    edges = None if weights is None else np.cumsum(weights[:-1]) / np.sum(weights)
    optimizer = optimizer or optimizer_for(policy, config)
    for step in steps if steps is not None else range(config.steps):
        yield _step(policy, optimizer, data, config, step, edges)


def optimizer_for(policy: CompactPolicy, config: SftConfig) -> torch.optim.Optimizer:
    """A new optimiser for `fit`."""
    return torch.optim.AdamW(policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def decisions(
    policy: CompactPolicy, demonstration: Demonstration, number: int, augmentations: int, shift: int
) -> Batch:
    """Every moment of a demonstration as a decision, as `train` reads it, with recoloured and moved copies (see
    `SftConfig`): the policy's inputs, ``tokens`` and ``mask``. Its ``number`` seeds the copies."""
    config = SftConfig(augmentations=augmentations, shift=shift)
    return _decisions(policy, demonstration, config, number, augment=True)


def _told(order: np.ndarray, on_features: Callable[[int, int], None]):
    for k, i in enumerate(order):
        yield i
        on_features(k + 1, len(order))


def _with_statistics(config: CompactConfig, episodes: Sequence[Demonstration]) -> CompactConfig:
    """The configuration with the demonstrations' normalisation statistics."""
    missing = set(config.cameras) - set(episodes[0].images)
    if missing:
        raise SrpoError(f"The demonstrations lack the camera(s) {sorted(missing)}: collect them with --cameras.")
    states = np.concatenate([e.states for e in episodes])
    actions = np.concatenate([e.actions for e in episodes])
    return CompactConfig(
        **{
            **{f: getattr(config, f) for f in config.__dataclass_fields__},
            "action_scale": ActionScale.from_actions(actions),
            "state_mean": tuple(float(x) for x in states.mean(0)),
            "state_std": tuple(float(x) for x in np.maximum(states.std(0), 1e-2)),
        }
    )


Batch = dict[str, torch.Tensor]


def _decisions(policy: CompactPolicy, demo: Demonstration, config: SftConfig, index: int, augment: bool) -> Batch:
    """Every moment of a demonstration as a decision: inputs, target tokens (56), and which of them exist."""
    length = len(demo.actions)
    moments = np.arange(0, length, config.stride)
    future = moments[:, None] + np.arange(policy.chunk)
    exists = np.repeat(future < length, policy.action_dim, axis=1)
    tokens = policy.tokens(demo.actions[np.minimum(future, length - 1)])
    copies = []
    for copy in range(1 + (config.augmentations if augment else 0)):
        images = {c: demo.images[c][moments] for c in policy.config.cameras}
        if copy:
            rng = np.random.default_rng([config.seed, 1, index, copy])
            images = {c: moved(recolour(v, rng), config.shift, rng) for c, v in images.items()}
        inputs = policy.prepare_batch(images, demo.states[moments], demo.task.instruction)
        copies.append(
            {k: torch.from_numpy(v) for k, v in inputs.items()}
            | {"tokens": torch.from_numpy(tokens), "mask": torch.from_numpy(exists)}
        )
    return _join(copies)


def _join(parts: Sequence[Batch]) -> Batch:
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


def recolour(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random brightness, contrast, colour balance and pixel noise per frame.

    Args:
        images: (N, H, W, 3) uint8.
        rng: source of the randomness.

    Returns:
        (N, H, W, 3) uint8.
    """
    n = len(images)
    gain = rng.uniform(0.8, 1.2, (n, 1, 1, 1)) * rng.uniform(0.93, 1.07, (n, 1, 1, 3))
    bias = rng.uniform(-15, 15, (n, 1, 1, 1))
    noise = rng.standard_normal(images.shape, dtype=np.float32) * 3.0
    return np.clip((images - 127.5) * gain + 127.5 + bias + noise, 0, 255).astype(np.uint8)


def moved(images: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Every picture moved by up to ``most`` pixels along each axis, its edge repeated: random shifts (DrQ,
    arXiv 2004.13649). Actions are relative to where the hand is: what is right depends on where things are
    beside each other, hardly on where they are in the picture.

    Args:
        images: (N, H, W, 3) uint8.
        most: pixels; 0 leaves the pictures alone, and draws nothing.
        rng: source of the randomness.

    Returns:
        (N, H, W, 3) uint8.
    """
    if not most:
        return images
    height, width = images.shape[1:3]
    wider = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    corners = rng.integers(0, 2 * most + 1, (len(images), 2))
    return np.stack([w[y : y + height, x : x + width] for w, (y, x) in zip(wider, corners, strict=True)])


def _step(
    policy: CompactPolicy,
    optimizer: torch.optim.Optimizer,
    data: Batch,
    config: SftConfig,
    step: int,
    edges: np.ndarray | None = None,
) -> dict[str, float]:
    warm = min(1.0, (step + 1) / 50)
    rate = config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))
    for group in optimizer.param_groups:
        group["lr"] = max(rate, 1e-5)
    rng = np.random.default_rng([config.seed, 2, step])
    if edges is None:
        index = torch.from_numpy(rng.integers(len(data["tokens"]), size=config.batch))
    else:
        index = torch.from_numpy(np.searchsorted(edges, rng.random(config.batch), side="right"))
    batch = {k: v[index] for k, v in data.items()}
    noise = torch.from_numpy(rng.standard_normal(batch["state"].shape, dtype=np.float32))
    batch["state"] = batch["state"] + 0.05 * noise * policy.state_std
    policy.train()
    own = policy.member_logits(batch)  # each member is cloned by itself: together they would share out the work
    tokens, mask = (batch[k].repeat(len(own), 1) for k in ("tokens", "mask"))
    result = behaviour_cloning_loss(own.flatten(0, 1), tokens, mask, bin_sigma=config.bin_sigma)
    optimizer.zero_grad(set_to_none=True)
    result.loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    if not torch.isfinite(norm):
        raise SrpoError(f"The gradient of cloning step {step} is not finite; lower the learning rate of cloning.")
    optimizer.step()
    return {"loss": result.loss.item()}


@torch.no_grad()
def _validate(policy: CompactPolicy, data: Batch) -> dict[str, float]:
    policy.eval()
    losses, weights = [], []
    for index in torch.arange(len(data["tokens"])).split(256):
        batch = {k: v[index] for k, v in data.items()}
        losses.append(float(behaviour_cloning_loss(policy.logits(batch), batch["tokens"], batch["mask"]).loss))
        weights.append(float(batch["mask"].sum()))
    return {"validation_loss": float(np.average(losses, weights=weights))}
