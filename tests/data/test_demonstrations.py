"""Demonstrations on disk: exact, resumable, and refused when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from srpo.data.demonstrations import Demonstration, DemonstrationSet
from srpo.types import InitialState, SrpoError, Task

TASK = Task("suite", 1, "lift", "lift the cup", 100)


def demonstration(task: Task = TASK, length: int = 5, seed: int = 0) -> Demonstration:
    rng = np.random.default_rng(seed)
    return Demonstration(
        task,
        InitialState("sampled", seed),
        {c: rng.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8) for c in ("agentview", "wrist")},
        rng.standard_normal((length, 8)).astype(np.float32),
        rng.uniform(-1, 1, (length, 7)).astype(np.float32),
    )


@pytest.fixture
def folder(tmp_path: Path) -> DemonstrationSet:
    demos = DemonstrationSet(tmp_path / "demos")
    demos.create(("agentview", "wrist"), 16, seed=3)
    return demos


def test_round_trip(folder: DemonstrationSet) -> None:
    stored = [demonstration(seed=s, length=4 + s) for s in range(2)]
    for number, demo in enumerate(stored):
        folder.add(number, TASK, demo)
    read = list(DemonstrationSet(str(folder.folder)))
    assert len(read) == 2
    for ours, theirs in zip(read, stored, strict=True):
        assert (ours.task, ours.initial_state) == (theirs.task, theirs.initial_state)
        assert ours.images.keys() == theirs.images.keys()
        pairs = [(ours.images[c], theirs.images[c]) for c in theirs.images]
        for a, b in [*pairs, (ours.states, theirs.states), (ours.actions, theirs.actions)]:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    meta = folder.meta()
    assert (meta["cameras"], meta["image_size"], meta["fps"]) == (["agentview", "wrist"], 16, 20)
    assert meta["provenance"]["seed"] == 3


def test_attempts_are_counted_per_task(folder: DemonstrationSet) -> None:
    ten = Task("suite", 10, "push", "push", 100)  # "suite-10" begins like "suite-1"
    folder.add(0, TASK, demonstration())
    folder.add(2, TASK, None)
    folder.add(7, ten, None)
    (folder.folder / "suite-1_00004.partial.npz").touch()  # a kill while writing
    assert folder.attempts(TASK) == {0: True, 2: False}
    assert folder.attempts(ten) == {7: False}
    assert len(list(folder)) == 1


def test_a_suite_may_have_a_dot_in_its_name(folder: DemonstrationSet) -> None:
    task = Task("kitchen.v1.2", 0, "a", "a", 10)
    for number in range(3):
        folder.add(number, task, demonstration(task) if number else None)
    assert folder.attempts(task) == {0: False, 1: True, 2: True}
    assert len(list(folder)) == 2


def test_a_folder_keeps_its_cameras_and_size(folder: DemonstrationSet) -> None:
    folder.create(("agentview", "wrist"), 16, seed=9)
    assert folder.meta()["provenance"]["seed"] == 3
    for cameras, size, what in [(("agentview",), 16, "cameras"), (("agentview", "wrist"), 32, "image_size")]:
        with pytest.raises(SrpoError, match=f"with {what}=.*another --out"):
            folder.create(cameras, size, seed=3)


def test_a_folder_without_demonstrations(tmp_path: Path) -> None:
    with pytest.raises(SrpoError, match="run srpo collect"):
        list(DemonstrationSet(tmp_path))
    (tmp_path / "meta.json").write_text('{"format":')
    with pytest.raises(SrpoError, match=r"meta\.json is damaged"):
        list(DemonstrationSet(tmp_path))


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "pickle", "header"])
def test_damaged_files_are_named(folder: DemonstrationSet, damage: str) -> None:
    folder.add(0, TASK, demonstration())
    path = folder.folder / "suite-1_00000.npz"
    content = bytearray(path.read_bytes())
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("not a demonstration")
    elif damage == "pickle":  # must not be executed
        np.savez(path, header=np.array([{"a": 1}], dtype=object))
    elif damage == "header":
        np.savez(path, header=np.array(json.dumps({"task": {"colour": 1}})))
    with pytest.raises(SrpoError, match=r"suite-1_00000.npz is damaged .*run srpo collect again"):
        list(folder)
