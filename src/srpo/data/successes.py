"""A run's own successes on disk: a folder a task, one safetensors file an episode, the newest of each task kept;
and the demonstrations beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from srpo.types import Episode, SrpoError, Task

Decisions = dict[str, torch.Tensor]


class SuccessMemory:
    """What the policy saw and did in its newest successes, to be cloned by a new policy (`srpo.distillation`).

    An episode is a file of named tensors with one row a decision: the policy's inputs, ``tokens`` (T, L) and ``mask``
    (T, L) bool, True where the action was carried out.

    Args:
        folder: where; made when the first success comes.
        capacity: successes kept per task.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder, self.capacity = folder, capacity

    def add(self, step: int, episodes: Sequence[Episode], action_dim: int) -> None:
        """Keep the successes among the episodes of RL step ``step`` (from 1).

        Raises:
            SrpoError: the disk is full or not writable.
        """
        for number, episode in enumerate(episodes):
            if not episode.success:
                continue
            self.add_decisions(step, number, episode.request.task, decisions_of(episode, action_dim))

    def add_decisions(self, step: int, number: int, task: Task, decisions: Mapping[str, torch.Tensor]) -> None:
        """Keep one success, the ``number``-th of a step; of step 0, a demonstration, which stays."""
        target = self.folder / str(task.index) / f"{step:06d}_{number:04d}.safetensors"
        partial = target.with_suffix(".partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous() for k, v in decisions.items()}, partial)
            partial.rename(target)
        except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
            partial.unlink(missing_ok=True)
            raise SrpoError(f"Cannot write {target} ({error}); free disk space and use --resume.") from error

    def forget(self, step: int | None = None) -> None:
        """Delete what is beyond the capacity; or, with ``step``, all that came after that RL step."""
        for files in self._files().values():
            own = [f for f in files if _step(f)]
            for path in own[self.capacity :] if step is None else own:
                if step is None or _step(path) > step:
                    path.unlink()

    def own(self, task: Task) -> list[Decisions]:
        """The newest successes at a task, the newest first.

        Raises:
            SrpoError: a file is damaged.
        """
        files = [f for f in self._files().get(task.index, []) if _step(f)]
        return [_read(f) for f in files[: self.capacity]]

    def has(self, task: Task) -> bool:
        """Whether there is a success at a task."""
        return any(map(_step, self._files().get(task.index, [])))

    def shown(self, task: Task) -> list[Decisions]:
        """The demonstrations of a task; SrpoError if a file is damaged."""
        return [_read(f) for f in self._files().get(task.index, []) if not _step(f)]

    def _files(self) -> dict[int, list[Path]]:
        """Task index -> files, the newest first."""
        return {int(f.name): sorted(f.glob("*.safetensors"), reverse=True) for f in self.folder.glob("[0-9]*")}


def decisions_of(episode: Episode, action_dim: int) -> Decisions:
    """An episode as `SuccessMemory` keeps it."""
    action = np.arange(episode.tokens.shape[1]) // action_dim
    decisions = {k: torch.from_numpy(v) for k, v in episode.inputs.items()}
    decisions["tokens"] = torch.from_numpy(episode.tokens)
    decisions["mask"] = torch.from_numpy(action[None, :] < episode.executed[:, None])
    return decisions


class JoinedMemories:
    """The successes of several runs as one, to be cloned together: of each task the newest, the first run's first.

    Args:
        memories: in the order of preference.
        capacity: successes kept per task.
        labels: of every memory what makes of an episode the one to be cloned (`srpo.distillation.relabelled`); empty:
            they are cloned as they were.
    """

    def __init__(
        self,
        memories: Sequence[SuccessMemory],
        capacity: int,
        labels: Sequence[Callable[[Decisions], Decisions]] = (),
    ) -> None:
        self.memories, self.capacity, self.labels = memories, capacity, labels

    def own(self, task: Task) -> list[Decisions]:
        """Up to ``capacity`` successes at a task; SrpoError if a file is damaged."""
        found: list[Decisions] = []
        for number, memory in enumerate(self.memories):
            if len(found) < self.capacity:  # not all files of all runs are read
                own = memory.own(task)[: self.capacity - len(found)]
                found += [self.labels[number](e) for e in own] if self.labels else own
        return found

    def first(self, task: Task) -> int | None:
        """Number of the first run that has a success at a task; None if none has."""
        return next((n for n, memory in enumerate(self.memories) if memory.has(task)), None)

    def shown(self, task: Task) -> list[Decisions]:
        """The demonstrations of a task that the first run which has any was shown (they would be the same in others);
        SrpoError if a file is damaged."""
        return next((shown for memory in self.memories if (shown := memory.shown(task))), [])


def _step(path: Path) -> int:
    return int(path.name[:6])


def _read(path: Path) -> Decisions:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SrpoError(f"{path} is damaged ({reason}); delete it and use --resume.") from error
