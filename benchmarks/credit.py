"""How much of the gradient is signal, with the credit given to episodes or to decisions.

    python benchmarks/credit.py --policy runs/demo/sft/policy --groups 64
    python benchmarks/credit.py --preset libero-object --policy runs/suite/libero_object/easy/sft_0/policy --groups 80
    python benchmarks/credit.py --preset libero-spatial --policy runs/suite/libero_spatial/easy/sft_0/policy \
        --groups 50 --agreement --temperature 0.25 --rollout.noise-persistence 0

Rolls out groups with a cloned policy (training states of a seed that no preset uses) and computes the policy gradient
of each group. The share of signal is |E g|^2 / E |g|^2, where the first is estimated from the products of different
groups' gradients (one minus it, over it, is the gradient noise scale of McCandlish et al., arXiv 1812.06162, in groups;
groups are taken as independent, though values and grades couple them a little); the standard error is a jackknife's of
the numerator. Failures are graded as the preset says, against the successes of all groups. With a preset for a whole
suite the groups are of all its tasks, and a signal is what they have in common. The last rows of each reward are of
the tokens of some action dimensions only, and of all weighed by range (`--token-weights range`); power is E |g|^2, of
that of all tokens and decisions alike. Prints a markdown table.

``--demos`` gives the first references, without which a policy that never succeeds has no grades. ``--true-progress``
adds the reward that grades stand for, the best true progress that the simulator knows
(`srpo.evaluation.true_progress`), and a column: the cosine of a group's gradient and the expected gradient of that
reward with credit by decision (lambda of the preset), up to a factor that all rows have in common. So for one task
that a policy hardly ever solves:

    python benchmarks/credit.py --preset libero-spatial --policy runs/suite/libero_spatial/hard/sft_0/policy --tasks 3 \
        --groups 40 --temperature 0.3 --demos runs/suite/libero_spatial/demos --true-progress

``--agreement`` asks another question of a whole suite: do two groups of the *same* task pull into one direction?
Printed is the mean cosine of their gradients (0/1 reward, tokens weighed by range; groups that all succeed or all fail
left out) with a jackknife's standard error over groups, for credits and for parts of the network with their share of
the gradient's power.

Other options are settings of ``srpo train``, in place of the preset's; ``--potential True`` counts for the graded
reward only.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from srpo.algorithms import StateRecord, group_advantages, group_relative_gae
from srpo.config import override
from srpo.data.demonstrations import DemonstrationSet
from srpo.data.episodes import CAMERA, every_nth
from srpo.envs import libero_suites
from srpo.learner import flatten
from srpo.policies.base import range_weights, token_log_probs, token_temperatures
from srpo.policies.compact import CompactPolicy
from srpo.presets import PRESETS, preset
from srpo.rewards import progress_rewards
from srpo.rollout.collector import Collector
from srpo.sampler import GroupSampler
from srpo.train_config import TrainConfig
from srpo.types import Episode
from srpo.world_models import WorldModel, create, moments
from srpo.world_models.base import at_decisions

SEED = 77


def asked(parser: argparse.ArgumentParser, name: str, groups: int) -> tuple[argparse.Namespace, dict[str, str]]:
    """The options of a script that rolls out groups, defaults ``name`` and ``groups``; what ``parser`` does not know is
    settings of ``srpo train``."""
    parser.add_argument("--preset", choices=[n for n in PRESETS if n.startswith("libero")], default=name)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=groups)
    parser.add_argument("--workers", type=int, default=None)
    options, settings = parser.parse_known_args()
    return options, dict(zip((o.removeprefix("--") for o in settings[::2]), settings[1::2], strict=True))


def roll_out(
    policy: CompactPolicy, config: TrainConfig, groups: int, workers: int | None, single: int = 0
) -> list[Episode]:
    """Episodes as a training step makes them: groups, and ``single`` attempts, of which the first is filmed."""
    tasks = [
        replace(t, max_steps=config.train_max_steps or t.max_steps)
        for t in libero_suites.tasks(config.suite, config.tasks or None)
    ]
    sampler = GroupSampler(
        tasks, groups, config.group_size, config.protocol, SEED, config.temperature,
        probes=single, gripper_temperature=config.gripper_temperature,
    )  # fmt: skip
    filmed = groups * config.group_size
    requests = [replace(r, keep_frames=i == filmed) for i, r in enumerate(sampler.requests(0))]
    with Collector(policy, config.rollout, workers) as collector:
        return collector.collect(policy, requests)


def group_gradients(
    policy: CompactPolicy, episodes: list[Episode], advantages: list[np.ndarray], decisions: range | None = None,
    weights: np.ndarray | None = None,
) -> torch.Tensor:  # fmt: skip
    """(G, P) gradient of each group's surrogate, of the given decisions only; ``weights`` of the action dimensions."""
    rows = []
    for group in sorted({e.request.group for e in episodes}):
        mine = [i for i, e in enumerate(episodes) if e.request.group == group]
        kept = [advantages[i].copy() for i in mine]
        for a in kept if decisions is not None else []:
            a[[t for t in range(len(a)) if t not in decisions]] = 0.0
        policy.zero_grad()
        if any(a.any() for a in kept):
            batch = flatten([episodes[i] for i in mine], kept, policy.action_dim, weights)
            asked, n_tokens = episodes[0].request, policy.chunk * policy.action_dim
            sampled = token_temperatures(asked.temperature, asked.gripper_temperature, n_tokens, policy.action_dim)
            log_prob, _ = token_log_probs(policy.logits(batch.inputs), batch.tokens, torch.from_numpy(sampled))
            (-(log_prob * batch.advantage[:, None] * batch.mask).sum()).backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters()]
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


