"""Does practice that is led by grades alone come closer to success, or only to better grades?

    python benchmarks/closer.py --suite libero_spatial --task 3 --demos runs/suite/libero_spatial/demos \\
        --policies runs/suite/libero_spatial/hard/sft_0/policy runs/hard_start/libero_spatial/hard_srpo_0/task_3/policy

Every policy attempts the same training states (of a seed that no preset uses) once, sampled as in practice. Printed per
policy: successes; the mean true progress that the simulator knows (`srpo.evaluation.true_progress`; 0.2 the hand is at
the object, 0.4 it holds it, 0.6 it is lifted), at its best moment and at the end; the share of attempts in which the
object was ever held; and the mean covered progress that grades are made of, against the demonstrations of the task,
through ``--world-model``. ``--pictures`` draws the first attempt of every policy, a row each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from credit import references_of, roll_out
from srpo import presets
from srpo.config import override
from srpo.policies.compact import CompactPolicy
from srpo.rewards.coverage import covered_progress
from srpo.world_models import create, moments
from suite_methods import PRESET

HELD = 0.4  # reach and grasp


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=tuple(PRESET), default="libero_spatial")
    parser.add_argument("--task", type=int, required=True)
    parser.add_argument("--demos", type=Path, required=True)
    parser.add_argument("--policies", type=Path, nargs="+", required=True)
    parser.add_argument("--attempts", type=int, default=80)
    parser.add_argument("--temperature", type=float, default=0.3)
    parser.add_argument("--world-model", default="image")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    changes = {
        "tasks": str(options.task),
        "temperature": str(options.temperature),
        "rollout.true-progress": "True",
        "rollout.world-model": options.world_model,
    }
    config = override(presets.preset(PRESET[options.suite]).train, changes)
    world_model = create(options.world_model)
    references, of = references_of(options.demos, world_model, 8)
    shown = references[[name == f"{options.suite}/{options.task}" for name in of]]
    print("| policy | successes | true progress, best | at the end | ever held | covered |\n|---|---|---|---|---|---|")
    rows = []
    for path in options.policies:
        policy = CompactPolicy.from_pretrained(path)
        episodes = roll_out(policy, config, 0, None, options.attempts)
        best, end = (np.array([f(e.info["true_progress"]) for e in episodes]) for f in (np.max, lambda p: p[-1]))
        features = [e.frame_features for e in episodes if e.frame_features is not None]
        covered = [covered_progress(m, shown)[-1] for m in moments(world_model, features)]
        numbers = [best.mean(), end.mean(), (best >= HELD).mean(), np.mean(covered)]
        won = sum(e.success for e in episodes)
        print(f"| {path} | {won} of {len(episodes)} | {' | '.join(f'{x:.2f}' for x in numbers)} |", flush=True)
        film = next(e.frames["agentview"] for e in episodes if e.frames)
        rows.append(np.concatenate([film[t] for t in np.linspace(0, len(film) - 1, 10).round().astype(int)], axis=1))
    if options.pictures:
        Image.fromarray(np.concatenate(rows)).save(options.pictures)


if __name__ == "__main__":
    main()
