"""The replay of successes: first in, first out, bounded per task, and the same after a restart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from srpo.rewards import ReferenceReplay
from srpo.types import SrpoError


def test_oldest_successes_of_a_full_task_are_dropped() -> None:
    replay = ReferenceReplay(capacity_per_task=2)
    assert replay.references() is None and len(replay) == 0
    embeddings = np.arange(10.0).reshape(5, 2)
    replay.add(embeddings, [True, True, False, True, True], np.array(["a", "b", "a", "a", "a"]))
    # Successes of a: rows 0, 3, 4, of which the last two stay; of b: row 1.
    kept = replay.references()
    assert kept is not None
    np.testing.assert_array_equal(kept[0], [[6, 7], [8, 9], [2, 3]])
    assert kept[1] == ["a", "a", "b"] and kept[0].dtype == np.float32 and len(replay) == 3


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 5),
    batches=st.lists(
        st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", "c"])), min_size=1, max_size=8),
        max_size=6,
    ),
)
def test_holds_the_newest_successes_of_each_task(capacity: int, batches: list[list[tuple[bool, str]]]) -> None:
    replay, history = ReferenceReplay(capacity), {"a": [], "b": [], "c": []}  # type: ignore[var-annotated]
    number = 0
    for episodes in batches:
        rows = np.arange(number, number + len(episodes), dtype=float)[:, None] + 1
        number += len(episodes)
        replay.add(rows, [s for s, _ in episodes], [t for _, t in episodes])
        for row, (succeeded, task) in zip(rows, episodes, strict=True):
            if succeeded:
                history[task].append(row[0])
    embeddings, tasks = replay.references() or (np.zeros((0, 1)), [])
    for task, seen in history.items():
        assert [e[0] for e, t in zip(embeddings, tasks, strict=True) if t == task] == seen[-capacity:]
    # Through the bytes of a checkpoint and back: the same now, and after one more batch.
    state = replay.state_dict()
    arrays = load(save({"embeddings": state["embeddings"]}))
    plain = json.loads(json.dumps({k: v for k, v in state.items() if k != "embeddings"}))
    restored = ReferenceReplay(capacity)
    restored.load_state_dict(plain | arrays)
    for one in (replay, restored):
        one.add(np.array([[-1.0], [-2.0]]), [True, True], ["b", "c"])
    (e1, t1), (e2, t2) = replay.references(), restored.references()  # type: ignore[misc]
    np.testing.assert_array_equal(e1, e2)
    assert t1 == t2


def test_later_changes_of_the_batch_do_not_reach_the_replay() -> None:
    replay = ReferenceReplay()
    embeddings = np.ones((1, 3), np.float32)
    replay.add(embeddings, [True], ["a"])
    embeddings[:] = 5
    assert replay.references()[0].tolist() == [[1, 1, 1]]  # type: ignore[index]


def test_bad_input() -> None:
    with pytest.raises(SrpoError, match="1 or more"):
        ReferenceReplay(0)
    replay = ReferenceReplay()
    with pytest.raises(SrpoError, match="do not fit"):
        replay.add(np.ones((2, 3)), [True], ["a", "b"])
    with pytest.raises(SrpoError, match="strings or integers"):
        replay.add(np.ones((1, 3)), [True], [("a", 1)])  # type: ignore[arg-type]
    replay.add(np.ones((1, 3)), [True], ["a"])
    with pytest.raises(SrpoError, match=r"shape \(3,\) and was given \(4,\)"):
        replay.add(np.ones((1, 4)), [True], ["a"])
    with pytest.raises(SrpoError, match="lacks"):
        replay.load_state_dict({"tasks": []})
