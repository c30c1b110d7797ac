"""How well the grades of failures tell true progress among attempts from one initial state.

    python benchmarks/grades.py --preset libero-spatial --policy runs/suite/libero_spatial/hard/sft_0/policy \
        --demos runs/suite/libero_spatial/demos --groups 20
    python benchmarks/grades.py --policy runs/suite/libero_spatial/hard/sft_0/policy \
        --demos runs/suite/libero_spatial/demos --groups 20 --tasks 8 --temperature 0.3

Rolls out groups as a training step does (training states of a seed that no preset uses), grades their failures by
coverage with the preset's alpha, against the demonstrations and the successes of the batch, through several world
models, and compares the grades with the true progress that the simulator knows (`srpo.evaluation.true_progress`): at
its best moment, at the end of the episode, and whether the object was ever held. Printed: Spearman's correlation within
groups, mean and standard error over the groups that have more than three failures, and how far the grades by the
preset's world model spread in groups that all fail. Other options are settings of ``srpo train``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from closer import HELD
from credit import asked, references_of, roll_out
from srpo.config import override
from srpo.policies.compact import CompactPolicy
from srpo.presets import preset
from srpo.rewards import progress_rewards
from srpo.world_models import create, moments

#: World models, and which of the features of "image-proprio" are theirs.
SEEN = {"image": slice(0, -5), "proprio": slice(-5, None), "image-proprio": slice(None)}


def within_groups(grade: np.ndarray, truth: np.ndarray, group: np.ndarray, failed: np.ndarray) -> str:
    """Mean and standard error of Spearman's correlation among a group's failures, and the number of groups."""
    found = []
    for number in np.unique(group):
        mine = (group == number) & failed
        if mine.sum() > 3 and np.ptp(truth[mine]) > 0 and np.ptp(grade[mine]) > 0:
            found.append(spearmanr(grade[mine], truth[mine])[0])
    return f"{np.mean(found):.2f} ± {np.std(found) / np.sqrt(len(found)):.2f} ({len(found)})" if found else "-"


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demos", type=Path, required=True)
    options, changes = asked(parser, "libero-spatial", 20)
    chosen = override(preset(options.preset).train, changes)
    config = override(chosen, {"rollout.true-progress": "True", "rollout.world-model": "image-proprio"})
    policy = CompactPolicy.from_pretrained(options.policy)
    episodes = roll_out(policy, config, options.groups, options.workers)
    success = np.array([e.success for e in episodes])
    group = np.array([e.request.group for e in episodes])
    names = np.array([e.request.task.id for e in episodes])
    progress = [e.info["true_progress"] for e in episodes]
    best, end = (np.array([f(p) for p in progress]) for f in (np.max, lambda p: p[-1]))
    held = best >= HELD
    print(f"{success.sum()} of {len(success)} episodes succeed, in {held.sum()} the object is held\n")
    print("| world model | true progress, best (groups) | at the end | held |\n|---|---|---|---|")
    for name, which in SEEN.items():
        model = create(name)
        seen = moments(model, [e.frame_features[:, which] for e in episodes if e.frame_features is not None])
        references = references_of(options.demos, model, policy.chunk)
        grade = progress_rewards(
            seen, success, names, alpha=config.alpha, clustering="coverage", references=references
        ).reward
        cells = [within_groups(grade, truth.astype(float), group, ~success) for truth in (best, end, held)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        if name == (chosen.rollout.world_model or "image"):
            lost = [grade[group == g].std() for g in np.unique(group) if not success[group == g].any()]
    print(f"\n{len(lost)} groups fail throughout")
    if lost:
        print(f"mean standard deviation of their grades: {np.mean(lost):.2f}")


if __name__ == "__main__":
    main()
