"""Which decision of an episode deserves the credit: a state value, and advantages decision by decision.

GRPO, and SRPO with it, gives every decision of an episode the advantage of the episode. In manipulation most decisions
are made after the outcome is settled (the grasp has missed; the object is in the hand), and their share of the gradient
is noise. A value of the state, read off linearly from the features of the policy itself, knows when that is so.

A failure's grade is the best that it reached, and no state tells that: one in which nothing is left to be done looks
the same whether the object was held before or not. So the grade came as a surprise at the end, and the last decisions
had the credit for it. A potential, the grade reached so far, tells (Ng, Harada and Russell, 1999); only what is still
to come is then fitted to the states.

Ours, not the paper's; for episodes of equal length, `group_relative_gae` at ``gae_lambda=1`` with a value that is the
group's mean everywhere is `group_advantages` exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from srpo.algorithms.advantages import group_advantages, informative_groups
from srpo.types import SrpoError

_INDICATOR = 5.0  # scale of the indicators of task and decision: they are regularised 25 times less than features
_FOLDS = 8


@dataclass(frozen=True)
class StateRecord:
    """What the value is fitted to: the decisions of N episodes, T of them in all.

    Attributes:
        features: (T, F) float32 of the policy at each decision.
        decision: (T,) int, number of the decision in its episode, from 0.
        episode: (T,) int, which episode it belongs to, from 0 to N - 1, in order.
        reward: (N,) float64 reward of each episode.
        task: (N,) int number of its task.
        potential: (T,) float64 reward reached before each decision; NaN where it is not known.
    """

    features: np.ndarray
    decision: np.ndarray
    episode: np.ndarray
    reward: np.ndarray
    task: np.ndarray
    potential: np.ndarray

    @classmethod
    def of(
        cls,
        features: Sequence[np.ndarray],
        reward: Sequence[float] | np.ndarray,
        task: Sequence[int] | np.ndarray,
        potential: Sequence[np.ndarray] | None = None,
    ) -> StateRecord:
        """From one (T_i, F) array per episode, and (T_i,) of the potential (None: not known); SrpoError if shapes do
        not fit, or a number is infinite or, but for the potential's, NaN."""
        lengths = [len(f) for f in features]
        if not lengths or len(reward) != len(lengths) or len(task) != len(lengths) or not min(lengths):
            raise SrpoError(
                f"{len(lengths)} episodes of features, {len(reward)} rewards and {len(task)} tasks do not fit: pass "
                "one of each per episode, every episode with a decision."
            )
        stacked = np.concatenate(features).astype(np.float32)
        if not np.isfinite(stacked).all():
            raise SrpoError("A feature of the policy is not finite; resume with a smaller learning rate.")
        reached = np.full(len(stacked), np.nan) if potential is None else np.concatenate(potential).astype(np.float64)
        if potential is not None and [len(p) for p in potential] != lengths:
            raise SrpoError("The potential does not fit the features: pass a number for every decision.")
        if np.isinf(reached).any():
            raise SrpoError("A potential is infinite: check the grades.")
        return cls(
            stacked,
            np.concatenate([np.arange(n) for n in lengths]),
            np.repeat(np.arange(len(lengths)), lengths),
            np.asarray(reward, np.float64),
            np.asarray(task, np.int64),
            reached,
        )


