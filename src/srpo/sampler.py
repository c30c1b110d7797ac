"""Which groups come next, and which initial states may be trained on.

The sampler has no state: step k of seed s with the same weights always gives the same groups, so a resumed run meets
the same ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def practised_states(groups: Iterable[Mapping[str, Any]], task: str, count: int) -> list[InitialState]:
    """The last ``count`` initial states that a run took up at a task, newest first; one that it came back to (because
    it failed there) counts where it was new.

    Args:
        groups: rows of the run's ``groups.csv``, oldest first.
        task: id of the task.
        count: as many as there are, if there are fewer.
    """
    names = dict.fromkeys(str(row["initial_state"]) for row in groups if row["task"] == task)
    states = []
    for name in list(names)[::-1][:count]:
        kind, _, index = name.rpartition("-")
        if not kind or not index.isdecimal():
            raise SrpoError(f"'{name}' is no initial state, such as sampled-7: mend or remove that row of groups.csv.")
        states.append(InitialState(kind, int(index)))
    return states


def _check(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise SrpoError(f"No protocol named '{protocol}': choose {' or '.join(PROTOCOLS)}.")


@dataclass(frozen=True)
class GroupSampler:
    """Orders the episodes of one RL step: groups of ``group_size`` attempts at the same task and initial state.

    Attributes:
        tasks: visited in turn, in an order shuffled anew in every round; or by weight.
        groups: groups per step.
        group_size: attempts per group (M in the paper).
        protocol: see `train_state`.
        seed: of the whole run.
        temperature: sampling temperature of the rollouts.
        train_states: number of different initial states a task; None: never the same one twice.
        probes: single attempts per step at new initial states, each a group of its own; tasks take turns.
        gripper_temperature: of the gripper's tokens; None: as the others.
    """

    tasks: Sequence[Task]
    groups: int
    group_size: int
    protocol: str
    seed: int
    temperature: float
    train_states: int | None = None
    probes: int = 0
    gripper_temperature: float | None = None

    def requests(
        self, step: int, weights: np.ndarray | None = None, failed: FailedStates | None = None, revisit: float = 0.0
    ) -> list[EpisodeRequest]:
        """The episodes of RL step ``step`` (from 0), group by group, and then the probes.

        Args:
            step: its number.
            weights: (number of tasks,) floats > 0, share of each task in the groups, up to rounding; None: in turn.
            failed: initial states to take up again.
            revisit: share of the groups that do so, where their task has such a state.
        """
        chosen = self._in_turn(step, self.groups) if weights is None else self._weighted(step, weights)
        out: list[EpisodeRequest] = []
        first = step * (self.groups + self.probes)
        for number, index in enumerate(chosen, first):
            task = self.tasks[index]
            again_rng = np.random.default_rng([self.seed, 6, number])
            state = None
            if failed is not None and again_rng.random() < revisit:
                state = failed.draw(task.id, again_rng, {r.initial_state for r in out if r.task is task})
            out += self._group(task, number, self.group_size, state)
        for number, index in enumerate(self._in_turn(step, self.probes), first + self.groups):
            out += self._group(self.tasks[index], number, 1)
        return out

    def _group(self, task: Task, number: int, size: int, failed: InitialState | None = None) -> list[EpisodeRequest]:
        """``size`` attempts at the state that failed, or at a new one."""
        pool = self.train_states or (N_PUBLISHED if self.protocol == "paper" else _SPAN)
        index = int(np.random.default_rng([self.seed, 2, number]).integers(pool))
        state = failed or train_state(self.protocol, index)
        seeds = np.random.default_rng([self.seed, 3, number]).integers(2**31, size=size).tolist()
        return [
            EpisodeRequest(
                task, state, number, s, self.temperature,
                gripper_temperature=self.gripper_temperature, again=failed is not None,
            )
            for s in seeds
        ]  # fmt: skip

    def _in_turn(self, step: int, count: int) -> list[int]:
        """The tasks of a step's ``count`` groups or probes."""
        chosen = []
        for number in range(step * count, (step + 1) * count):
            turn, place = divmod(number, len(self.tasks))
            chosen.append(int(np.random.default_rng([self.seed, 1, turn]).permutation(len(self.tasks))[place]))
        return chosen

    def _weighted(self, step: int, weights: np.ndarray) -> list[int]:
        """Systematic sampling: of G groups a task of share w has floor(G w) or ceil(G w)."""
        rng = np.random.default_rng([self.seed, 5, step])
        order = rng.permutation(len(self.tasks))
        edges = np.cumsum(weights[order]) / np.sum(weights)
        places = (np.arange(self.groups) + rng.random()) / self.groups
        return [int(order[i]) for i in np.minimum(np.searchsorted(edges, places, side="right"), len(order) - 1)]


