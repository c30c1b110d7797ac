"""How well the grades of failures tell true progress among attempts from one initial state.

    python benchmarks/grades.py --preset libero-spatial --policy runs/suite/libero_spatial/hard/sft_0/policy \
        --demos runs/suite/libero_spatial/demos --groups 20

Rolls out groups as a training step does (training states of a seed that no preset uses), grades their failures by
coverage with the preset's alpha, against the demonstrations and the successes of the batch, and compares the grades
with the true progress that the simulator knows (`srpo.evaluation.true_progress`), at its best moment and at the end of
the episode. Printed: Spearman's correlation within groups, mean and standard error over the groups that have more than
three failures, and how far grades spread in groups that all fail.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from credit import references_of, roll_out
from srpo.config import override
from srpo.policies.compact import CompactPolicy
from srpo.presets import PRESETS, preset
from srpo.rewards import progress_rewards
from srpo.world_models import create, moments


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=[n for n in PRESETS if n.startswith("libero")], default="libero-spatial")
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--demos", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=20)
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    config = override(preset(options.preset).train, {"rollout.true-progress": "True"})
    policy = CompactPolicy.from_pretrained(options.policy)
    world_model = create(config.rollout.world_model or "image")
    episodes = roll_out(policy, config, options.groups, options.workers)
    success = np.array([e.success for e in episodes])
    group = np.array([e.request.group for e in episodes])
    grade = progress_rewards(
        moments(world_model, [e.frame_features for e in episodes if e.frame_features is not None]),
        success,
        np.array([e.request.task.id for e in episodes]),
        alpha=config.alpha,
        clustering="coverage",
        references=references_of(options.demos, world_model, policy.chunk),
    ).reward
    progress = [e.info["true_progress"] for e in episodes]
    print(f"{success.sum()} of {len(success)} episodes succeed\n")
    print("| true progress | correlation within groups | groups |\n|---|---|---|")
    for name, truth in (("best", [p.max() for p in progress]), ("at the end", [p[-1] for p in progress])):
        found = []
        for number in np.unique(group):
            failed = (group == number) & ~success
            values = np.array(truth)[failed]
            if failed.sum() > 3 and np.ptp(values) > 0 and np.ptp(grade[failed]) > 0:
                found.append(spearmanr(grade[failed], values)[0])
        if found:
            print(f"| {name} | {np.mean(found):.2f} ± {np.std(found) / np.sqrt(len(found)):.2f} | {len(found)} |")
    lost = [grade[group == g].std() for g in np.unique(group) if not success[group == g].any()]
    print(f"\n{len(lost)} groups fail throughout")
    if lost:
        print(f"mean standard deviation of their grades: {np.mean(lost):.2f}")


if __name__ == "__main__":
    main()
