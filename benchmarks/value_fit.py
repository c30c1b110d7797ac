"""How well the value of a state foretells an episode's outcome, beyond what its group's mean says.

    python benchmarks/value_fit.py runs/suite/libero_spatial/easy/srpo_0

Reads the value history in the run's newest checkpoint: episodes of the last RL steps, with the policy's features at
every decision. Each eighth of the groups is valued by a fit to the others: by one ridge regression for all tasks, and
by `srpo.algorithms.cross_fitted_values`, which corrects it task by task. Printed, for groups in which some succeed and
some fail: correlation of value and outcome after the mean of the group at that decision is taken off both, by decision
(0 is left out: its value is the group's mean). Runs on CPU in a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from srpo import checkpoint
from srpo.algorithms import StateRecord, ValueHistory, cross_fitted_values
from srpo.algorithms.values import _design

SPANS = ((1, 99), (1, 2), (2, 3), (3, 5), (5, 8), (8, 12), (12, 99))


def merged(batches: list[StateRecord]) -> StateRecord:
    """One batch of all episodes."""
    starts = np.cumsum([0, *(len(b.reward) for b in batches)])
    return StateRecord(
        np.concatenate([b.features for b in batches]),
        np.concatenate([b.decision for b in batches]),
        np.concatenate([b.episode + start for b, start in zip(batches, starts[:-1], strict=True)]),
        np.concatenate([b.reward for b in batches]),
        np.concatenate([b.task for b in batches]),
        np.concatenate([b.potential for b in batches]),
    )


def common_ridge(record: StateRecord, group: np.ndarray, folds: int = 8, ridge: float = 100.0) -> np.ndarray:
    """(T,): values by one ridge regression for all tasks, each fold of groups by a fit to the others; of what is still
    to come where the potential is known, else of the whole reward."""
    reward, fold = record.reward[record.episode], group[record.episode] % folds
    design, values, knows = _design([record]), np.empty(len(reward)), np.isfinite(record.potential)
    for known in (True, False):
        reached = np.where(knows & known, record.potential, 0.0)
        for f in np.unique(fold[knows == known]):
            mine, others = (fold == f) & (knows == known), (fold != f) & (knows | (not known))
            x, y = design[others], (reward - reached)[others]
            fit = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ (y - y.mean()))
            seen = reward[fold != f]
            values[mine] = np.clip(reached[mine] + y.mean() + design[mine] @ fit, seen.min(), seen.max())
    return values


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of srpo train, with credit by decision")
    parser.add_argument("--steps", type=int, default=None, help="only the first so many RL steps of the history")
    options = parser.parse_args()
    folder = checkpoint.latest(options.run / "checkpoints")
    if folder is None:
        sys.exit(f"{options.run} holds no checkpoint; give the folder of a run of srpo train.")
    arrays = load_file(folder / "state.safetensors")
    history = ValueHistory(10**6)
    history.load_state_dict({k.removeprefix("values."): v for k, v in arrays.items() if k.startswith("values.")})
    if not history.batches:
        sys.exit(f"{folder} keeps no values; the run needs --credit decision.")
    record = merged(list(history.batches)[: options.steps])
    size = json.loads((options.run / "config.json").read_text())["train"]["group_size"]
    group = np.arange(len(record.reward)) // size
    won = (record.reward == 1.0).astype(float)
    rate = (np.bincount(group, won) / np.bincount(group))[group][record.episode]
    mixed = (rate > 0) & (rate < 1)
    cell = group[record.episode] * (record.decision.max() + 1) + record.decision

    def centred(values: np.ndarray) -> np.ndarray:
        return values - (np.bincount(cell, values) / np.maximum(np.bincount(cell), 1))[cell]

    outcome = centred(won[record.episode])
    print(f"{folder}: {len(won)} episodes, {won.mean():.0%} of them successes, {len(np.unique(record.task))} tasks\n")
    heads = [f"from {a}" if b == 99 else f"{a} to {b - 1}" if b > a + 1 else f"{a}" for a, b in SPANS]
    print("| value | " + " | ".join(heads) + " |\n|" + "---|" * (len(SPANS) + 1))
    for name, values in (
        ("one fit for all tasks", common_ridge(record, group)),
        ("and a correction by task", cross_fitted_values(record, group)),
    ):
        cells = []
        for low, high in SPANS:
            chosen = mixed & (record.decision >= low) & (record.decision < high)
            cells.append(f"{np.corrcoef(centred(values)[chosen], outcome[chosen])[0, 1]:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