def group_relative_gae(
    now: StateRecord,
    group: np.ndarray | Sequence[int],
    history: Sequence[StateRecord] = (),
    *,
    gae_lambda: float = 0.7,
    ridge: float = 100.0,
    normalise_std: bool = True,
) -> list[np.ndarray]:
    """Generalised advantage estimates within groups, one a decision.

    With V(s_0) the mean reward of the group, V(s_t) for t >= 1 from `cross_fitted_values`, the reward R of the episode
    at its end and no discount: delta_t = V(s_{t+1}) - V(s_t), where V(s_T) = R, and
    A_t = sum_k lambda^k delta_{t+k} (Schulman et al., arXiv 1506.02438, eq. 16). Then, as in a group's comparison of
    whole episodes, the mean over the group's episodes that reach decision t is taken off, the group's std of R divides,
    and groups whose rewards do not differ get 0.

    Args:
        now: the batch.
        group: (N,) group of each episode.
        history: earlier batches, to fit the value on as well.
        gae_lambda: 1: reward minus value; 0: the change of value over one decision.
        ridge: see `cross_fitted_values`.
        normalise_std: divide by the group's population std of the rewards.

    Returns:
        N arrays (T_i,) float64.

    Raises:
        SrpoError: shapes do not fit or a reward is not finite.
    """
    _, index = np.unique(np.asarray(group), return_inverse=True)
    centred = group_advantages(now.reward, index, normalise_std=False)
    informative = informative_groups(now.reward, index)
    values = cross_fitted_values(now, index, history, ridge=ridge)
    values[now.decision == 0] = now.reward - centred
    advantage = _gae(values, now, gae_lambda)
    cell = index[now.episode] * (now.decision.max() + 1) + now.decision
    advantage -= (np.bincount(cell, advantage) / np.maximum(np.bincount(cell), 1))[cell]
    std = np.sqrt(np.bincount(index, centred**2) / np.bincount(index))[index]
    scale = np.where(informative & normalise_std, std, 1.0)
    advantage = np.where(informative[now.episode], advantage / scale[now.episode], 0.0)
    return np.split(advantage, np.flatnonzero(np.diff(now.episode)) + 1)


def cross_fitted_values(
    now: StateRecord, group: np.ndarray, history: Sequence[StateRecord] = (), *, ridge: float = 100.0
) -> np.ndarray:
    """V(s_t): the expected reward of the episode: the potential, and what is still to come by ridge regression on
    features, decision number and task.

    Of several tasks, each then has a ridge regression of its own for what the common one leaves over: where the hand
    must be depends on the task.

    The episodes of a group are valued by a fit that has seen neither them nor the rest of their fold of groups, so that
    no outcome leaks into its own baseline, which would bias the gradient (but by what a potential has of it: its mean
    and std are those of a task's batch). Where the potential is not known, or of no other fold, the whole reward is
    fitted.

    Args:
        now: the batch whose decisions are valued.
        group: (N,) int group of each of its episodes, numbered from 0.
        history: earlier batches.
        ridge: penalty on the coefficients of the standardised features.

    Returns:
        (T,) float64, within the range of the rewards that the fit has seen. With no other group and no history there
        is nothing to fit to, and the value is the mean reward (the potential less its mean is added).
    """
    records = [now, *history]
    if len({r.features.shape[1] for r in records}) > 1:
        raise SrpoError("The history holds features of another size; start a new run.")
    design = _design(records)
    reward = np.concatenate([r.reward[r.episode] for r in records])
    potential = np.concatenate([r.potential for r in records])
    task = np.concatenate([r.task[r.episode] for r in records])
    fold = np.concatenate([group[now.episode] % _FOLDS, np.full(len(reward) - len(now.decision), -1)])
    values = np.full(len(reward), np.nan)
    knows, wanted = np.isfinite(potential), fold >= 0
    if (knows & wanted).any():
        reached, known = potential[knows], (design[knows], task[knows], fold[knows], wanted[knows])
        values[knows] = reached + _cross_fitted(reward[knows] - reached, *known, ridge)
    if (wanted := wanted & np.isnan(values)).any():
        values[wanted] = _cross_fitted(reward, design, task, fold, wanted, ridge)[wanted]
    values, knows, reached = values[: len(now.decision)], knows[: len(now.decision)], now.potential
    if np.isnan(values).any():  # a single fold and no history
        values[:] = now.reward.mean() + np.where(knows, reached - reached[knows].mean() if knows.any() else 0.0, 0.0)
    for f in np.unique(fold[fold >= 0]):
        seen = reward[fold != f] if (fold != f).any() else reward
        mine = fold[: len(values)] == f
        values[mine] = np.clip(values[mine], seen.min(), seen.max())
    return values


