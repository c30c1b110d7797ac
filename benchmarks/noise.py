"""How much two groups of attempts at the same initial state agree on what to learn, by the noise they are sampled with.

    python benchmarks/noise.py --policy runs/suite/libero_spatial/easy/srpo_0/policy --tasks 1 4 6 8 --states 8

First 8 attempts at each of so many new training states of each task, with the preset's noise; those where not all end
alike are kept. At each of these, two further groups of 8 for each kind of noise (`KINDS`: temperature of the motions,
correlation within a chunk, persistence from one decision to the next). Printed is, of each kind:

* the standard deviation of the translations' tokens, in bins, and how many attempts succeed;
* the share of signal in a group's gradient (0/1 reward, credit by decision, motions weighed by range, the head left
  out, which the presets do not train): the mean product of the gradients of two groups, over the mean square of one; of
  groups at the same state, and at other states of the task; with a jackknife's standard error over states;
* how much of the outcomes' variance within a state a line foretells: ridge regression on three numbers, the mean noise
  of each translation axis over the first six decisions, leave one out. Below zero: nothing.

Noise that lasts tells, by where the hand is, which way it leans, and log-probabilities do not know of it: groups might
agree on that alone. Hence the second table: the mean cosine of the gradients of different kinds at the same state, of
all 16 attempts. What two kinds of noise agree on is not the doing of either.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from credit import group_gradients, parts
from srpo.algorithms import StateRecord, group_relative_gae
from srpo.envs import libero_suites
from srpo.policies.base import range_weights
from srpo.policies.compact import CompactPolicy
from srpo.presets import PRESETS, preset
from srpo.rollout.collector import Collector
from srpo.sampler import train_state
from srpo.train_config import TrainConfig
from srpo.types import Episode, EpisodeRequest

#: (temperature of the motions, noise correlation, noise persistence)
KINDS = [(0.15, 0.7, 0.8), (0.5, 0.7, 0.8), (0.15, 0.9, 0.98)]
SIZE = 8


def requests(first: EpisodeRequest, temperature: float, state: int, count: int, seed: int) -> list[EpisodeRequest]:
    """``count`` attempts at one state, in groups of `SIZE`, numbered 1000 times the group plus the state."""
    return [
        replace(first, temperature=temperature, group=1000 * (i // SIZE) + state, seed=seed + 100 * state + i)
        for i in range(count)
    ]


def roll_out(
    policy: CompactPolicy, config: TrainConfig, asked: list[EpisodeRequest], correlation: float, persistence: float,
    workers: int | None,
) -> list[Episode]:  # fmt: skip
    """The attempts, with this noise."""
    noise = replace(config.rollout, noise_correlation=correlation, noise_persistence=persistence, world_model=None)
    with Collector(policy, noise, workers) as collector:
        return collector.collect(policy, asked)


def gradients(policy: CompactPolicy, config: TrainConfig, episodes: list[Episode]) -> dict[int, torch.Tensor]:
    """Group -> (P,) gradient of its surrogate, by the motions' tokens and the parts of the policy that learn."""
    success = np.array([e.success for e in episodes], float)
    group = np.array([e.request.group for e in episodes])
    with torch.no_grad():
        states = [policy.features({k: torch.from_numpy(v) for k, v in e.inputs.items()}).numpy() for e in episodes]
    record = StateRecord.of(states, success, [e.request.task.index for e in episodes])
    advantages = group_relative_gae(record, group, gae_lambda=config.gae_lambda, normalise_std=False)
    motions = np.arange(policy.action_dim) < policy.action_dim - 1
    rows = group_gradients(policy, episodes, advantages, weights=range_weights(policy) * motions)
    learning = torch.from_numpy(parts(policy)["all but the head"])
    return dict(zip(np.unique(group).tolist(), rows[:, learning], strict=True))


def shares(found: dict[int, torch.Tensor], task_of: dict[int, int]) -> list[str]:
    """Share of signal at the same state, and at other states of the task ("-" with too few of these)."""
    numbers = sorted(found)
    rows = torch.stack([found[n] for n in numbers]).double()
    products = (rows @ rows.T).numpy()
    state = np.array([n % 1000 for n in numbers])
    task = np.array([task_of[s] for s in state])
    same = (state[:, None] == state[None]) & ~np.eye(len(state), dtype=bool)
    other = (task[:, None] == task[None]) & (state[:, None] != state[None])

    def share(pairs: np.ndarray, kept: np.ndarray) -> float:
        return float(products[pairs & kept[:, None] & kept[None]].mean() / np.diag(products)[kept].mean())

    cells = []
    for pairs in (same, other):
        if any(not pairs[np.ix_(state != s, state != s)].any() for s in np.unique(state)):
            cells.append("-")
            continue
        without = np.array([share(pairs, state != s) for s in np.unique(state)])
        error = np.sqrt((len(without) - 1) / len(without) * ((without - without.mean()) ** 2).sum())
        cells.append(f"{share(pairs, state >= 0):.2f} ± {error:.2f}")
    return cells


