"""A new policy cloned from a run's own successes takes the place of the one that practised.

Every update moves the weights a little towards what succeeded, and a little at random. A new network that only imitates
what has succeeded is meant not to inherit the latter. Periodic distillation into a new network, as Igl et al. do it
(arXiv 2006.05826, section 4: against what non-stationary data leave in a network), of successes alone, as in rejection
sampling (Anthony et al., arXiv 1705.08439: expert iteration).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from srpo.data.successes import Decisions, JoinedMemories, SuccessMemory
from srpo.policies.base import sample_tokens
from srpo.sft import SftConfig, fit, optimizer_for
from srpo.types import Task


@dataclass(frozen=True)
class DistilConfig:
    """Cloning of own successes.

    Attributes:
        every: RL steps between two distillations (0: none). A policy that a run ends with is then a clone too.
        last: after this many RL steps nothing is cloned any more, not at the end either (0: no such limit): a good
            policy can lose by it.
        keep: keep successes, for ``srpo distil``, although (or after) nothing is cloned in this run any more.
        successes: newest successes kept per task.
        demonstration_weight: own successes that a demonstration (of ``--demonstrations``, if it was given) counts as:
            few successes of a poor policy must not drown it, many of a good one may. 0: own successes alone.
        augmentations: recoloured copies of a demonstration's frames, as ``srpo sft`` makes them.
        shift: pixels by which those copies are moved at most.
        steps: gradient steps.
        batch: decisions per gradient step.
        cloning_rate: learning rate, the peak of a cosine schedule with a short warm-up.
        rounds: of ``srpo distil``, between equal parts of the steps: the clone attempts every task, and what the runs'
            policies would have decided where it got to is cloned as well (0: none).
        attempts: of every task in each of them.
    """

    every: int = 0
    last: int = 0
    keep: bool = False
    successes: int = 200
    demonstration_weight: float = 40.0
    augmentations: int = 2
    shift: int = 0
    steps: int = 1800
    batch: int = 64
    cloning_rate: float = 1e-3
    rounds: int = 0
    attempts: int = 15

    def goes_on(self, step: int) -> bool:
        """Whether, ``step`` RL steps after the start, successes are (still) to be cloned."""
        return self.every > 0 and (self.last == 0 or step <= self.last)


#: Attempts of a policy in the given round (from 1), with the labels to be cloned.
Attempts = Callable[[Any, int], Iterable[tuple[Task, Decisions]]]


def distil(
    policy: Any,
    memory: SuccessMemory | JoinedMemories,
    tasks: Sequence[Task],
    config: DistilConfig,
    seed: int,
    on_step: Callable[[int], None] = lambda step: None,
    *,
    start: Any | None = None,
    attempts: Attempts | None = None,
) -> Any | None:
    """A new policy of the same configuration, cloned from the successes; None while a task has neither one nor a
    demonstration, or no task has one.

    With ``attempts``, the clone's own mistakes are corrected between equal parts of the gradient steps, and what was
    cloned before is so still: DAgger (Ross et al., arXiv 1011.0686, section 3.3, with beta = 0), its data being drawn
    as the successes are.

    Args:
        policy: has ``untrained()`` and ``member_logits()``, as `srpo.policies.compact.CompactPolicy`.
        memory: the successes.
        tasks: those of the run.
        config: see `DistilConfig`.
        seed: of initialisation and batches.
        on_step: hears of every gradient step.
        start: a policy whose weights the new one begins with; None: drawn anew.
        attempts: called ``config.rounds`` times.
    """
    own = {task.index: memory.own(task) for task in tasks}
    shown = {task.index: memory.shown(task) if config.demonstration_weight else [] for task in tasks}
    if not any(own.values()) or not all(own[k] or shown[k] for k in own):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = policy.untrained()
    if start is not None:
        new.load_state_dict(start.state_dict())
    settings = SftConfig(steps=config.steps, batch=config.batch, learning_rate=config.cloning_rate, seed=seed)
    optimizer = optimizer_for(new, settings)
    edges = np.linspace(0, config.steps, 1 + (config.rounds + 1 if attempts else 1)).astype(int)
    for number, part in enumerate(map(range, edges[:-1], edges[1:])):
        if attempts and number:
            for task, decisions in attempts(new.eval(), number):
                own[task.index].append(decisions)
        data, weights = _join(
            [e for e in own.values() if e], [e for e in shown.values() if e], config.demonstration_weight
        )
        for step, _ in zip(part, fit(new, data, settings, weights, part, optimizer), strict=True):
            on_step(step + 1)
        del data, weights  # gigabytes, before they are joined anew
    return new.eval()


@torch.inference_mode()
def relabelled(policy: Any, episode: Decisions) -> Decisions:
    """The episode with what the policy decides by the median, in place of what had been sampled, for every token (also
    of actions that were not carried out): noise led to these states, and would be learnt with them. States that noise
    visits and labels that have none, as in DART (Laskey et al., arXiv 1703.09327).

    Args:
        policy: has ``logits``, as `srpo.policies.compact.CompactPolicy`.
        episode: inputs, ``tokens`` (T, L), ``mask`` (T, L).
    """
    logits = policy.logits({k: v for k, v in episode.items() if k not in ("tokens", "mask")}).numpy()
    unused = np.random.default_rng(0)  # the median draws nothing
    tokens = np.stack([sample_tokens(decision, 1.0, unused, median=True)[0] for decision in logits])
    return {**episode, "tokens": torch.from_numpy(tokens), "mask": torch.ones_like(episode["mask"])}


def _join(
    own: Sequence[Sequence[Decisions]], shown: Sequence[Sequence[Decisions]], weight: float
) -> tuple[Decisions, np.ndarray]:
    """All decisions, and how often to draw each. Within the own successes a task counts by the square root of its
    decisions, between all decisions alike and all tasks alike; and so within the demonstrations.

    Args:
        own: episodes of every task that has successes, at least one.
        shown: the same of demonstrations; may be empty.
        weight: own successes that a demonstration counts as.
    """
    n_own, n_shown = (sum(map(len, part)) for part in (own, shown))
    share = weight * n_shown / (n_own + weight * n_shown)
    episodes = [e for part in (own, shown) for of_task in part for e in of_task]
    weights = []
    for part, total in ((own, 1 - share), (shown, share)):
        sizes = [sum(len(e["tokens"]) for e in of_task) for of_task in part]
        weights += [np.full(n, n**-0.5 * total / np.sum(np.sqrt(sizes))) for n in sizes]
    return {k: torch.cat([e[k] for e in episodes]) for k in episodes[0]}, np.concatenate(weights)