class RecentOutcomes:
    """The last outcomes at every task, and how much practice each deserves.

    Args:
        tasks: ids, in the order of `weights`.
        window: outcomes kept per task.
    """

    def __init__(self, tasks: Sequence[str], window: int = 32) -> None:
        self._kept: dict[str, deque[bool]] = {t: deque(maxlen=window) for t in tasks}

    def add(self, task: Sequence[str] | np.ndarray, success: Sequence[bool] | np.ndarray) -> None:
        """Keep the outcomes of a batch: (N,) ids and (N,) bool."""
        for name, won in zip(task, success, strict=True):
            self._kept[str(name)].append(bool(won))

    def weights(self, sampling: str = "uncertain") -> np.ndarray:
        """How much practice each task deserves, with p = (successes + 1) / (outcomes + 2).

        Args:
            sampling: ``"uncertain"``: sqrt(p (1 - p)), the standard deviation of an outcome, which is what a group
                compares: a task at half weighs three times one whose last 32 attempts all ended alike. (Ours, not the
                paper's; its code draws tasks evenly and throws away the groups that all succeed or all fail, as DAPO
                does, arXiv 2503.14476, section 3.2.) ``"failing"``: 1 - p, the failures still to be mended. Where
                failures are graded, a group in which all fail teaches too, and what never succeeds is practised most.

        Returns:
            (number of tasks,) float64.
        """
        p = np.array([(sum(k) + 1) / (len(k) + 2) for k in self._kept.values()])
        return 1 - p if sampling == "failing" else np.sqrt(p * (1 - p))

    def rates(self) -> dict[str, float]:
        """Task -> share of successes among the kept outcomes; tasks without any are left out."""
        return {t: float(np.mean(k)) for t, k in self._kept.items() if k}

    def success(self) -> float:
        """Mean of `rates` over the tasks."""
        rates = list(self.rates().values())
        return float(np.mean(rates)) if rates else 0.0

    def state_dict(self) -> dict[str, list[bool]]:
        """Task -> outcomes, fit for JSON."""
        return {t: list(k) for t, k in self._kept.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the contents by those of `state_dict`; tasks that this run does not have are left out."""
        for name, kept in self._kept.items():
            kept.clear()
            kept.extend(bool(x) for x in state.get(name, ()))


class FailedStates:
    """Initial states at which not every attempt succeeded, to be practised again.

    Levels whose outcome is still open teach more than new ones, most of which are solved: Prioritized Level Replay
    (arXiv 2010.03934), with the standard deviation of an outcome as the score, sqrt(p (1 - p)), where p is
    (successes + 1) / (attempts + 2).

    Args:
        tasks: ids.
        capacity: states kept per task; the one that was not practised for longest goes first.
    """

    def __init__(self, tasks: Sequence[str], capacity: int = 32) -> None:
        self.capacity = capacity
        self._kept: dict[str, dict[InitialState, tuple[int, int]]] = {t: {} for t in tasks}

    def add(self, task: str, state: InitialState, success: np.ndarray | Sequence[bool]) -> None:
        """Note how a group's attempts at a state ended. One that succeeded throughout is not kept (any longer)."""
        kept = self._kept[task]
        kept.pop(state, None)
        if not np.all(success):
            kept[state] = int(np.sum(success)), len(success)
        while len(kept) > self.capacity:
            del kept[next(iter(kept))]

    def draw(self, task: str, rng: np.random.Generator, but: Collection[InitialState] = ()) -> InitialState | None:
        """A state of the task, in proportion to its score; None if there is none.

        Args:
            task: its id.
            rng: to draw with.
            but: states that are not to be drawn.
        """
        states = [s for s in self._kept[task] if s not in but]
        if not states:
            return None
        p = np.array([(won + 1) / (n + 2) for won, n in (self._kept[task][s] for s in states)])
        score = np.sqrt(p * (1 - p))
        return states[int(rng.choice(len(states), p=score / score.sum()))]

    def state_dict(self) -> dict[str, list[list[Any]]]:
        """Task -> rows of kind, index, successes and attempts, fit for JSON; the longest unpractised first."""
        return {t: [[s.kind, s.index, *outcome] for s, outcome in kept.items()] for t, kept in self._kept.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the contents by those of `state_dict`; tasks that this run does not have are left out."""
        for name, kept in self._kept.items():
            kept.clear()
            kept.update({InitialState(kind, int(i)): (int(won), int(n)) for kind, i, won, n in state.get(name, ())})
