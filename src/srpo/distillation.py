"""A new policy cloned from a run's own successes takes the place of the one that practised.

Every update moves the weights a little towards what succeeded, and a little at random. The noise stays; a new network
that only imitates what has succeeded does not inherit it. Periodic distillation into a new network, as Igl et al. do it
(arXiv 2006.05826, section 4: against what non-stationary data leave in a network), of successes alone, as in rejection
sampling (Anthony et al., arXiv 1705.08439: expert iteration).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from srpo.data.successes import Decisions, SuccessMemory
from srpo.sft import SftConfig, fit
from srpo.types import Task


@dataclass(frozen=True)
class DistilConfig:
    """Cloning of own successes.

    Attributes:
        every: RL steps between two distillations (0: none). The policy that a run ends with is then always a clone.
        successes: newest successes kept per task, the demonstrations (of ``--demonstrations``) being the oldest.
        steps: gradient steps.
        batch: decisions per gradient step.
        cloning_rate: learning rate, the peak of a cosine schedule with a short warm-up.
    """

    every: int = 0
    successes: int = 100
    steps: int = 1800
    batch: int = 64
    cloning_rate: float = 1e-3


def distil(
    policy: Any,
    memory: SuccessMemory,
    tasks: Sequence[Task],
    config: DistilConfig,
    seed: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> Any | None:
    """A new policy of the same configuration, cloned from the successes; None while a task has none.

    Args:
        policy: has ``untrained()``.
        memory: the successes.
        tasks: those of the run.
        config: see `DistilConfig`.
        seed: of initialisation and batches.
        on_step: hears of every gradient step.
    """
    if not all(memory.counts(tasks).values()):
        return None
    data, weights = _join(list(memory.load(tasks).values()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = policy.untrained()
    settings = SftConfig(steps=config.steps, batch=config.batch, learning_rate=config.cloning_rate, seed=seed)
    for step, _ in enumerate(fit(new, data, settings, weights), 1):
        on_step(step)
    return new.eval()


def _join(kept: Sequence[Sequence[Decisions]]) -> tuple[Decisions, np.ndarray]:
    """All decisions of all tasks' successes, and how often to draw each: a task counts by the square root of its
    decisions, between all decisions alike and all tasks alike."""
    sizes = [sum(len(e["tokens"]) for e in episodes) for episodes in kept]
    episodes = [e for of_task in kept for e in of_task]
    data = {k: torch.cat([e[k] for e in episodes]) for k in episodes[0]}
    return data, np.concatenate([np.full(n, n**-0.5) for n in sizes])