def references_of(demos: Path, world_model: WorldModel, chunk: int) -> tuple[np.ndarray, list[str]]:
    """A folder's demonstrations as first references of coverage: (R, MOMENTS, E) and their tasks."""
    features, tasks = [], []
    for shown in DemonstrationSet(demos):
        images = shown.images[CAMERA]
        looked = every_nth(len(images), chunk)
        features.append(np.stack([world_model.frame_features(images[t], {"state": shown.states[t]}) for t in looked]))
        tasks.append(shown.task.id)
    return moments(world_model, features), tasks


def share_of_signal(gradients: torch.Tensor, other: torch.Tensor | None = None) -> tuple[float, float]:
    """|E g|^2 / E |g|^2 and its jackknife standard error; of ``other`` gradients of the same groups,
    E g . E h / sqrt(E |g|^2 E |h|^2)."""
    other = gradients if other is None else other
    products = (gradients @ other.T).double().numpy()
    n = len(products)

    def unbiased(keep: np.ndarray) -> float:
        part = products[np.ix_(keep, keep)]
        return (part.sum() - np.trace(part)) / (len(part) * (len(part) - 1))

    every = np.arange(n)
    without = np.array([unbiased(np.delete(every, i)) for i in every])
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    scale = float((gradients.square().sum(1).mean() * other.square().sum(1).mean()).sqrt())
    return unbiased(every) / scale, error / scale


def agreement(gradients: torch.Tensor, task: np.ndarray) -> tuple[float, float]:
    """Mean cosine of the gradients of two groups of one task, and its jackknife standard error.

    Args:
        gradients: (G, P), none of them 0.
        task: (G,) of each group.
    """
    unit = torch.nn.functional.normalize(gradients.double(), dim=1)
    cosine = (unit @ unit.T).numpy()
    pair = (task[:, None] == task[None]) & ~np.eye(len(task), dtype=bool)
    rows, of_row = (cosine * pair).sum(1), pair.sum(1)
    without = (rows.sum() - 2 * rows) / (of_row.sum() - 2 * of_row)
    error = np.sqrt((len(task) - 1) / len(task) * ((without - without.mean()) ** 2).sum())
    return float(rows.sum() / of_row.sum()), float(error)


