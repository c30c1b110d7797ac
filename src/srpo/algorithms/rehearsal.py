"""Rehearsal: what a policy for many tasks has learnt is held while it learns the rest.

A task that is solved is practised less, and the updates for other tasks wear it down unseen. So decisions of recent
successes are kept, with the distribution that each was drawn from, and the policy is held to those distributions while
it learns. The gradient is exactly 0 where nothing has changed; cloning the actions themselves would add their noise.

Ours, not the paper's; dark experience replay (Buzzega et al., arXiv 2004.07211, section 3) for policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from srpo.types import SrpoError

_INPUTS = "inputs."


@dataclass
class Rehearsal:
    """B decisions, and how the policy took them when they led to success.

    Attributes:
        inputs: name -> (B, ...) what the policy reads.
        log_p: (B, L, K) float16 log-probabilities of its tokens then, at the sampling temperature.
        mask: (B, L) bool, or float32 weights: the tokens that count.
        share: (B,) float64, how often each is drawn.
        weight: of the loss.
    """

    inputs: dict[str, torch.Tensor]
    log_p: torch.Tensor
    mask: torch.Tensor
    share: torch.Tensor
    weight: float

    def draw(self, count: int, generator: torch.Generator) -> Rehearsal:
        """``count`` of them, with replacement, by their share."""
        index = torch.multinomial(self.share, count, replacement=True, generator=generator)
        inputs = {k: v[index] for k, v in self.inputs.items()}
        return Rehearsal(inputs, self.log_p[index], self.mask[index], self.share[index], self.weight)


def rehearsal_loss(logits: torch.Tensor, log_p: torch.Tensor, mask: torch.Tensor, temperature: float) -> torch.Tensor:
    """Weighted mean over the tokens of KL(then || now), in nats, with a gradient.

    Args:
        logits: (B, L, K) of the policy now.
        log_p: (B, L, K) log-probabilities then, at ``temperature``.
        mask: (B, L) bool, or float weights >= 0.
        temperature: of the sampling.

    Raises:
        SrpoError: shapes do not fit.
    """
    if logits.shape != log_p.shape or mask.shape != logits.shape[:2]:
        raise SrpoError(
            f"logits {tuple(logits.shape)}, log_p {tuple(log_p.shape)} and mask {tuple(mask.shape)} do not fit: pass "
            "(B, L, K), (B, L, K) and (B, L)."
        )
    then = torch.log_softmax(log_p.float(), -1)  # float16 has rounded it
    now = torch.log_softmax(logits.float() / temperature, -1)
    weights = mask.float()
    return ((then.exp() * (then - now)).sum(-1) * weights).sum() / weights.sum().clamp(min=1e-9)


class SuccessMemory:
    """Decisions of recent successes of each task, first in, first out.

    Args:
        weight: of the rehearsal's loss.
        capacity: decisions kept per task.
        fresh: of them, at most so many from one batch.
    """

    def __init__(self, weight: float, capacity: int = 64, fresh: int = 16) -> None:
        self.weight, self.capacity, self.fresh = weight, capacity, fresh
        self._kept: dict[str, dict[str, torch.Tensor]] = {}

    def __len__(self) -> int:
        return sum(len(rows["mask"]) for rows in self._kept.values())

    def choose(self, count: int, rng: np.random.Generator) -> torch.Tensor:
        """Which of a batch's ``count`` decisions to keep: indices (<= fresh,), in order."""
        return torch.from_numpy(np.sort(rng.permutation(count)[: self.fresh]))

    def add(self, task: str, inputs: Mapping[str, torch.Tensor], log_p: torch.Tensor, mask: torch.Tensor) -> None:
        """Keep decisions of a task, see `Rehearsal`; the oldest go when there are too many."""
        rows = {_INPUTS + k: v for k, v in inputs.items()} | {"log_p": log_p.half(), "mask": mask}
        old = self._kept.get(task)
        if old is not None:
            rows = {k: torch.cat([old[k], v]) for k, v in rows.items()}
        self._kept[task] = {k: v[-self.capacity :].contiguous() for k, v in rows.items()}

    def rehearsal(self, weights: Mapping[str, float]) -> Rehearsal | None:
        """Everything kept, each task drawn in proportion to its weight; None if nothing kept has weight."""
        tasks = [t for t in self._kept if weights.get(t, 0.0) > 0]
        if not tasks:
            return None
        rows = {k: torch.cat([self._kept[t][k] for t in tasks]) for k in self._kept[tasks[0]]}
        sizes = [len(self._kept[t]["mask"]) for t in tasks]
        share = torch.tensor([weights[t] / n for t, n in zip(tasks, sizes, strict=True)], dtype=torch.float64)
        share = share.repeat_interleave(torch.tensor(sizes))
        inputs = {k.removeprefix(_INPUTS): v for k, v in rows.items() if k.startswith(_INPUTS)}
        return Rehearsal(inputs, rows["log_p"], rows["mask"], share / share.sum(), self.weight)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything kept, for a checkpoint: ``task|name`` -> tensor."""
        return {f"{t}|{k}": v for t, rows in self._kept.items() for k, v in rows.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace the contents by those of `state_dict`."""
        self._kept = {}
        for name, value in state.items():
            task, _, key = name.partition("|")
            self._kept.setdefault(task, {})[key] = value
