"""Self-imitation: what led to success is done again, whatever the update of the moment is about.

A policy-gradient step sees the few episodes of each task that this step holds, once. Most of its gradient is noise, so
it must be short; a success at a task that rarely succeeds is forgotten before the next one comes, and what is solved
wears off while other tasks are learnt. So the decisions of recent successes are kept, and the policy is trained to take
them again, many steps in a row: the noise in the actions of many successes averages out, what they share stays.

Ours, not the paper's (its offline part clones graded episodes too, `srpo.algorithms.awr`); self-imitation learning (Oh
et al., arXiv 1806.05635) with successes alone, which needs no value.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from srpo.types import SrpoError

Rows = dict[str, torch.Tensor]


class SuccessMemory:
    """Decisions of recent successes of each task, first in, first out.

    Args:
        capacity: decisions kept per task.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: dict[str, Rows] = {}

    def __len__(self) -> int:
        return sum(_length(rows) for rows in self._kept.values())

    def add(self, task: str, rows: Mapping[str, torch.Tensor]) -> None:
        """Keep decisions of a task, tensors of N rows; the oldest go when there are too many.

        Raises:
            SrpoError: the tensors have not the same names as those kept.
        """
        old = self._kept.get(task)
        if old is not None and old.keys() != rows.keys():
            raise SrpoError("The remembered decisions are of another policy: start a new run.")
        joined = dict(rows) if old is None else {k: torch.cat([old[k], v]) for k, v in rows.items()}
        self._kept[task] = {k: v[-self.capacity :].clone() for k, v in joined.items()}

    def draw(self, count: int, generator: torch.Generator) -> Rows:
        """``count`` decisions with replacement, from every task as many on average as from any other."""
        if not self._kept:
            raise SrpoError("Nothing is remembered yet: draw once something has succeeded.")
        tasks = list(self._kept.values())
        which = torch.randint(len(tasks), (count,), generator=generator)
        place = torch.rand(count, generator=generator)
        parts = []
        for number, rows in enumerate(tasks):
            index = (place[which == number] * _length(rows)).long()
            parts.append({k: v[index] for k, v in rows.items()})
        return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}

    def state_dict(self) -> Rows:
        """Everything kept, for a checkpoint: ``task|name`` -> tensor."""
        return {f"{t}|{k}": v for t, rows in self._kept.items() for k, v in rows.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace the contents by those of `state_dict`."""
        self._kept = {}
        for name, value in state.items():
            task, _, key = name.partition("|")
            self._kept.setdefault(task, {})[key] = value


def _length(rows: Rows) -> int:
    return len(next(iter(rows.values())))