@torch.no_grad()
def mean_noise(policy: CompactPolicy, episode: Episode) -> tuple[np.ndarray, float]:
    """Of the translations' tokens of the first six decisions: (3,) the mean noise of each axis, in standard deviations
    of its tokens, and their mean standard deviation (bins)."""
    inputs = {k: torch.from_numpy(v[:6]) for k, v in episode.inputs.items()}
    probability = (policy.logits(inputs) / episode.request.temperature).softmax(-1).double().numpy()
    bins = np.arange(probability.shape[-1])
    mean = (probability * bins).sum(-1)
    spread = np.sqrt((probability * (bins - mean[..., None]) ** 2).sum(-1))
    noise = (episode.tokens[: len(mean)] - mean) / spread
    by_axis = noise.reshape(-1, policy.action_dim)[:, :3].mean(0)
    return by_axis, float(spread.reshape(-1, policy.action_dim)[:, :3].mean())


def foretold(noise: np.ndarray, success: np.ndarray, state: np.ndarray, ridge: float = 1.0) -> float:
    """Share of the outcomes' variance within states that noise (N, 3) foretells, leave one out."""
    error = total = 0.0
    for s in np.unique(state):
        x, y = noise[state == s], success[state == s]
        if y.std() == 0:
            continue
        for i in range(len(y)):
            kept = np.arange(len(y)) != i
            centre, mean = x[kept].mean(0), y[kept].mean()
            a = x[kept] - centre
            slope = np.linalg.solve(a.T @ a + ridge * np.eye(3), a.T @ (y[kept] - mean))
            error += (y[i] - mean - (x[i] - centre) @ slope) ** 2
            total += (y[i] - mean) ** 2
    return 1.0 - error / total


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [n for n, p in PRESETS.items() if p.train.gripper_temperature is not None]
    parser.add_argument("--preset", choices=names, default="libero-spatial")
    parser.add_argument("--policy", type=Path, required=True, help="of a run, or a checkpoint's folder")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 4, 6, 8])
    parser.add_argument("--states", type=int, default=8, help="of each task, before those that all end alike go")
    parser.add_argument("--first-state", type=int, default=500, help="index of the first training state")
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    config = preset(options.preset).train
    policy = CompactPolicy.from_pretrained(options.policy)
    tasks = libero_suites.tasks(config.suite, tuple(options.tasks))
    first = {
        state: EpisodeRequest(
            replace(task, max_steps=config.train_max_steps or task.max_steps),
            train_state(config.protocol, options.first_state + index), state, 0,
            gripper_temperature=config.gripper_temperature,
        )
        for state, (task, index) in enumerate((t, i) for t in tasks for i in range(options.states))
    }  # fmt: skip
    temperature, rollout = config.temperature, config.rollout
    tried = roll_out(
        policy, config, [r for s, one in first.items() for r in requests(one, temperature, s, SIZE, 0)],
        rollout.noise_correlation, rollout.noise_persistence, options.workers,
    )  # fmt: skip
    outcomes = {s: {e.success for e in tried if e.request.group == s} for s in first}
    mixed = [s for s in first if len(outcomes[s]) == 2]
    if len(mixed) < 2:
        raise SystemExit(f"Not all attempts end alike at {len(mixed)} of {len(first)} states: try more --states.")
    task_of = {s: first[s].task.index for s in mixed}
    print(f"{sum(e.success for e in tried)} of {len(tried)} attempts succeed.", end=" ")
    print(f"{len(mixed)} of {len(first)} states are kept.\n")
    columns = ["temperature, correlation, persistence", "bins", "successes", "same state", "other states", "foretold"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    whole = {}
    for number, (temperature, correlation, persistence) in enumerate(KINDS, 1):
        asked = [r for s in mixed for r in requests(first[s], temperature, s, 2 * SIZE, number * 1_000_000)]
        episodes = roll_out(policy, config, asked, correlation, persistence, options.workers)
        found = gradients(policy, config, episodes)
        whole[number] = {s: found[s] + found[1000 + s] for s in mixed}
        success = np.array([e.success for e in episodes], float)
        state = np.array([e.request.group % 1000 for e in episodes])
        noise, spread = zip(*(mean_noise(policy, e) for e in episodes), strict=True)
        successes, line = f"{success.sum():.0f} of {len(success)}", f"{foretold(np.stack(noise), success, state):.2f}"
        kind = f"{temperature}, {correlation}, {persistence}"
        cells = [kind, f"{np.mean(spread):.1f}", successes, *shares(found, task_of), line]
        print(f"| {' | '.join(cells)} |", flush=True)
    print("\n| kinds | cosine at the same state |\n|---|---|")
    for a, b in combinations(whole, 2):
        cosine = np.array([float(torch.cosine_similarity(whole[a][s], whole[b][s], 0)) for s in mixed])
        error = cosine.std(ddof=1) / len(cosine) ** 0.5
        print(f"| {KINDS[a - 1]}, {KINDS[b - 1]} | {cosine.mean():.2f} ± {error:.2f} |")


if __name__ == "__main__":
    main()
