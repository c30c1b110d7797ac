"""What grades could see: how well a linear probe, told the truth, reads true progress off features.

    python benchmarks/decodable.py --policy runs/suite/libero_spatial/hard/sft_0/policy --groups 20 --tasks 3 \
        --temperature 0.3

Rolls out groups of one task as ``grades.py`` does and fits a ridge regression of the simulator's true progress on what
one camera or the hand shows at each decision (of a camera the first principal components of the maps that the policy
reads, over all episodes; the regression is fitted without the fold of groups that is judged). A world model has no
truth to learn from: the probe bounds what a linear reading of the same features can tell. Printed, of all decisions:
R^2, and the area under the ROC curve of whether progress is at `closer.HELD` or beyond (the object in the hand, or
already carried); of the episodes that fail: Spearman's correlation within groups between the largest predicted and the
best true progress, to be compared with that of grades in ``grades.py``. Other options are settings of ``srpo train``.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from closer import HELD
from credit import asked, roll_out
from grades import within_groups
from srpo.config import override
from srpo.policies.compact import CompactPolicy
from srpo.presets import preset
from srpo.types import Episode

FOLDS, COMPONENTS, GRID = 5, 60, 4
#: What a probe reads, by the names of the policy's inputs.
READ = {
    "third-person camera": ("agentview_s16",),
    "wrist camera": ("wrist_s16",),
    "hand and fingers": ("state",),
    "wrist camera, hand and fingers": ("wrist_s16", "state"),
    "all": ("agentview_s16", "wrist_s16", "state"),
}


def features(episodes: list[Episode], name: str) -> np.ndarray:
    """(T, F) standardised, of all decisions of all episodes: the state, or components of the maps on a coarse grid."""
    values = np.concatenate([e.inputs[name] for e in episodes]).astype(np.float32)
    if values.ndim > 2:
        values = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(values), GRID).flatten(1).numpy()
        values = PCA(COMPONENTS, random_state=0).fit_transform(StandardScaler().fit_transform(values))
    return StandardScaler().fit_transform(values)


def predicted(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(T, K) ridge regression of (T, K) targets; of each fold of groups by a fit without it."""
    out = np.empty_like(y)
    for fold in range(FOLDS):
        judged = group % FOLDS == fold
        if judged.any():
            out[judged] = RidgeCV(np.logspace(0, 4, 9)).fit(x[~judged], y[~judged]).predict(x[judged])
    return out


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options, changes = asked(parser, "libero-spatial", 20)
    config = override(preset(options.preset).train, changes | {"rollout.true-progress": "True"})
    episodes = roll_out(CompactPolicy.from_pretrained(options.policy), config, options.groups, options.workers)
    success = np.array([e.success for e in episodes])
    of_episode = np.array([e.request.group for e in episodes])
    lengths = [len(e.tokens) for e in episodes]
    truth = [e.info["true_progress"][:n] for e, n in zip(episodes, lengths, strict=True)]
    best = np.array([t.max() for t in truth])
    progress = np.concatenate(truth).astype(float)
    held = (progress >= HELD).astype(float)
    print(f"{success.sum()} of {len(success)} episodes succeed, in {(best >= HELD).sum()} the object is held\n")
    print("| features | R^2 | held, AUC | best true progress within groups (groups) |\n|---|---|---|---|")
    for label, names in READ.items():
        x = np.concatenate([features(episodes, name) for name in names], axis=1)
        told = predicted(x, np.stack([progress, held], 1), np.repeat(of_episode, lengths))
        r2 = 1.0 - np.square(told[:, 0] - progress).mean() / progress.var()
        largest = np.array([t.max() for t in np.split(told[:, 0], np.cumsum(lengths)[:-1])])
        within = within_groups(largest, best, of_episode, ~success)
        print(f"| {label} | {r2:.2f} | {roc_auc_score(held, told[:, 1]):.2f} | {within} |", flush=True)


if __name__ == "__main__":
    main()
