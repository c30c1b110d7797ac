"""Episodes of half-trained policies, recorded with the true progress at every decision, for judging rewards.

    python benchmarks/episode_set.py --out runs/reward_episodes

    python benchmarks/episode_set.py --kind training --out runs/world_model_episodes

``--kind bench``: six tasks of LIBERO-Object and six of LIBERO-Spatial. Per suite: two demonstrations a task, one
language-conditioned policy cloned from them for few and one for more gradient steps; both act from freshly sampled
initial states, their actions drawn at temperature 0.5, 1 and 1.5 with noise correlated within a chunk. Failures are
then of many kinds: hands that miss by a little or by far, objects dropped, objects put down beside the target.

``--kind training``: the same on twelve tasks of LIBERO-90, and beside it the demonstrations themselves and an untrained
policy, so that a world model trained on them has seen more than half-success, and nothing of the bench's suites.

Resumable; everything follows from ``--seed``. Some 20 minutes each on two cores.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np

from srpo.collect import CollectConfig, collect
from srpo.data.demonstrations import DemonstrationSet
from srpo.data.episodes import EpisodeSet, RecordedEpisode, every_nth
from srpo.envs import libero
from srpo.policies.compact import CompactConfig, CompactPolicy
from srpo.rollout.collector import Collector
from srpo.rollout.runner import RolloutConfig
from srpo.sampler import train_state
from srpo.sft import SftConfig, train
from srpo.types import EpisodeRequest, Task

SUITES = {
    "bench": {"libero_object": (0, 1, 2, 5, 7, 9), "libero_spatial": (0, 1, 2, 3, 5, 8)},
    "training": {"libero_90": (9, 16, 25, 30, 43, 48, 53, 56, 60, 62, 65, 72)},
}
EVERY = 8  # control steps between two frames of a demonstration, as between two decisions
TEMPERATURES = (0.5, 1.0, 1.5)


def half_trained(suite: str, tasks: list[Task], steps: int, demos: int, seed: int, work: Path) -> CompactPolicy:
    """A policy cloned for ``steps`` gradient steps from ``demos`` demonstrations a task."""
    if not steps:
        return CompactPolicy(CompactConfig()).eval()
    run = work / f"{suite}_{steps}"
    if not (run / "policy/model.safetensors").is_file():
        shown = DemonstrationSet(work / f"{suite}_demos")
        collect(shown, tasks, CollectConfig(demos=(demos,), seed=seed))
        train(shown, SftConfig(steps=steps, validation=0.0, augmentations=1, seed=seed), run, resume=True)
    return CompactPolicy.from_pretrained(run / "policy").eval()


def demonstrated(suite: str, tasks: list[Task], demos: int, seed: int, work: Path) -> list[RecordedEpisode]:
    """The demonstrations as episodes; their true progress was not noted."""
    shown = DemonstrationSet(work / f"{suite}_demos")
    collect(shown, tasks, CollectConfig(demos=(demos,), seed=seed))
    out = []
    for demo in shown:
        images = demo.images["agentview"]
        frames = images[every_nth(len(images), EVERY)]
        unknown = np.full(len(frames), np.nan, np.float32)
        length = len(demo.actions)
        out.append(RecordedEpisode(demo.task, demo.initial_state, 0, "expert", True, length, frames, unknown))
    return out


def requests(tasks: list[Task], per_task: int, seed: int) -> list[EpisodeRequest]:
    """``per_task`` episodes a task, each from an initial state of its own."""
    out = []
    for task in tasks:
        rng = np.random.default_rng([seed, task.index])
        for i in range(per_task):
            state = train_state("held-out", int(rng.integers(1_000_000)))
            noise = TEMPERATURES[i % len(TEMPERATURES)]
            out.append(EpisodeRequest(task, state, i, int(rng.integers(2**31)), noise, keep_frames=True))
    return out


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=tuple(SUITES), default="bench")
    parser.add_argument("--out", type=Path, default=Path("runs/reward_episodes"))
    parser.add_argument("--per-task", type=int, default=15, help="episodes per task and policy")
    parser.add_argument("--demos", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 700], help="gradient steps of the policies")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    episodes = EpisodeSet(options.out)
    recipe = {k: v for k, v in vars(options).items() if k not in ("out", "seed")}
    suites = SUITES[options.kind]
    training = options.kind == "training"
    episodes.create({**recipe, "suites": {k: list(v) for k, v in suites.items()}}, options.seed)
    present = set(episodes.numbers())
    number = 0
    for suite, indices in suites.items():
        tasks = libero.tasks(suite, list(indices))
        if training:
            for episode in demonstrated(suite, tasks, options.demos, options.seed, options.out / "policies"):
                episodes.add(number, episode)
                number += 1
        for kind, steps in enumerate([*options.steps, 0] if training else options.steps):
            wanted = requests(tasks, options.per_task, 1000 * options.seed + kind)
            numbers = range(number, number + len(wanted))
            number += len(wanted)
            missing = [(n, r) for n, r in zip(numbers, wanted, strict=True) if n not in present]
            if not missing:
                continue
            policy = half_trained(suite, tasks, steps, options.demos, options.seed, options.out / "policies")
            place = {r: n for n, r in missing}
            name = f"{suite} cloned for {steps} steps" if steps else "untrained"
            config = RolloutConfig(world_model=None, noise_correlation=0.7, true_progress=True)
            won = 0
            with Collector(policy, replace(config, max_environments=len(tasks))) as collector:

                def keep(episode, place=place, name=name) -> None:
                    episodes.add(place[episode.request], RecordedEpisode.of(episode, name))

                done = collector.collect(policy, [r for _, r in missing], keep)
                won = sum(e.success for e in done)
            print(f"{name}: {won} of {len(missing)} succeed", flush=True)


if __name__ == "__main__":
    main()
