"""One policy that decides for all workers: continuous batching for policies too large for a copy in every process.

Workers ask when they stand at a decision; while one batch is computed the next questions gather. On a CPU every batch
has the same shape, filled up with copies if need be, so that a decision's numbers do not depend on what else happened
to be waiting. On a GPU it is filled up to the next power of two, or, for a compiled policy, as on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from srpo.policies.base import Inputs


class PolicyServer:
    """Answers decisions with logits.

    Args:
        batch: decisions per forward.

    Attributes:
        policy: the one that decides, on any device; replace it at will between two calls.
        forwards: how often it was run.
        decisions: how many decisions it was asked for.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.policy: Any = None
        self.forwards = self.decisions = 0

    def __call__(self, questions: Sequence[Inputs]) -> Iterator[np.ndarray]:
        """Logits (L, K) float32 for each question, in order, as soon as its batch is done."""
        for start in range(0, len(questions), self.batch):
            yield from self._batch(list(questions[start : start + self.batch]))

    @torch.inference_mode()
    def _batch(self, part: list[Inputs]) -> np.ndarray:
        device = next(self.policy.parameters()).device
        fixed = device.type == "cpu" or getattr(self.policy.config, "compile", False)
        size = self.batch if fixed else min(self.batch, 1 << (len(part) - 1).bit_length())
        rows = part + [part[0]] * (size - len(part))
        inputs = {k: torch.from_numpy(np.stack([r[k] for r in rows])).to(device) for k in part[0]}
        self.forwards += 1
        self.decisions += len(part)
        return self.policy.logits(inputs)[: len(part)].float().cpu().numpy()
