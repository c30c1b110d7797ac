"""Checkpoints: exact, complete or absent, and refused when damaged."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from srpo import checkpoint
from srpo.policies.compact import CompactPolicy
from srpo.types import SrpoError

Make = Callable[[int], CompactPolicy]
Inputs = Callable[..., dict[str, torch.Tensor]]


def step(policy: CompactPolicy, optimizer: torch.optim.Optimizer, inputs: dict[str, torch.Tensor]) -> None:
    optimizer.zero_grad()
    policy.logits(inputs).log_softmax(-1)[..., 3].mean().neg().backward()
    optimizer.step()


def trained(policy: CompactPolicy, inputs: dict[str, torch.Tensor], steps: int = 2) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for _ in range(steps):
        step(policy, optimizer, inputs)
    return optimizer


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


def test_training_goes_on_to_the_bit(tmp_path: Path, tiny_policy: Make, tiny_inputs: Inputs) -> None:
    policy, inputs = tiny_policy(0), tiny_inputs(4)
    optimizer = trained(policy, inputs)
    folder = checkpoint.save(tmp_path, 2, policy, optimizer, {"note": "a"}, {"extra": torch.arange(6.0).reshape(2, 3)})
    assert checkpoint.latest(tmp_path) == folder and checkpoint.latest_step(tmp_path) == 2
    assert checkpoint.latest_step(tmp_path / "none") == 0
    step(policy, optimizer, inputs)

    again = tiny_policy(1)
    optimizer = torch.optim.AdamW(again.parameters(), lr=1e-2)
    state, tensors = checkpoint.load(folder, again, optimizer)
    assert state == {"step": 2, "note": "a"}
    assert torch.equal(tensors["extra"], torch.arange(6.0).reshape(2, 3))
    assert not same(again, policy)
    step(again, optimizer, inputs)
    assert same(again, policy)


def test_without_the_optimizer_it_would_not(tmp_path: Path, tiny_policy: Make, tiny_inputs: Inputs) -> None:
    # Guards the test above: Adam's moments matter after two steps.
    policy, inputs = tiny_policy(0), tiny_inputs(4)
    optimizer = trained(policy, inputs)
    again = tiny_policy(1)
    again.load_state_dict(policy.state_dict())
    step(policy, optimizer, inputs)
    step(again, torch.optim.AdamW(again.parameters(), lr=1e-2), inputs)
    assert not same(again, policy)


def test_keeps_the_newest_and_nothing_half_done(tmp_path: Path, tiny_policy: Make, tiny_inputs: Inputs) -> None:
    policy = tiny_policy(0)
    optimizer = trained(policy, tiny_inputs(2), 1)
    assert checkpoint.latest(tmp_path / "none") is None
    (tmp_path / "step_notes").mkdir()  # not ours, stays
    for number in (8, 9, 10, 10):
        checkpoint.save(tmp_path, number, policy, optimizer, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000009", "step_000010", "step_notes"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step_000010"
    names = {p.name for p in (tmp_path / "step_000010").iterdir()}
    assert names == {"config.json", "model.safetensors", "optimizer.safetensors", "state.json", "state.safetensors"}


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, tiny_policy: Make, tiny_inputs: Inputs) -> None:
    policy = tiny_policy(0)
    optimizer = trained(policy, tiny_inputs(2), 1)
    checkpoint.save(tmp_path, 1, policy, optimizer, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SrpoError, match="free disk space"):
            checkpoint.save(tmp_path, 2, policy, optimizer, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]
    checkpoint.load(tmp_path / "step_000001", policy, optimizer)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damage_is_named(tmp_path: Path, tiny_policy: Make, tiny_inputs: Inputs, name: str, damage: str) -> None:
    policy = tiny_policy(0)
    optimizer = trained(policy, tiny_inputs(2), 1)
    folder = checkpoint.save(tmp_path, 1, policy, optimizer, {"a": 1}, {"t": torch.zeros(3)})
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage == "cut":
        (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(SrpoError, match=r"step_000001 is damaged .* the one before") as caught:
        checkpoint.load(folder, policy, optimizer)
    assert "\n" not in str(caught.value)
