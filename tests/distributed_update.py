"""One update of a small OpenVLA-OFT policy by one process or, under torchrun, several; a script of test_distributed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from srpo import checkpoint, distributed
from srpo.learner import Decisions, Learner, LearnerConfig
from srpo.policies.openvla_oft import OpenVlaOftPolicy
from srpo.types import Observation


def decisions(policy: OpenVlaOftPolicy, count: int = 7) -> Decisions:
    """Random ones, with prompts of unequal length."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        image = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        words = "go" + " left" * (i % 3)
        rows.append(policy.prepare(Observation({"agentview": image}, np.zeros(8, np.float32), words)))
    return Decisions(
        inputs={k: torch.from_numpy(np.stack([r[k] for r in rows])) for k in rows[0]},
        tokens=torch.from_numpy(rng.integers(0, 256, (count, 56)).astype(np.int16)),
        old_log_prob=torch.from_numpy(rng.uniform(-7, -5, (count, 56)).astype(np.float32)),
        advantage=torch.from_numpy(rng.standard_normal(count).astype(np.float32)),
        mask=torch.from_numpy(rng.random((count, 56)) < 0.8),
    )


def main() -> None:
    """``folder out train budget``: writes the weights and diagnostics after two updates, with a resume between."""
    folder, out, train, budget = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    torch.set_num_threads(1)
    world = distributed.start()
    config = LearnerConfig(learning_rate=1e-3, epochs=2, minibatch=5, budget=budget, warmup=0)
    stats = []
    for step in range(2):
        policy = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", train=train, lora_rank=4)
        learner = Learner(policy, config, 1.6, 0, world)
        if step:
            checkpoint.load(out / "checkpoints/step_000001", policy, learner.optimizer)
            learner.refresh()
        stats.append(learner.update(decisions(policy), step))
        checkpoint.save(out / "checkpoints", step + 1, policy, learner.optimizer, {}, write=world.first)
        world.wait()
    policy.save_pretrained(out / "policy" if world.first else None)
    if world.first:
        (out / "stats.json").write_text(json.dumps({"sharded": learner.sharded, "stats": stats}))
        acting = {k: v.contiguous() for k, v in learner.acting.state_dict().items()}
        assert all(type(v) is torch.Tensor for v in acting.values())


if __name__ == "__main__":
    main()
