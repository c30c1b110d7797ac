"""Runs one episode after the other, in a worker process: environment, policy and frame encoder side by side.

Everything random in an episode comes from its request, and decisions are computed one at a time (or in batches of one
shape, see `srpo.rollout.server`), so an episode is the same whichever worker runs it and whatever else is under way.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from srpo import plugins
from srpo.envs.base import Env
from srpo.evaluation.true_progress import TrueProgress
from srpo.policies.base import Inputs, LastingNoise, sample_tokens, token_temperatures
from srpo.types import Episode, EpisodeRequest, Observation, SrpoError, Task
from srpo.world_models import create


@dataclass(frozen=True)
class RolloutConfig:
    """How episodes are run.

    Attributes:
        env: import string of the environment class, called as ``Env(task, cameras=, image_size=, quality=)``.
        render: picture quality, ``"fast"``, ``"full"`` or ``"auto"`` (full where a GPU draws), with effects if you
            like; see `srpo.envs.rendering.Quality.parse`. The environment hears of it as ``quality``.
        world_model: name of the frame encoder, or None to keep no features.
        max_steps: step limit; None: the task's own.
        noise_correlation: of the sampling noise within an action dimension of a chunk, see `sample_tokens`.
        noise_persistence: correlation of that noise from one decision to the next, see `LastingNoise`.
        max_environments: environments kept alive per worker (one a task).
        inference: where the policy decides: ``"worker"`` (a copy in each process: best for a small policy on CPUs),
            ``"server"`` (one policy, on its own device, for the decisions that wait) or ``"auto"``: server unless the
            policy is small and on the CPU.
        server_batch: most decisions per forward of the server; fewer are filled up, see `srpo.rollout.server`.
        true_progress: note at each decision point how far the task has really come (LIBERO's pick-and-place tasks
            only, see `srpo.evaluation.true_progress`), for judging rewards; ``Episode.info["true_progress"]``.
    """

    env: str = "srpo.envs.libero:LiberoEnv"
    render: str = "auto"
    world_model: str | None = "image"
    max_steps: int | None = None
    noise_correlation: float = 0.0
    noise_persistence: float = 0.0
    max_environments: int = 4
    inference: str = "auto"
    server_batch: int = 16
    true_progress: bool = False

    def __post_init__(self) -> None:
        if self.inference not in ("auto", "worker", "server"):
            raise SrpoError(f"No place of inference named '{self.inference}': choose auto, worker or server.")
        if not (0.0 <= self.noise_persistence < 1.0 and 0.0 <= self.noise_correlation < 1.0):
            raise SrpoError("--rollout.noise-correlation and --rollout.noise-persistence lie from 0 to below 1.")
        if self.noise_persistence and not self.noise_correlation:
            raise SrpoError("Noise that lasts is shared by a chunk: set --rollout.noise-correlation above 0 too.")
        if self.server_batch < 1:
            raise SrpoError("The server needs a batch of at least 1: set --rollout.server-batch.")


class EnvironmentCache:
    """The environments of a worker, one a task, the least recently used closed first."""

    def __init__(self, make: Callable[[Task], Env], capacity: int) -> None:
        self._make, self._capacity = make, capacity
        self._envs: OrderedDict[str, Env] = OrderedDict()

    def get(self, task: Task) -> Env:
        """The environment of ``task``, built if need be."""
        if task.id not in self._envs:
            while len(self._envs) >= self._capacity:
                self._envs.popitem(last=False)[1].close()
            self._envs[task.id] = self._make(task)
        self._envs.move_to_end(task.id)
        return self._envs[task.id]

    def __contains__(self, task: Task) -> bool:
        return task.id in self._envs

    def close(self) -> None:
        """Close them all."""
        while self._envs:
            self._envs.popitem()[1].close()


def _give_memory_back() -> None:
    """Building a scene leaves tens of MB of freed memory with the allocator; with many workers they add up (glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class PolicyRunner:
    """Rolls out a policy.

    Args:
        config: how episodes are run.
        policy_class: import string of the policy class.
        policy_config: its constructor's argument.
    """

    def __init__(self, config: RolloutConfig, policy_class: str, policy_config: Any) -> None:
        self.config = config
        cls = plugins.load(policy_class)
        # A policy that is asked elsewhere is not built here a second time, only what prepares and acts.
        front_end = getattr(cls, "front_end", None) if config.inference == "server" else None
        self.policy = front_end(policy_config.front) if front_end else cls(policy_config).eval()
        self._ask: Callable[[Inputs], np.ndarray] | None = None
        self.world_model = create(config.world_model) if config.world_model else None
        env_class = plugins.load(config.env)
        self.envs = EnvironmentCache(
            lambda task: env_class(
                task, cameras=policy_config.cameras, image_size=policy_config.image_size, quality=config.render
            ),
            config.max_environments,
        )

    def connect(self, ask: Callable[[Inputs], np.ndarray]) -> None:
        """How to have a decision's logits computed elsewhere."""
        if self.config.inference == "server":
            self._ask = ask

    def update(self, weights: dict[str, np.ndarray]) -> None:
        """New policy weights."""
        self.policy.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})

    @torch.inference_mode()
    def run(self, request: EpisodeRequest) -> Episode:
        """One episode; the same request and weights give the same episode to the bit."""
        start = time.perf_counter()
        rng = np.random.default_rng(request.seed)
        new = request.task not in self.envs
        env = self.envs.get(request.task)
        limit = self.config.max_steps or request.task.max_steps
        record = _Record(request.keep_frames)
        observation = env.reset(request.initial_state)
        true_progress = TrueProgress(env) if self.config.true_progress else None
        noise = LastingNoise(self.policy.action_dim, self.config.noise_persistence)
        n_tokens, action_dim = self.policy.chunk * self.policy.action_dim, self.policy.action_dim
        temperatures = token_temperatures(request.temperature, request.gripper_temperature, n_tokens, action_dim)
        steps, success = 0, False
        while True:
            inputs = self.policy.prepare(observation)
            record.look(observation, self._frame_features(observation, inputs))
            if true_progress is not None:
                record.true_progress.append(true_progress())
            if success or steps >= limit:
                break
            tokens, log_probs = sample_tokens(
                self._logits(inputs),
                temperatures,
                rng,
                self.policy.action_dim,
                self.config.noise_correlation,
                request.median,
                noise.next(rng) if self.config.noise_persistence else None,
            )
            executed = 0
            for action in self.policy.actions(tokens)[: limit - steps]:
                success = env.step(action)
                executed += 1
                if success:
                    break
            steps += executed
            record.decide(inputs, tokens, log_probs, executed)
            observation = env.observe()
        if new:
            _give_memory_back()
        return record.episode(request, success, steps, time.perf_counter() - start)

    def _logits(self, inputs: Inputs) -> np.ndarray:
        if self._ask is not None:
            return self._ask(inputs)
        return self.policy.logits({k: torch.from_numpy(v[None]) for k, v in inputs.items()})[0].numpy()

    def _frame_features(self, observation: Observation, inputs: Inputs) -> np.ndarray | None:
        if self.world_model is None:
            return None
        return self.world_model.frame_features(observation.images["agentview"], inputs)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()