def parts(policy: CompactPolicy) -> dict[str, np.ndarray]:
    """Name -> (P,) bool: which of the policy's numbers belong to a part of it."""
    owner = np.concatenate([np.full(p.numel(), n) for n, p in policy.named_parameters()])
    starts = ("instruction", "eyes.agentview", "eyes.wrist", "trunk.0", "trunk.1", "trunk.2", "head")
    return {
        "all of the policy": np.full(len(owner), True),
        "all but the head": ~np.char.startswith(owner, "head."),
        **{part: np.char.startswith(owner, f"{part}.") for part in starts},
    }


def agreement_table(policy: CompactPolicy, episodes: list[Episode], config: TrainConfig) -> str:
    """Markdown, see the module's docstring."""
    success = np.array([e.success for e in episodes]).astype(float)
    group = np.array([e.request.group for e in episodes])
    task = np.array([e.request.task.index for e in episodes])
    with torch.no_grad():
        states = [policy.features({k: torch.from_numpy(v) for k, v in e.inputs.items()}).numpy() for e in episodes]
    names = np.unique(group)
    rate = np.array([success[group == g].mean() for g in names])
    mixed = (rate > 0) & (rate < 1)
    of_group = np.array([task[group == g][0] for g in names])[mixed]
    whole = group_advantages(success, group, normalise_std=False)
    rows = [("episode", [np.full(len(e.tokens), a) for e, a in zip(episodes, whole, strict=True)])]
    record = StateRecord.of(states, success, task)
    for gae_lambda in (1.0, 0.9, 0.7, 0.5):
        rows.append((f"decision, lambda {gae_lambda}", group_relative_gae(
            record, group, gae_lambda=gae_lambda, normalise_std=False
        )))  # fmt: skip
    lines = ["| credit | part | power | cosine of two groups of a task |", "|---|---|---|---|"]
    for label, advantages in rows:
        gradients = group_gradients(policy, episodes, advantages, None, range_weights(policy))[torch.from_numpy(mixed)]
        for part, which in parts(policy).items():
            if part.startswith("all") or label.endswith(f" {config.gae_lambda}"):
                own = gradients[:, torch.from_numpy(which)]
                value, error = agreement(own, of_group)
                power = float(own.square().sum() / gradients.square().sum())
                lines.append(f"| {label} | {part} | {power:.3f} | {value:.2f} ± {error:.2f} |")
    return "\n".join(lines)


