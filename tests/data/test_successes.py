"""Own successes on disk: what is kept, in which order, and what a resumed run finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from srpo.data.successes import JoinedMemories, SuccessMemory
from srpo.policies.compact import CompactPolicy
from srpo.types import Episode, EpisodeRequest, InitialState, SrpoError
from synthetic_training import TASKS, FakeCollector

Make = Callable[[int], CompactPolicy]


@pytest.fixture
def episode(tiny_policy: Make) -> Callable[..., Episode]:
    def make(task: int = 0, success: bool = True, seed: int = 0) -> Episode:
        request = EpisodeRequest(TASKS[task], InitialState("sampled", seed), 0, seed)
        return replace(FakeCollector().episode(tiny_policy(0), request), success=success)

    return make


def test_successes_alone_are_kept_with_what_was_carried_out(tmp_path: Path, episode: Callable[..., Episode]) -> None:
    won = replace(episode(), executed=np.array([2, 1], np.int16))  # the episode ended within its second chunk
    memory = SuccessMemory(tmp_path, 5)
    memory.add(1, [episode(success=False), won], action_dim=7)
    (kept,) = memory.own(TASKS[0])
    assert set(kept) == {*won.inputs, "tokens", "mask"} and memory.own(TASKS[1]) == memory.shown(TASKS[0]) == []
    for name, value in won.inputs.items():
        assert torch.equal(kept[name], torch.from_numpy(value))
    assert torch.equal(kept["tokens"], torch.from_numpy(won.tokens))
    assert kept["mask"].tolist() == [[True] * 14, [True] * 7 + [False] * 7]


def test_the_newest_of_each_task_stay_and_the_demonstrations(tmp_path: Path, episode: Callable[..., Episode]) -> None:
    memory = SuccessMemory(tmp_path, 3)
    for number in range(4):
        memory.add_decisions(0, number, TASKS[number % 2], {"tokens": torch.full((1, 14), number)})
    for step in (1, 2, 10):
        memory.add(step, [episode(0, seed=2 * step), episode(0, seed=2 * step + 1), episode(1, False)], 7)
    expected = [episode(0, seed=s).tokens for s in (21, 20, 5)]  # the newest first
    for _ in range(2):
        assert all(np.array_equal(f["tokens"], e) for f, e in zip(memory.own(TASKS[0]), expected, strict=True))
        assert memory.own(TASKS[1]) == []
        assert [[int(f["tokens"][0, 0]) for f in memory.shown(t)] for t in TASKS] == [[2, 0], [3, 1]]
        memory.forget()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3 + 4


def test_several_runs_are_one_memory_and_the_first_comes_first(tmp_path: Path) -> None:
    def add(run: str, step: int, task: int, *values: int) -> None:
        for v in values:
            SuccessMemory(tmp_path / run, 3).add_decisions(step, v, TASKS[task], {"tokens": torch.full((1, 14), v)})

    add("joint", 5, 0, 1, 2)
    add("joint", 5, 1, 3, 4)
    add("joint", 0, 0, 90)
    add("one", 2, 0, 11, 12, 13, 14)
    add("one", 0, 0, 91)
    add("other", 7, 1, 21)

    def of(order: list[str], capacity: int) -> list[list[int]]:
        joined = JoinedMemories([SuccessMemory(tmp_path / run, 3) for run in order], capacity)
        return [[int(e["tokens"][0, 0]) for e in part(t)] for part in (joined.own, joined.shown) for t in TASKS]

    # Of "one" three are kept, the newest; what it lacks to four comes from the next run that has it.
    assert of(["one", "other", "joint"], 4) == [[14, 13, 12, 2], [21, 4, 3], [91], []]
    assert of(["joint", "one"], 2) == [[2, 1], [4, 3], [90], []]
    assert of(["other"], 2) == [[], [21], [], []]

    joined = JoinedMemories([SuccessMemory(tmp_path / run, 3) for run in ("one", "other", "joint")], 4)
    assert [joined.first(t) for t in TASKS] == [0, 1]
    shown_only = SuccessMemory(tmp_path / "shown", 3)
    shown_only.add_decisions(0, 0, TASKS[0], {"tokens": torch.zeros(1, 14)})
    assert JoinedMemories([shown_only], 4).first(TASKS[0]) is None

    def plus(n: int, episode: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"tokens": episode["tokens"] + n}

    memories = [SuccessMemory(tmp_path / run, 3) for run in ("one", "joint")]
    joined = JoinedMemories(memories, 4, [partial(plus, 100), partial(plus, 200)])
    assert [int(e["tokens"][0, 0]) for e in joined.own(TASKS[0])] == [114, 113, 112, 202]
    assert [int(e["tokens"][0, 0]) for e in joined.shown(TASKS[0])] == [91]  # demonstrations stay as they are


def test_what_came_after_the_checkpoint_is_forgotten(tmp_path: Path, episode: Callable[..., Episode]) -> None:
    memory = SuccessMemory(tmp_path, 3)
    memory.add_decisions(0, 1, TASKS[0], {"tokens": torch.full((1, 14), 99)})
    for step in (1, 2, 3):
        memory.add(step, [episode(seed=step)], 7)
    memory.forget(2)
    expected = [episode(seed=s).tokens.tolist() for s in (2, 1)]
    assert [f["tokens"].tolist() for f in memory.own(TASKS[0])] == expected and len(memory.shown(TASKS[0])) == 1
    memory.forget(0)
    assert memory.own(TASKS[0]) == [] and len(memory.shown(TASKS[0])) == 1
    assert SuccessMemory(tmp_path / "nowhere", 3).own(TASKS[0]) == []


def test_a_damaged_file_and_a_full_disk_are_named(
    tmp_path: Path, episode: Callable[..., Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SuccessMemory(tmp_path, 3)
    memory.add(1, [episode()], 7)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SrpoError, match=r"000001_0000.safetensors is damaged .*; delete it"):
        memory.own(TASKS[0])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("srpo.data.successes.save_file", full)
    with pytest.raises(SrpoError, match=r"No space left .* free disk space and use --resume"):
        memory.add(2, [episode()], 7)
    assert not list(tmp_path.rglob("*.partial"))
