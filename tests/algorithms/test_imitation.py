"""Self-imitation: what is kept of each task, and how often it is drawn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo.algorithms import SuccessMemory
from srpo.types import SrpoError


def rows(*numbers: int) -> dict[str, torch.Tensor]:
    return {"tokens": torch.tensor(numbers), "mask": torch.tensor(numbers) % 2 == 0}


def test_first_in_first_out_per_task() -> None:
    memory = SuccessMemory(3)
    assert len(memory) == 0
    memory.add("a", rows(1, 2))
    memory.add("b", rows(7))
    memory.add("a", rows(3, 4))
    state = memory.state_dict()
    assert state["a|tokens"].tolist() == [2, 3, 4] and state["a|mask"].tolist() == [True, False, True]
    assert state["b|tokens"].tolist() == [7]
    assert len(memory) == 4
    memory.add("b", rows(*range(10)))
    assert memory.state_dict()["b|tokens"].tolist() == [7, 8, 9]


def test_what_is_kept_does_not_hold_on_to_the_batch_it_came_from() -> None:
    batch = torch.arange(1000)
    memory = SuccessMemory(2)
    memory.add("a", {"tokens": batch})
    assert memory.state_dict()["a|tokens"].untyped_storage().nbytes() == 16
    batch[-1] = -1
    assert memory.state_dict()["a|tokens"].tolist() == [998, 999]


def test_tasks_are_drawn_alike_however_much_is_kept_of_them() -> None:
    memory = SuccessMemory(100)
    memory.add("a", rows(*range(100)))
    memory.add("b", rows(1000))
    drawn = memory.draw(4000, torch.Generator().manual_seed(0))
    assert drawn["tokens"].shape == drawn["mask"].shape == (4000,)
    assert ((drawn["tokens"] % 2 == 0) == drawn["mask"]).all()  # rows stay together
    of_b = int((drawn["tokens"] == 1000).sum())
    assert abs(of_b - 2000) < 4 * 32  # 4 standard deviations of a binomial
    counts = torch.bincount(drawn["tokens"][drawn["tokens"] < 100], minlength=100)
    assert counts.min() > 0 and counts.max() < 50  # 20 on average


def test_draws_follow_from_the_generator() -> None:
    memory = SuccessMemory(10)
    memory.add("a", rows(*range(10)))
    first, again, other = (memory.draw(8, torch.Generator().manual_seed(s))["tokens"].tolist() for s in (1, 1, 2))
    assert first == again != other


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), min_size=1, max_size=8), st.integers(1, 9))
def test_restored_memory_is_the_same(batches: list[tuple[str, int]], capacity: int) -> None:
    memory, other = SuccessMemory(capacity), SuccessMemory(capacity)
    for number, (task, size) in enumerate(batches):
        memory.add(task, rows(*range(10 * number, 10 * number + size)))
    other.load_state_dict(memory.state_dict())
    assert len(other) == len(memory) <= 3 * capacity
    for m in (memory, other):
        m.add("a", rows(5, 6))
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert memory.draw(16, seeds[0])["tokens"].tolist() == other.draw(16, seeds[1])["tokens"].tolist()


def test_refusals() -> None:
    memory = SuccessMemory(2)
    with pytest.raises(SrpoError, match="Nothing is remembered"):
        memory.draw(1, torch.Generator())
    memory.add("a", rows(1))
    with pytest.raises(SrpoError, match="another policy"):
        memory.add("a", {"tokens": torch.tensor([1])})
