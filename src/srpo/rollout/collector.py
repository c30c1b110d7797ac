"""Collects the episodes of an RL step from a pool of worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import torch

from srpo.rollout.pool import WorkerPool
from srpo.rollout.runner import RolloutConfig
from srpo.rollout.server import PolicyServer
from srpo.types import Episode, EpisodeRequest, InitialState


def default_workers() -> int:
    """One worker a core this process may use; of a machine on which torchrun has started several, its share."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class Collector:
    """Rolls out a policy on all cores. An episode that ends frees its worker for the next at once.

    Args:
        policy: the policy; its class and ``config`` are rebuilt in every worker, where its ``prepare`` runs. Its
            weights follow with every call, unless it decides here for all workers (``config.inference``).
        config: how episodes are run.
        workers: number of processes.
    """

    def __init__(self, policy: torch.nn.Module, config: RolloutConfig, workers: int | None = None) -> None:
        cls = type(policy)
        self.workers = workers or default_workers()
        if config.inference == "auto":
            local = next(policy.parameters()).device.type == "cpu" and not hasattr(cls, "front_end")
            config = replace(config, inference="worker" if local else "server")
        self.server = PolicyServer(config.server_batch) if config.inference == "server" else None
        self.pool = WorkerPool(
            "srpo.rollout.runner:PolicyRunner",
            (config, f"{cls.__module__}:{cls.__qualname__}", policy.config),
            self.workers,
            answer=self.server,
        )

    def collect(
        self,
        policy: torch.nn.Module,
        requests: Sequence[EpisodeRequest],
        on_episode: Callable[[Episode], None] = lambda episode: None,
    ) -> list[Episode]:
        """The episodes of ``requests``, in their order; ``on_episode`` hears of each as it ends."""
        if self.server is not None:
            self.server.policy = policy
        else:
            self.pool.update({k: v.detach().cpu().numpy() for k, v in policy.state_dict().items()})
        episodes: list[Episode | None] = [None] * len(requests)
        for i, episode in self.pool.run(requests, affinity=_where):
            episodes[i] = episode
            on_episode(episode)
        return [e for e in episodes if e is not None]

    def close(self) -> None:
        """Stop the workers."""
        self.pool.close()

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _where(request: EpisodeRequest) -> tuple[str, InitialState]:
    """A worker that has the task need not build it, and one that has settled the initial state can copy it."""
    return request.task.id, request.initial_state


def summary(episode: Episode) -> dict:
    """An episode as a line of a result file: task, initial state, outcome; no arrays."""
    request = episode.request
    return {
        "task": request.task.id,
        "instruction": request.task.instruction,
        "initial_state": asdict(request.initial_state),
        "seed": request.seed,
        "temperature": request.temperature,
        "median": request.median,
        "success": bool(episode.success),
        "n_steps": int(episode.n_steps),
        "seconds": round(episode.seconds, 3),
    }