def _cross_fitted(
    target: np.ndarray, design: np.ndarray, task: np.ndarray, fold: np.ndarray, wanted: np.ndarray, ridge: float
) -> np.ndarray:
    """(T,) what the rows of other folds let expect of the target in those wanted; NaN elsewhere and without any."""
    parts = {
        (f, t): _moments(design[rows], target[rows])
        for f, t in {*zip(fold.tolist(), task.tolist(), strict=True)}
        if len(rows := np.flatnonzero((fold == f) & (task == t)))
    }
    penalty = ridge * np.eye(design.shape[1])
    expected = np.full(len(target), np.nan)
    for f in np.unique(fold[wanted]):
        others = {key: m for key, m in parts.items() if key[0] != f}
        if not others:
            continue
        gram, cross, sums, target_sum, count = _sum(others.values())
        mean = target_sum / count
        common = np.linalg.solve(gram + penalty, cross - mean * sums)
        for t in np.unique(task[wanted & (fold == f)]):
            mine = np.flatnonzero(wanted & (fold == f) & (task == t))
            coefficients = common
            own = [m for key, m in others.items() if key[1] == t]
            if own and len(own) < len(others):
                gram, cross, sums, _, _ = _sum(own)
                left_over = cross - mean * sums - gram @ common
                coefficients = common + np.linalg.solve(gram + penalty, left_over)
            expected[mine] = mean + design[mine] @ coefficients
    return expected


def _design(records: Sequence[StateRecord]) -> np.ndarray:
    """(T, F + decisions + tasks): standardised features and indicators."""
    features = np.concatenate([r.features for r in records]).astype(np.float64)
    features -= features.mean(0)
    features /= np.maximum(features.std(0), 1e-6)
    decision = np.concatenate([r.decision for r in records])
    _, task = np.unique(np.concatenate([r.task[r.episode] for r in records]), return_inverse=True)
    indicators = [np.eye(kinds.max() + 1)[kinds] for kinds in (decision, task)]
    return np.concatenate([features, *(_INDICATOR * i for i in indicators)], 1)


def _moments(design: np.ndarray, target: np.ndarray) -> tuple[Any, ...]:
    """What a ridge regression needs of its data; additive over data."""
    return design.T @ design, design.T @ target, design.sum(0), target.sum(), len(target)


def _sum(moments: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(sum(column) for column in zip(*moments, strict=True))


def _gae(values: np.ndarray, record: StateRecord, gae_lambda: float) -> np.ndarray:
    """A_t = (V(s_{t+1}) - V(s_t)) + lambda A_{t+1}; after the last decision of an episode stands its reward."""
    last = np.append(np.diff(record.episode) != 0, True)
    following = np.where(last, record.reward[record.episode], np.append(values[1:], 0.0))
    advantage = following - values
    for t in range(len(values) - 2, -1, -1):
        if not last[t]:
            advantage[t] += gae_lambda * advantage[t + 1]
    return advantage


class ValueHistory:
    """The last few batches, first in, first out.

    Args:
        capacity: batches kept; 0 keeps none.
    """

    def __init__(self, capacity: int) -> None:
        self.batches: deque[StateRecord] = deque(maxlen=capacity)

    def add(self, batch: StateRecord) -> None:
        """Keep a batch; the oldest goes when there are too many."""
        self.batches.append(batch)

    def state_dict(self) -> dict[str, np.ndarray]:
        """The batches as arrays, for a checkpoint."""
        return {f"{i}.{k}": v for i, b in enumerate(self.batches) for k, v in vars(b).items()}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Replace the contents by those of `state_dict`; SrpoError if an array is missing."""
        self.batches.clear()
        try:
            for i in range(len({name.partition(".")[0] for name in state})):
                arrays = {f.name: state[f"{i}.{f.name}"] for f in fields(StateRecord) if f.name != "potential"}
                unknown = np.full(len(arrays["decision"]), np.nan)  # of old checkpoints
                reached = state.get(f"{i}.potential", unknown)
                self.batches.append(StateRecord(**arrays, potential=reached))
        except KeyError as error:
            raise SrpoError(f"The saved history of values lacks {error}; resume from an earlier checkpoint.") from error
