"""Which decisions have the credit for a failure's grade, and how well the value of a state foretells the grade.

    python benchmarks/potential.py --policy runs/suite/libero_spatial/hard/sft_0/policy \
        --demos runs/suite/libero_spatial/demos --groups 20 --tasks 3 --temperature 0.3

Rolls out groups as a training step does (training states of a seed that no preset uses) and grades their failures by
coverage, as `Trainer` does, through several world models, and by the best true progress that the simulator knows. For
each, with ``--potential`` (see `srpo.algorithms.values`) and without: the share of the credit's mean square in five
spans of an episode's decisions, and in brackets the share of the grade's variance within a group that the value of the
state explains there (the groups are valued by a fit to the others; the first decision, whose value is the group's mean
reward, is left out). Other options are settings of ``srpo train``.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch

from credit import asked, references_of, roll_out
from grades import SEEN
from srpo.algorithms import StateRecord, cross_fitted_values, group_relative_gae
from srpo.config import override
from srpo.policies.compact import CompactPolicy
from srpo.presets import preset
from srpo.rewards import progress_rewards
from srpo.world_models import create, moments
from srpo.world_models.base import at_decisions
from true_grades import true_progress_rewards

SPANS = 5


def spans(states: StateRecord, group: np.ndarray, gae_lambda: float, longest: int) -> str:
    """Markdown cells, see the module's docstring.

    Args:
        group: (N,) int of each episode, from 0.
        longest: decisions of an episode that runs to its step limit.
    """
    cell = group[states.episode] * (longest + 1) + states.decision

    def within(x: np.ndarray) -> np.ndarray:
        return x - (np.bincount(cell, x) / np.maximum(np.bincount(cell), 1))[cell]

    credit = np.concatenate(group_relative_gae(states, group, gae_lambda=gae_lambda, normalise_std=False))
    grade = within(states.reward[states.episode])
    left = grade - within(cross_fitted_values(states, group))
    cells = []
    for k in range(SPANS):
        of_span = (states.decision * SPANS // longest) == k
        later = of_span & (states.decision > 0)
        share = np.square(credit[of_span]).sum() / np.square(credit).sum()
        explained = 1.0 - np.square(left[later]).sum() / np.square(grade[later]).sum() if later.any() else np.nan
        cells.append(f"{share:.0%} ({explained:.2f})")
    return " | ".join(cells)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demos", type=Path, required=True)
    options, changes = asked(parser, "libero-spatial", 20)
    seen_by = {"rollout.true-progress": "True", "rollout.world-model": "image-proprio"}
    config = override(override(preset(options.preset).train, changes), seen_by)
    policy = CompactPolicy.from_pretrained(options.policy)
    episodes = roll_out(policy, config, options.groups, options.workers)
    success = np.array([e.success for e in episodes])
    task = np.array([e.request.task.id for e in episodes])
    group = np.unique([e.request.group for e in episodes], return_inverse=True)[1]
    longest = max(len(e.tokens) for e in episodes)
    with torch.no_grad():
        inputs = [{k: torch.from_numpy(v) for k, v in e.inputs.items()} for e in episodes]
        features = [policy.features(i).numpy() for i in inputs]
    print(f"{success.sum()} of {len(success)} episodes succeed\n")
    ends = [-(-longest * k // SPANS) for k in range(SPANS + 1)]
    names = " | ".join(f"decisions {a} to {b - 1}" for a, b in itertools.pairwise(ends))
    print(f"| grades | potential | {names} |\n|---" + "|---" * (SPANS + 1) + "|")
    graded = {"true progress": true_progress_rewards(episodes, success, task, config.alpha)}
    for name, which in SEEN.items():
        model = create(name)
        seen = moments(model, [e.frame_features[:, which] for e in episodes if e.frame_features is not None])
        references = references_of(options.demos, model, policy.chunk)
        graded[name] = progress_rewards(seen, success, task, alpha=config.alpha, references=references, group=group)
    for name, found in graded.items():
        assert found.reached is not None
        reached = [at_decisions(r, len(e.tokens)) for r, e in zip(found.reached, episodes, strict=True)]
        for potential in (None, reached):
            number = [e.request.task.index for e in episodes]
            states = StateRecord.of(features, found.reward, number, potential)
            cells = spans(states, group, config.gae_lambda, longest)
            print(f"| {name} | {'yes' if potential else 'no'} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
