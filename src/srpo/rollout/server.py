"""One policy that decides for all workers: continuous batching for policies too large for a copy in every process.

Workers ask when they stand at a decision; while one batch is computed the next questions gather. Every batch has the
same shape, filled up with copies if need be: nothing is compiled twice, and on a CPU a decision's numbers do not
depend on what else happened to be waiting (on a GPU as far as its kernels keep rows apart).
"""

from __future__ import annotations

from collections.abc import Sequence
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

    @torch.inference_mode()
    def __call__(self, questions: Sequence[Inputs]) -> list[np.ndarray]:
        """Logits (L, K) float32 for each question, in order."""
        device = next(self.policy.parameters()).device
        answers: list[np.ndarray] = []
        for start in range(0, len(questions), self.batch):
            part = list(questions[start : start + self.batch])
            rows = part + [part[0]] * (self.batch - len(part))
            inputs = {k: torch.from_numpy(np.stack([r[k] for r in rows])).to(device) for k in part[0]}
            logits = self.policy.logits(inputs)[: len(part)].float().cpu().numpy()
            answers += list(logits)
            self.forwards += 1
        self.decisions += len(questions)
        return answers
