"""``srpo distil``: runs that practised single tasks (or any others) become one policy for all of them."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srpo.data.successes import Decisions, JoinedMemories, SuccessMemory, decisions_of
from srpo.distillation import distil, relabelled
from srpo.policies.loading import load_policy
from srpo.rollout.collector import Collector, default_workers
from srpo.sampler import GroupSampler
from srpo.session import counting
from srpo.tracking import Console
from srpo.train_config import TrainConfig
from srpo.types import SrpoError, Task


def run(options: argparse.Namespace, config: TrainConfig, tasks: list[Task], console: Console) -> Any:
    """The new policy, of ``options.runs``; see `srpo.distillation.distil`.

    Raises:
        SrpoError: a run lacks its policy or its successes, the runs do not fit each other, or nothing succeeded.
    """
    runs, settings = [Path(r) for r in options.runs], config.distil
    policies = [load_policy(str(one / "policy"), config.model, config.suite).eval() for one in runs]
    start = load_policy(options.policy, config.model, config.suite) if options.policy else None
    if not all(hasattr(policy, "untrained") for policy in policies):
        raise SrpoError("So large a policy is not cloned anew; srpo distil is for compact ones.")
    for one, policy in [*zip(runs, policies, strict=True), *([(options.policy, start)] if start else [])]:
        if policy.config != policies[0].config:  # the same token would mean another action
            raise SrpoError(f"{one} and {runs[0]} did not start from one policy: their configurations differ.")
    memory = JoinedMemories(
        [SuccessMemory(one / "successes", settings.successes) for one in runs],
        settings.successes,
        [partial(relabelled, policy) for policy in policies] if options.labels == "median" else (),
    )
    torch.set_num_threads(default_workers())
    with ExitStack() as stack:
        shown = stack.enter_context(ExitStack())  # one phase after the other: gradient steps, attempts, gradient steps
        now = shown.enter_context(console.phase("distil", settings.steps, "steps"))
        collector = None
        if settings.rounds:
            rollout = replace(config.rollout, world_model=None)
            collector = stack.enter_context(Collector(policies[0], rollout, config.workers))

        def attempts(clone: Any, number: int) -> list[tuple[Task, Decisions]]:
            nonlocal now
            assert collector is not None
            shown.close()
            requests = sampler.requests(number - 1)
            with console.phase(f"attempts {number} of {settings.rounds}", len(requests), "episodes") as progress:
                episodes = collector.collect(clone, requests, counting(progress))
            won = sum(e.success for e in episodes)
            console.message(f"attempts of the clone: {won} of {len(episodes)} succeed")
            now = shown.enter_context(console.phase("distil", settings.steps, "steps"))
            corrected = []
            for episode in episodes:
                task = episode.request.task
                teacher = memory.first(task)
                if teacher is not None:  # a task of demonstrations alone has none
                    corrected.append((task, relabelled(policies[teacher], decisions_of(episode, clone.action_dim))))
            return corrected

        sampler = _sampler(config, tasks, options.seed)
        new = distil(
            policies[0], memory, tasks, settings, options.seed, lambda step: now.update(step),
            start=start, attempts=attempts if settings.rounds else None,
        )  # fmt: skip
    if new is None:
        raise SrpoError("A task has neither a success nor a demonstration in these runs: add one that practised it.")
    return new


def _sampler(config: TrainConfig, tasks: list[Task], seed: int) -> GroupSampler:
    """Single attempts at initial states that no run of this seed has met, but by chance; as in practice otherwise."""
    if config.train_max_steps:
        tasks = [replace(t, max_steps=config.train_max_steps) for t in tasks]
    return GroupSampler(
        tasks, 0, 1, config.protocol, int(np.random.default_rng([seed, 8]).integers(2**31)), config.temperature,
        config.train_states, config.distil.attempts * len(tasks), config.gripper_temperature,
    )  # fmt: skip
