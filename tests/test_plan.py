from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from srpo import plan
from srpo.cli import main
from srpo.policies.loading import ModelOptions
from srpo.presets import preset

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sys.path.insert(0, str(HERE / "policies"))
    import openvla_small

    return openvla_small.write_checkpoint(tmp_path_factory.mktemp("plan") / "checkpoint")


@pytest.mark.parametrize("train", ["full", "language", "lora"])
def test_parameters_are_those_of_the_network(folder, train):
    pytest.importorskip("peft")
    from srpo.policies.openvla_oft import OpenVlaOftPolicy

    config = replace(preset("openvla-oft-libero-object").train, model=ModelOptions(train=train, lora_rank=4))
    counted = plan.network(config, str(folder))
    policy = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", train=train, lora_rank=4)
    assert counted.total == sum(p.numel() for p in policy.parameters())
    assert counted.trained == sum(p.numel() for p in policy.parameters() if p.requires_grad)


def test_the_published_network(monkeypatch):
    """7.54 billion parameters with the blocks that nothing reads; the rest by hand."""
    counted = plan.network(preset("openvla-oft-libero-long").train, None)
    hidden, inner = 4096, 11008
    layer = 4 * hidden**2 + 3 * hidden * inner + 2 * hidden
    assert counted.parts["language model"] == 32 * layer + 2 * 32064 * hidden + hidden
    assert counted.total == pytest.approx(7.5e9, rel=0.01)
    assert counted.tokens == 256 + 2 + 56 + 34
    # Two operations per weight and token, and a few per cent for attention and eyes.
    assert counted.forward == pytest.approx(2 * 6.48e9 * counted.tokens, rel=0.15)


def test_memory_of_full_and_of_adapters(monkeypatch):
    monkeypatch.setattr(plan, "_matmul_speed", lambda device: 1e12)
    full = plan.make(preset("openvla-oft-libero-long").train, None)
    lora = plan.make(preset("openvla-oft-libero-long-lora").train, None)
    spread = plan.make(preset("openvla-oft-libero-long").train, None, processes=8)
    assert full.memory["optimiser"] == 8 * full.network.total
    assert lora.memory["optimiser"] < full.memory["optimiser"] / 50
    assert spread.memory["gradients"] == full.memory["gradients"] / 8
    # Weights and two averages of Adam, 4 bytes each; two checkpoints are kept while a third is written.
    assert full.disk == 3 * full.host["a checkpoint on its way"] == 36 * full.network.total
    assert spread.seconds["update"] == pytest.approx(full.seconds["update"] / 8)
    assert any("do not fit" in p for p in full.problems) == (sum(full.memory.values()) > full.device[1])


def test_on_the_command_line(capsys, monkeypatch):
    monkeypatch.setattr(plan, "_matmul_speed", lambda device: 1e12)
    assert main(["train", "openvla-oft-libero-spatial-lora", "--plan", "--lora-rank", "8"]) == 0
    shown = capsys.readouterr().out
    for word in ("adapters", "optimiser", "activations", "world model", "environments", "an RL step"):
        assert word in shown
    assert main(["train", "libero-quick", "--plan"]) == 0
    assert "compact" in capsys.readouterr().out
    assert main(["train", "libero-quick"]) == 2
    assert "--policy" in capsys.readouterr().err
