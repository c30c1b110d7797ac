"""How the reward's options change what it says of failures: rank correlation with true progress, on recorded episodes.

    python benchmarks/reward_ablation.py runs/reward_episodes --world-models image,image-random,pixels

A line a choice: way of comparing (clusterings of the paper's distance, or coverage), formula, and number of successes
known per task (drawn five times). Mean over tasks, with bootstrap 95 % intervals over episodes within task and outcome.
Formulas are increasing functions of the same distance and can differ by ties alone, or where they cluster differently.
"""

from __future__ import annotations

import argparse

import numpy as np

from srpo.data.episodes import EpisodeSet
from srpo.evaluation.intervals import stratified_bootstrap
from srpo.evaluation.reward_quality import rank_correlation
from srpo.rewards import progress_rewards
from srpo.rewards.clustering import CLUSTERINGS
from srpo.world_models import create, moments

DRAWS = 5


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("episodes")
    parser.add_argument("--world-models", default="image,image-random,pixels")
    parser.add_argument("--clusterings", default=",".join(CLUSTERINGS))
    parser.add_argument("--references", default="2,4,8,16", help="successes known per task")
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args()
    episodes = list(EpisodeSet(options.episodes))
    success = np.array([e.success for e in episodes])
    task = np.array([e.task.id for e in episodes])
    end = np.array([e.true_progress[-1] for e in episodes], np.float64)
    best = np.array([e.true_progress.max() for e in episodes], np.float64)
    failed = np.flatnonzero(~success & np.isfinite(end))
    strata = [str(t) for t in task[failed]]
    print(f"{len(episodes)} episodes, {int(success.sum())} successes, {len(set(task.tolist()))} tasks\n")
    print("| encoder | compared by | formula | successes known | at the end | at best |\n|---|---|---|---|---|---|")
    for name in options.world_models.split(","):
        model = create(name)
        features = [np.stack([model.frame_features(f, {}) for f in e.frames]) for e in episodes]
        whole, parts = model.embed(features), moments(model, features)
        for clustering in options.clusterings.split(","):
            vectors = parts if clustering == "coverage" else whole

            def reward(known: np.ndarray, formula: str, clustering=clustering, vectors=vectors) -> np.ndarray:
                return progress_rewards(
                    vectors[failed], success[failed], task[failed], formula=formula, clustering=clustering,
                    references=(vectors[known], task[known]),
                ).reward  # fmt: skip

            for formula in ("paper", "siirl"):
                if formula == "siirl" and clustering not in ("dbscan", "coverage"):
                    continue
                graded = reward(np.flatnonzero(success), formula)
                cells = []
                for truth in (end, best):
                    found = stratified_bootstrap(
                        lambda rows, graded=graded, truth=truth: (
                            rank_correlation(graded[rows], truth[failed][rows], task[failed][rows]).per_task
                        ),
                        strata,
                        resamples=options.resamples,
                    )
                    cells.append(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
                print(f"| {name} | {clustering} | {formula} | all | {cells[0]} | {cells[1]} |", flush=True)
            for count in map(int, options.references.split(",")):
                ranks = []
                for draw in range(DRAWS):
                    rng = np.random.default_rng(draw)
                    known = [rng.permutation(np.flatnonzero(success & (task == t)))[:count] for t in sorted(set(task))]
                    graded = reward(np.concatenate(known), "paper")
                    ranks.append([rank_correlation(graded, t[failed], task[failed]).per_task for t in (end, best)])
                means = np.mean(ranks, 0)
                print(f"| {name} | {clustering} | paper | {count} | {means[0]:.2f} | {means[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