def decision_advantages(
    states: list[np.ndarray], reward: np.ndarray, group: np.ndarray, task: np.ndarray, gae_lambda: float,
    config: TrainConfig, potential: list[np.ndarray] | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """As the trainer computes them: in steps' batches, the value fitted to further batches as well."""
    batch = config.groups
    names = np.unique(group)
    batches = [np.flatnonzero(np.isin(group, names[i : i + batch])) for i in range(0, len(names), batch)]
    reached = potential or [np.full(len(s), np.nan) for s in states]
    records = [StateRecord.of([states[i] for i in b], reward[b], task[b], [reached[i] for i in b]) for b in batches]
    out: dict[int, np.ndarray] = {}
    for k, members in enumerate(batches):
        history = [records[(k - j - 1) % len(records)] for j in range(min(config.value_history, len(records) - 1))]
        estimates = group_relative_gae(
            records[k], group[members], history, gae_lambda=gae_lambda, normalise_std=config.normalise_std
        )
        out |= dict(zip(members.tolist(), estimates, strict=True))
    return [out[i] for i in range(len(states))]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agreement", action="store_true")
    parser.add_argument("--demos", type=Path, help="first references")
    parser.add_argument("--true-progress", action="store_true")
    options, changes = asked(parser, "libero-quick", 64)
    if options.true_progress:
        changes["rollout.true-progress"] = "True"
    config = override(preset(options.preset).train, changes)
    policy = CompactPolicy.from_pretrained(options.policy)
    episodes = roll_out(policy, config, options.groups, options.workers)
    success = np.array([e.success for e in episodes])
    if options.agreement:
        print(f"{success.sum()} of {len(success)} sampled episodes succeed\n")
        print(agreement_table(policy, episodes, config))
        return
    group = np.array([e.request.group for e in episodes])
    task = np.array([e.request.task.index for e in episodes])
    world_model = create(config.rollout.world_model or "image")
    features = [e.frame_features for e in episodes if e.frame_features is not None]
    seen = moments(world_model, features) if config.clustering == "coverage" else world_model.embed(features)
    names = np.array([e.request.task.id for e in episodes])
    references = references_of(options.demos, world_model, policy.chunk) if options.demos else None
    graded = progress_rewards(
        seen, success, names, formula=config.formula, alpha=config.alpha, clustering=config.clustering,
        references=references, group=group if config.potential else None,
    )  # fmt: skip
    potential = None
    if graded.reached is not None:
        potential = [at_decisions(r, len(e.tokens)) for r, e in zip(graded.reached, episodes, strict=True)]
    with torch.no_grad():
        states = [policy.features({k: torch.from_numpy(v) for k, v in e.inputs.items()}).numpy() for e in episodes]
    print(f"{success.sum()} of {len(success)} sampled episodes succeed\n")
    learnt = torch.from_numpy(np.concatenate([
        np.full(p.numel(), not name.startswith(tuple(f"{part}." for part in config.learner.frozen)))
        for name, p in policy.named_parameters()
    ]))  # fmt: skip
    rewards = {"srpo": graded.reward, "sparse": success.astype(float)}
    truth = None
    if options.true_progress:
        rewards = {"true progress": np.array([e.info["true_progress"].max() for e in episodes])} | rewards
        ideal = decision_advantages(states, rewards["true progress"], group, task, config.gae_lambda, config)
        truth = group_gradients(policy, episodes, ideal, None, range_weights(policy))[:, learnt]
    column = " along true progress |" if options.true_progress else ""
    print(f"| reward | credit | share of signal in one group's gradient | power |{column}")
    print("|---|---|---|---|" + "---|" * bool(column))
    dimensions = np.arange(policy.action_dim)
    some = {
        "translations only": dimensions < 3,
        "rotations only": (dimensions >= 3) & (dimensions < 6),
        "gripper only": dimensions == 6,
        "weighed by range": range_weights(policy),
    }
    whole_suite = range_weights(policy) if config.token_weights == "range" else None
    for name, reward in rewards.items():
        per_episode = group_advantages(reward, group, normalise_std=config.normalise_std)
        whole = [np.full(len(e.tokens), a) for e, a in zip(episodes, per_episode, strict=True)]
        rows = [("episode", whole, None, whole_suite)]
        for r in (range(3), range(3, 16)):
            rows.append((f"episode, decisions {r.start} to {r.stop - 1} only", whole, r, whole_suite))
        for gae_lambda in (1.0, 0.9, 0.7, 0.5, 0.3, 0.0):
            reached = potential if name == "srpo" else None
            estimates = decision_advantages(states, reward, group, task, gae_lambda, config, reached)
            rows.append((f"decision, lambda {gae_lambda}", estimates, None, whole_suite))
            if gae_lambda == config.gae_lambda and whole_suite is None:
                rows += [(f"the same, {k}", estimates, None, w.astype(float)) for k, w in some.items()]
        alike = 1.0
        for label, advantages, decisions, weights in rows:
            gradients = group_gradients(policy, episodes, advantages, decisions, weights)[:, learnt]
            power = float(gradients.square().sum(1).mean())
            if not power:
                print(f"| {name} | {label} | no group says anything | 0 |" + " - |" * bool(column), flush=True)
                continue
            value, error = share_of_signal(gradients)
            alike = power if label == "episode" or label.startswith("decision") else alike
            line = f"| {name} | {label} | {value:.2%} ± {error:.2%} | {power / alike:.2f} |"
            if truth is not None:
                value, error = share_of_signal(gradients, truth)
                line += f" {value:.2%} ± {error:.2%} |"
            print(line, flush=True)


if __name__ == "__main__":
    main()
