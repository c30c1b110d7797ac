"""Turns episodes and advantages into a policy update: minibatches of decisions, clipped objective, Adam.

Nothing here knows which policy it trains: a policy is anything with ``logits(inputs) -> (B, L, K)``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from srpo import distributed
from srpo.algorithms import clipped_policy_loss
from srpo.algorithms.policy_loss import PolicyLoss
from srpo.policies.base import token_log_probs
from srpo.types import Episode, SrpoError


@dataclass(frozen=True)
class LearnerConfig:
    """The update.

    Attributes:
        learning_rate: of Adam.
        epochs: passes over the decisions of a step.
        minibatch: decisions per gradient step.
        budget: most tokens in one forward, as the policy counts them (decisions, if it does not); a minibatch is cut
            into parts of decisions of like length, whose gradients are added up. 0: no limit.
        shard: with several processes, spread weights, gradients and optimiser over them (FSDP2); otherwise each has
            all of it, and gradients are added up.
        fused: let one kernel do the whole optimiser step (where the device has it).
        grad_clip: largest gradient norm.
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        kl_weight: beta, weight of the KL divergence to the policy before RL; at 0 it is not computed.
        entropy_weight: weight of the entropy bonus.
        weight_decay: of AdamW.
        target_kl: an epoch ends early once a minibatch's approximate KL to the old policy (nats per token) exceeds
            this; None: never.
        warmup: gradient steps over which the learning rate rises; Adam's first steps, while it knows no variances, are
            several times too long.
        frozen: parts of the policy that RL leaves as they are, by their modules' names; whole names between dots, which
            an ensemble has once in every member.
    """

    learning_rate: float = 5e-5
    epochs: int = 2
    minibatch: int = 256
    budget: int = 0
    shard: bool = True
    fused: bool = False
    grad_clip: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_weight: float = 0.0
    entropy_weight: float = 0.0
    weight_decay: float = 0.0
    target_kl: float | None = None
    warmup: int = 20
    frozen: tuple[str, ...] = ()


@dataclass
class Decisions:
    """All decisions of a step, flat: B decisions of L tokens.

    Attributes:
        inputs: name -> (B, ...) what the policy reads.
        tokens: (B, L) int16.
        old_log_prob: (B, L) float32.
        advantage: (B,) float32.
        mask: (B, L) bool, True where the action was carried out; or float32, the weight of its tokens there.
    """

    inputs: dict[str, torch.Tensor]
    tokens: torch.Tensor
    old_log_prob: torch.Tensor
    advantage: torch.Tensor
    mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> Decisions:
        """The same on ``device``; inputs stay where they are, the policy fetches them."""
        rest = (self.tokens, self.old_log_prob, self.advantage, self.mask)
        return Decisions(self.inputs, *(v.to(device) for v in rest))

    def take(self, index: torch.Tensor) -> Decisions:
        """The decisions at ``index``."""
        return Decisions(
            {k: v[index] for k, v in self.inputs.items()},
            self.tokens[index],
            self.old_log_prob[index],
            self.advantage[index],
            self.mask[index],
        )


def flatten(
    episodes: Sequence[Episode],
    advantages: np.ndarray | Sequence[np.ndarray],
    action_dim: int,
    weights: np.ndarray | None = None,
) -> Decisions:
    """Decisions of the episodes whose advantage is not zero; a token counts if its action was carried out.

    Args:
        episodes: N episodes.
        advantages: (N,), one value for every token of an episode; or N arrays (T_i,), one value a decision.
        action_dim: tokens per action.
        weights: (action_dim,) of the tokens of each action dimension; None: all count alike.
    """
    used = [(e, a) for e, a in zip(episodes, advantages, strict=True) if np.any(a != 0.0)]
    if not used:
        raise SrpoError("No episode of this step carries information; nothing to learn from.")
    tokens = np.concatenate([e.tokens for e, _ in used])
    executed = np.concatenate([e.executed for e, _ in used])
    action, dimension = np.divmod(np.arange(tokens.shape[1]), action_dim)
    mask = torch.from_numpy(action[None, :] < executed[:, None])
    return Decisions(
        inputs={k: torch.from_numpy(np.concatenate([e.inputs[k] for e, _ in used])) for k in used[0][0].inputs},
        tokens=torch.from_numpy(tokens),
        old_log_prob=torch.from_numpy(np.concatenate([e.log_probs for e, _ in used])),
        advantage=torch.from_numpy(
            np.concatenate([np.broadcast_to(a, len(e.tokens)).astype(np.float32) for e, a in used])
        ),
        mask=mask if weights is None else mask * torch.from_numpy(weights[dimension].astype(np.float32)),
    )


class Learner:
    """Owns the optimiser.

    Args:
        policy: a torch module with ``logits``.
        config: see `LearnerConfig`.
        temperature: at which the rollouts were sampled, one or (L,) of each token; log-probabilities are read at the
            same.
        seed: of the order of minibatches (together with the step number).
        world: the processes that share the work.

    Attributes:
        acting: the policy that rollouts are to use: the policy itself, or a whole copy of one that is sharded.
    """

    def __init__(
        self,
        policy: torch.nn.Module,
        config: LearnerConfig,
        temperature: float | torch.Tensor,
        seed: int,
        world: distributed.World = distributed.ALONE,
    ) -> None:
        self.policy, self.config, self.world = policy, config, world
        self.acting = policy
        self.reference: torch.nn.Module | None = None
        _freeze(policy, config.frozen)
        # Small policies and adapters are kept whole by each process.
        trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
        large = hasattr(policy, "parts") and 2 * trained > sum(p.numel() for p in policy.parameters())
        self.sharded = world.size > 1 and config.shard and large
        if self.sharded:
            self.acting = _acting_copy(policy)
            self.reference = _acting_copy(policy) if config.kl_weight else None
            distributed.shard(policy, world)
        self.temperature, self.seed = temperature, seed
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=config.fused or None
        )
        if config.kl_weight and not self.sharded:
            self.reference = copy.deepcopy(policy).eval().requires_grad_(False)

    def update(self, decisions: Decisions, step: int, rate: float = 1.0) -> dict[str, float]:
        """One RL step's update; returns the means of the diagnostics over its minibatches.

        Args:
            decisions: of this step.
            step: its number, which with the seed determines the order of the minibatches.
            rate: factor of the learning rate, for a schedule over RL steps.

        Raises:
            SrpoError: the loss or a gradient is not finite; the weights are then those before the minibatch.
        """
        generator = torch.Generator().manual_seed(int(np.random.default_rng([self.seed, 4, step]).integers(2**62)))
        rows: list[dict[str, float]] = []
        self.policy.train()
        limit = float("inf") if self.config.target_kl is None else self.config.target_kl
        if self.config.epochs > 1 and hasattr(self.policy, "freeze"):
            decisions = self._frozen(decisions)
        for _ in range(self.config.epochs):
            order = torch.randperm(len(decisions), generator=generator)
            for index in order.split(self.config.minibatch):
                self._set_learning_rate(rate)
                share = len(index) / self.config.minibatch
                rows.append(self._minibatch(decisions.take(index), share, step))
                if rows[-1]["approx_kl"] > limit:
                    break
            if rows[-1]["approx_kl"] > limit:
                break
        self.policy.eval()
        self.refresh()
        stats = {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}
        stats["approx_kl_last"] = rows[-1]["approx_kl"]
        stats["ratio_max"] = max(r["ratio_max"] for r in rows)
        stats["ratio_min"] = min(r["ratio_min"] for r in rows)
        return {**stats, "decisions": float(len(decisions)), "gradient_steps": float(len(rows))}

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring `acting` up to date."""
        if self.sharded:
            for copied, own in zip(self.acting.parameters(), self.policy.parameters(), strict=True):
                copied.copy_(distributed.full(own))

    def _set_learning_rate(self, rate: float) -> None:
        taken = next((float(s["step"]) for s in self.optimizer.state.values()), 0.0)
        warm = min(1.0, (taken + 1) / self.config.warmup) if self.config.warmup else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rate * warm

    def _frozen(self, decisions: Decisions) -> Decisions:
        """The decisions with what the policy's frozen parts make of them, computed once for all epochs."""
        parts = [
            self.policy.freeze(decisions.take(index).inputs)  # type: ignore[operator]
            for index in torch.arange(len(decisions)).split(16)
        ]
        return replace(decisions, inputs={k: torch.cat([p[k] for p in parts]) for k in parts[0]})

    def _parts(self, batch: Decisions) -> list[Decisions]:
        """The minibatch in parts within the budget; decisions of like length together, so that little is padded."""
        if not self.config.budget and self.world.size == 1:
            return [batch]
        if not self.config.budget:
            return [batch.take(i) for i in torch.arange(len(batch)).chunk(self.world.size)]
        sizes = getattr(self.policy, "sizes", None)
        size = torch.as_tensor(sizes(batch.inputs)) if sizes else torch.ones(len(batch), dtype=torch.long)
        order = torch.argsort(size, stable=True)
        parts: list[list[int]] = [[]]
        for i in order.tolist():
            if parts[-1] and int(size[i]) * (len(parts[-1]) + 1) > self.config.budget:
                parts.append([])
            parts[-1].append(i)
        return [batch.take(torch.tensor(p)) for p in parts]

    def _minibatch(self, batch: Decisions, share: float, step: int) -> dict[str, float]:
        self.optimizer.zero_grad(set_to_none=True)
        total = float(batch.mask.sum())
        parts = self._parts(batch)
        found: list[tuple[dict[str, float], float]] = []
        for number in range(self.world.rank, -(-len(parts) // self.world.size) * self.world.size, self.world.size):
            # Every process must run as often as the others: beyond the last part, the first again, without weight.
            part = parts[number if number < len(parts) else 0]
            weight = float(part.mask.sum()) / total if number < len(parts) else 0.0
            result = self._loss(part)
            # Sharded gradients are averaged over the processes, and are wanted as a sum.
            (result.loss * (min(1.0, share) * weight * (self.world.size if self.sharded else 1))).backward()
            found.append((result.diagnostics(), weight))
        if self.world.size > 1 and not self.sharded:
            for p in self.parameters:
                torch.distributed.all_reduce(p.grad if p.grad is not None else torch.zeros_like(p))
        norm = distributed.full(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip))
        row = _combined([f for f in self.world.gather(found) if f[1] > 0])
        if not (torch.isfinite(norm) and np.isfinite(row["loss"])):
            raise SrpoError(
                f"The update of step {step} is not finite (loss {row['loss']:.3g}, gradient {float(norm):.3g}); "
                "resume from the last checkpoint with a smaller learning rate."
            )
        self.optimizer.step()
        return {"grad_norm": float(norm), **row}

    def _loss(self, batch: Decisions) -> PolicyLoss:
        logits = self.policy.logits(batch.inputs)  # type: ignore[operator]
        batch = batch.to(logits.device)
        log_prob, entropy = token_log_probs(logits, batch.tokens, self.temperature, self.config.entropy_weight != 0)
        reference_log_prob = None
        if self.reference is not None:
            with torch.no_grad():
                reference_logits = self.reference.logits(batch.inputs)  # type: ignore[operator]
                reference_log_prob, _ = token_log_probs(reference_logits, batch.tokens, self.temperature)
        return clipped_policy_loss(
            log_prob,
            batch.old_log_prob,
            batch.advantage,
            batch.mask,
            clip_low=self.config.clip_low,
            clip_high=self.config.clip_high,
            reference_log_prob=reference_log_prob,
            kl_weight=self.config.kl_weight,
            entropy=entropy,
            entropy_weight=self.config.entropy_weight,
        )


def _freeze(policy: torch.nn.Module, parts: Sequence[str]) -> None:
    """No gradient for the parameters with such a part in their names."""
    names = [n for n, _ in policy.named_parameters()]
    for part in parts:
        if not any(f".{part}." in f".{n}." for n in names):
            known = ", ".join(dict.fromkeys(n.partition(".")[0] for n in names))
            raise SrpoError(f"The policy has no part '{part}' to be --learner.frozen; it has {known}.")
    for name, parameter in policy.named_parameters():
        if any(f".{part}." in f".{name}." for part in parts):
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in policy.parameters()):
        raise SrpoError("All of the policy is frozen: leave something to learn, see --learner.frozen.")


def _acting_copy(policy: torch.nn.Module) -> torch.nn.Module:
    """A whole policy for rollouts beside a sharded one; on a GPU in bfloat16."""
    copied = copy.deepcopy(policy).eval().requires_grad_(False)
    for parameter in copied.parameters():
        if parameter.device.type == "cuda":
            parameter.data = parameter.data.bfloat16()
    return copied


def _combined(parts: Sequence[tuple[dict[str, float], float]]) -> dict[str, float]:
    """Diagnostics of a minibatch from those of its parts and their weights: means, extremes."""
    rows, weights = [row for row, _ in parts], [weight for _, weight in parts]
    out = {k: float(np.dot([r[k] for r in rows], weights)) for k in rows[0]}
    return out | {"ratio_min": min(r["ratio_min"] for r in rows), "ratio_max": max(r["ratio_max"] for r in rows)}
