"""Which groups come next, and which initial states may be trained on.

The sampler has no state: step k of seed s always gives the same groups, so a resumed run meets the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from srpo.types import EpisodeRequest, InitialState, SrpoError, Task

N_PUBLISHED = 50
PROTOCOLS = ("held-out", "paper")
# Seeds of sampled initial states, apart by purpose, so that no state serves two.
_TRAIN_SEEDS, _EVAL_SEEDS, _DEMO_SEEDS = 1_000_000, 2_000_000, 3_000_000
_SPAN = 1_000_000


def train_state(protocol: str, index: int) -> InitialState:
    """The ``index``-th training state: sampled anew ("held-out") or one of the 50 published ("paper")."""
    _check(protocol)
    if protocol == "paper":
        return InitialState("published", index % N_PUBLISHED)
    return InitialState("sampled", _TRAIN_SEEDS + index % _SPAN)


def evaluation_states(protocol: str, count: int) -> list[InitialState]:
    """The first ``count`` evaluation states: the 50 published ones, then sampled ones that no training run draws.

    Under the paper's protocol the published states are those that were trained on, and there are only 50.
    """
    _check(protocol)
    if protocol == "paper" and count > N_PUBLISHED:
        raise SrpoError(f"The paper's protocol has {N_PUBLISHED} initial states a task, {count} were asked for.")
    published = [InitialState("published", i) for i in range(min(count, N_PUBLISHED))]
    return published + [InitialState("sampled", _EVAL_SEEDS + i) for i in range(count - len(published))]


def demonstration_state(index: int) -> InitialState:
    """The ``index``-th initial state for demonstrations: always sampled, never evaluated."""
    return InitialState("sampled", _DEMO_SEEDS + index)


def _check(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise SrpoError(f"No protocol named '{protocol}': choose {' or '.join(PROTOCOLS)}.")


@dataclass(frozen=True)
class GroupSampler:
    """Orders the episodes of one RL step: groups of ``group_size`` attempts at the same task and initial state.

    Attributes:
        tasks: visited in turn, in an order shuffled anew in every round.
        groups: groups per step.
        group_size: attempts per group (M in the paper).
        protocol: see `train_state`.
        seed: of the whole run.
        temperature: sampling temperature of the rollouts.
        train_states: number of different initial states a task; None: never the same one twice.
    """

    tasks: Sequence[Task]
    groups: int
    group_size: int
    protocol: str
    seed: int
    temperature: float
    train_states: int | None = None

    def requests(self, step: int) -> list[EpisodeRequest]:
        """The episodes of RL step ``step`` (from 0), group by group."""
        out = []
        for g in range(self.groups):
            number = step * self.groups + g
            turn, place = divmod(number, len(self.tasks))
            order = np.random.default_rng([self.seed, 1, turn]).permutation(len(self.tasks))
            task = self.tasks[int(order[place])]
            state_rng = np.random.default_rng([self.seed, 2, number])
            pool = self.train_states or (N_PUBLISHED if self.protocol == "paper" else _SPAN)
            state = train_state(self.protocol, int(state_rng.integers(pool)))
            seeds = np.random.default_rng([self.seed, 3, number]).integers(2**31, size=self.group_size)
            out += [
                EpisodeRequest(task, state, group=number, seed=int(s), temperature=self.temperature) for s in seeds
            ]
        return out
