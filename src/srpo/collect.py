"""``srpo collect``: demonstrations by scripted experts, in parallel, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from srpo import plugins
from srpo.data.demonstrations import Demonstration, DemonstrationSet
from srpo.rollout.collector import default_workers
from srpo.rollout.pool import WorkerPool
from srpo.rollout.runner import EnvironmentCache
from srpo.sampler import demonstration_state
from srpo.types import InitialState, SrpoError, Task


@dataclass(frozen=True)
class CollectConfig:
    """Demonstrations.

    Attributes:
        demos: successful demonstrations per task: one number for all, or one for each task of the suite.
        cameras: what is recorded.
        image_size: side of the images, pixels.
        render: picture quality, as in `RolloutConfig`.
        noise: standard deviation of the noise added to the executed actions in free space (the recorded action stays
            the expert's), which widens the states that are demonstrated.
        seed: of the noise and of the first initial state.
        env: import string of the environment class.
        expert: import string of a function env -> expert.
    """

    demos: tuple[int, ...] = (10,)
    cameras: tuple[str, ...] = ("agentview", "wrist")
    image_size: int = 128
    render: str = "auto"
    noise: float = 0.0
    seed: int = 0
    env: str = "srpo.envs.libero:LiberoEnv"
    expert: str = "srpo.envs.experts:expert_for"

    def demos_of(self, task: Task) -> int:
        """How many demonstrations of this task.

        Raises:
            SrpoError: there are several numbers, but none for this task.
        """
        if len(self.demos) == 1:
            return self.demos[0]
        if task.index >= len(self.demos):
            raise SrpoError(
                f"--demos has {len(self.demos)} numbers, none for {task.id}: give one for all tasks, or one for each."
            )
        return self.demos[task.index]


class Attempt(NamedTuple):
    """One demonstration to try."""

    task: Task
    number: int
    state: InitialState


class ExpertRunner:
    """Runs the expert, in a worker process."""

    def __init__(self, config: CollectConfig) -> None:
        self.config = config
        env_class = plugins.load(config.env)
        self.expert_for = plugins.load(config.expert)
        self.envs = EnvironmentCache(
            lambda task: env_class(task, cameras=config.cameras, image_size=config.image_size, quality=config.render),
            capacity=4,
        )

    def run(self, attempt: Attempt) -> Demonstration | None:
        """The demonstration, or None if the expert failed."""
        env = self.envs.get(attempt.task)
        rng = np.random.default_rng([self.config.seed, attempt.number])
        observation = env.reset(attempt.state)
        expert = self.expert_for(env)
        expert.reset()
        images: dict[str, list[np.ndarray]] = {c: [] for c in self.config.cameras}
        states, actions = [], []
        for _ in range(attempt.task.max_steps):
            action = np.clip(expert.act(), -1.0, 1.0)
            for camera in self.config.cameras:
                images[camera].append(observation.images[camera])
            states.append(observation.state)
            actions.append(action.astype(np.float32))
            executed = action.copy()
            executed[:3] += self.config.noise * rng.standard_normal(3)
            if env.step(np.clip(executed, -1.0, 1.0)):
                return Demonstration(
                    attempt.task,
                    attempt.state,
                    {c: np.stack(v) for c, v in images.items()},
                    np.stack(states),
                    np.stack(actions),
                )
            observation = env.observe()
        return None

    def update(self, payload: object) -> None:
        """Nothing to update."""

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()


def collect(
    folder: DemonstrationSet,
    tasks: Sequence[Task],
    config: CollectConfig,
    workers: int | None = None,
    on_attempt: Callable[[bool], None] = lambda success: None,
) -> dict[str, tuple[int, int]]:
    """Fill ``folder`` up to ``config.demos_of(task)`` demonstrations a task.

    Returns:
        Task id -> (successes, attempts), earlier runs included.

    Raises:
        SrpoError: an expert fails so often that three times the attempts were not enough, or ``config.demos`` has no
            number for a task.
    """
    for task in tasks:
        config.demos_of(task)
    folder.create(config.cameras, config.image_size, config.seed)
    with WorkerPool("srpo.collect:ExpertRunner", (config,), workers or default_workers()) as pool:
        while jobs := [job for task in tasks for job in _missing(folder, task, config)]:
            for i, demonstration in pool.run(jobs, affinity=lambda job: job.task.id):
                folder.add(jobs[i].number, jobs[i].task, demonstration)
                on_attempt(demonstration is not None)
    done = {task.id: folder.attempts(task) for task in tasks}
    return {task: (sum(a.values()), len(a)) for task, a in done.items()}


def _missing(folder: DemonstrationSet, task: Task, config: CollectConfig) -> list[Attempt]:
    attempts = folder.attempts(task)
    wanted = config.demos_of(task)
    need = wanted - sum(attempts.values())
    if need > 0 and len(attempts) > 3 * wanted + 10:
        raise SrpoError(
            f"The expert solved {task.id} in only {sum(attempts.values())} of {len(attempts)} attempts; "
            "choose another task or lower --noise."
        )
    numbers = (n for n in range(10**6) if n not in attempts)
    base = 1000 * config.seed
    return [Attempt(task, n, demonstration_state(base + n)) for n, _ in zip(numbers, range(need), strict=False)]