class _Record:
    """An episode while it grows."""

    def __init__(self, keep_frames: bool) -> None:
        self.keep_frames = keep_frames
        self.frames: dict[str, list[np.ndarray]] = {}
        self.features: list[np.ndarray] = []
        self.inputs: list[Inputs] = []
        self.decisions: list[tuple[np.ndarray, np.ndarray, int]] = []
        self.true_progress: list[float] = []

    def look(self, observation: Observation, features: np.ndarray | None) -> None:
        if self.keep_frames:
            for camera, image in observation.images.items():
                self.frames.setdefault(camera, []).append(image)
        if features is not None:
            self.features.append(features)

    def decide(self, inputs: Inputs, tokens: np.ndarray, log_probs: np.ndarray, executed: int) -> None:
        self.inputs.append(inputs)
        self.decisions.append((tokens, log_probs, executed))

    def episode(self, request: EpisodeRequest, success: bool, steps: int, seconds: float) -> Episode:
        tokens, log_probs, executed = zip(*self.decisions, strict=True)
        return Episode(
            request=request,
            success=success,
            n_steps=steps,
            inputs={k: np.stack([i[k] for i in self.inputs]) for k in self.inputs[0]},
            tokens=np.stack(tokens),
            log_probs=np.stack(log_probs),
            executed=np.array(executed, np.int16),
            frames={k: np.stack(v) for k, v in self.frames.items()},
            frame_features=np.stack(self.features) if self.features else None,
            seconds=seconds,
            info={"true_progress": np.array(self.true_progress, np.float32)} if self.true_progress else {},
        )
