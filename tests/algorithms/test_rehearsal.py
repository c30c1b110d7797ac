"""Rehearsal: the divergence by hand, what is kept, and how often it is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo.algorithms import SuccessMemory, rehearsal_loss
from srpo.types import SrpoError


def test_divergence_by_hand() -> None:
    # Then: 1/2, 1/4, 1/4. Now, at temperature 2: logits 2 log p / 1, so p = 1/4, 1/2, 1/4.
    then = torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]]).log()
    now = torch.tensor([[[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]]]).log() * 2
    first = 0.5 * np.log(2) + 0.25 * np.log(0.5)  # the second token has not changed
    for mask, expected in ((torch.ones(1, 2), first / 2), (torch.tensor([[1.0, 0.25]]), first / 1.25)):
        assert rehearsal_loss(now, then, mask, 2.0).item() == pytest.approx(expected, rel=1e-5)
    assert rehearsal_loss(now, then, torch.tensor([[False, True]]), 2.0).item() == pytest.approx(0, abs=1e-6)


def test_gradient_is_what_has_changed() -> None:
    # d KL(then || now) / d logits = (p_now - p_then) / temperature.
    then, now = torch.tensor([[[0.5, 0.25, 0.25]]]), torch.tensor([[[0.25, 0.5, 0.25]]])
    logits = (now.log() * 2).requires_grad_()
    rehearsal_loss(logits, then.log(), torch.ones(1, 1), 2.0).backward()
    np.testing.assert_allclose(logits.grad, (now - then) / 2, rtol=1e-5)
    same = (then.log() * 2).requires_grad_()
    rehearsal_loss(same, then.log(), torch.ones(1, 1), 2.0).backward()
    np.testing.assert_allclose(same.grad, 0, atol=1e-7)


@given(st.integers(0, 1000))
def test_divergence_is_never_negative_even_of_rounded_distributions(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    then = torch.log_softmax(torch.randn(2, 3, 16, generator=generator) * 30, -1).half()
    now = torch.randn(2, 3, 16, generator=generator) * 30
    assert rehearsal_loss(now, then, torch.ones(2, 3), 0.25).item() >= -1e-6
    assert rehearsal_loss(then.float(), then, torch.ones(2, 3), 1.0).item() == pytest.approx(0, abs=1e-6)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SrpoError, match=r"\(B, L, K\)"):
        rehearsal_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4), torch.ones(1, 2), 1.0)
    with pytest.raises(SrpoError, match="mask"):
        rehearsal_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.ones(2, 2), 1.0)


def remembered(memory: SuccessMemory, task: str, numbers: list[int]) -> None:
    x = torch.tensor(numbers, dtype=torch.float32)
    memory.add(task, {"x": x}, x[:, None, None].expand(-1, 2, 3), torch.ones(len(x), 2))


def test_the_oldest_decisions_of_a_task_go() -> None:
    memory = SuccessMemory(0.5, capacity=3)
    remembered(memory, "a", [1, 2])
    remembered(memory, "b", [7])
    remembered(memory, "a", [3, 4])
    found = memory.rehearsal({"a": 1.0, "b": 1.0})
    assert found is not None and len(memory) == 4 and found.weight == 0.5
    assert found.inputs["x"].tolist() == [2, 3, 4, 7] and found.log_p[:, 0, 0].tolist() == [2, 3, 4, 7]
    assert found.log_p.dtype == torch.float16


def test_tasks_are_drawn_by_their_weight_however_many_decisions_they_keep() -> None:
    memory = SuccessMemory(1.0)
    remembered(memory, "solved", [1, 2, 3])
    remembered(memory, "half", [4])
    remembered(memory, "never", [5])
    found = memory.rehearsal({"solved": 0.75, "half": 0.25, "never": 0.0})
    assert found is not None
    np.testing.assert_allclose(found.share, [0.25, 0.25, 0.25, 0.25])
    drawn = found.draw(4000, torch.Generator().manual_seed(0))
    assert drawn.log_p.shape == (4000, 2, 3) and drawn.mask.shape == (4000, 2)
    counts = np.bincount(drawn.inputs["x"].int().numpy(), minlength=6)
    assert counts[0] == counts[5] == 0 and (np.abs(counts[1:5] - 1000) < 100).all()
    assert torch.equal(drawn.log_p[:, 0, 0].float(), drawn.inputs["x"])


def test_nothing_to_rehearse() -> None:
    memory = SuccessMemory(1.0)
    assert memory.rehearsal({"a": 1.0}) is None
    remembered(memory, "a", [1])
    assert memory.rehearsal({"a": 0.0}) is None and memory.rehearsal({}) is None


def test_a_batch_gives_few_of_its_decisions() -> None:
    memory = SuccessMemory(1.0, fresh=4)
    chosen = memory.choose(100, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 4 and chosen.tolist() == sorted(chosen.tolist()) and chosen.max() < 100
    assert memory.choose(3, np.random.default_rng(0)).tolist() == [0, 1, 2]


def test_what_is_kept_survives_a_checkpoint() -> None:
    memory, again = SuccessMemory(1.0), SuccessMemory(1.0)
    remembered(memory, "libero_spatial/3", [1, 2])
    remembered(memory, "libero_spatial/4", [3])
    again.load_state_dict(memory.state_dict())
    first, second = memory.rehearsal({"libero_spatial/3": 1.0}), again.rehearsal({"libero_spatial/3": 1.0})
    assert first is not None and second is not None
    assert torch.equal(first.log_p, second.log_p) and torch.equal(first.inputs["x"], second.inputs["x"])
