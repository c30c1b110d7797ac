"""A training loop on synthetic episodes, for the tests of the trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srpo.learner import LearnerConfig
from srpo.policies.base import sample_tokens, token_temperatures
from srpo.policies.compact import CompactPolicy
from srpo.train_config import TrainConfig
from srpo.trainer import Trainer
from srpo.types import Episode, EpisodeRequest, Task

TASKS = [Task("synthetic", i, f"t{i}", "go", max_steps=4) for i in range(2)]
Make = Callable[[int], CompactPolicy]
Verdict = Callable[[EpisodeRequest, np.ndarray], bool]


def first_action_is_positive(request: EpisodeRequest, tokens: np.ndarray) -> bool:
    return bool(tokens[-1, 0] >= 128)


class FakeCollector:
    """Episodes of two decisions. Their end lies where the first action points, so that progress can be seen."""

    def __init__(self, verdict: Verdict = first_action_is_positive) -> None:
        self.verdict, self.requests = verdict, []  # type: ignore[var-annotated]

    def collect(
        self, policy: Any, requests: Sequence[EpisodeRequest], on_episode: Callable[[Episode], None]
    ) -> list[Episode]:
        self.requests = list(requests)
        episodes = [self.episode(policy, r) for r in requests]
        for e in episodes:
            on_episode(e)
        return episodes

    def episode(self, policy: Any, request: EpisodeRequest) -> Episode:
        scene = np.random.default_rng([request.initial_state.index, request.task.index])
        inputs = {
            "agentview_s8": scene.standard_normal((2, 40, 4, 4)).astype(np.float16),
            "agentview_s16": scene.standard_normal((2, 112, 2, 2)).astype(np.float16),
            "words": np.tile(np.array([450, 3, 0, 0, 0, 0, 0, 0], np.int32), (2, 1)),
            "state": np.zeros((2, 8), np.float32),
        }
        rng = np.random.default_rng(request.seed)
        tokens, log_probs = [], []
        for t in range(2):
            with torch.no_grad():
                logits = policy.logits({k: torch.from_numpy(v[t : t + 1]) for k, v in inputs.items()})[0].numpy()
            temperatures = token_temperatures(
                request.temperature, request.gripper_temperature, len(logits), policy.action_dim
            )
            drawn = sample_tokens(logits, temperatures, rng)
            tokens.append(drawn[0])
            log_probs.append(drawn[1])
            inputs["state"][1:, 0] = drawn[0][0] / 128 - 1  # the second decision sees what the first one did
        where = float(tokens[-1][0]) / 128 - 1
        return Episode(
            request=request,
            success=self.verdict(request, np.stack(tokens)),
            n_steps=4,
            inputs=inputs,
            tokens=np.stack(tokens),
            log_probs=np.stack(log_probs),
            executed=np.full(2, 2, np.int16),
            frame_features=np.array([[0, 1], [where / 2, 1], [where, 1]], np.float32),
        )


class LastFrame:
    """World model: of an episode the features of the last frame, of a frame where the first action points."""

    def __init__(self) -> None:
        self.calls = 0

    def frame_features(self, image: np.ndarray, inputs: Any) -> np.ndarray:
        raise AssertionError("the trainer encodes no frames")

    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        self.calls += 1
        return np.stack([f[-1] for f in features])

    def trace(self, features: np.ndarray) -> np.ndarray:
        return features[:, :1]


CONFIG = TrainConfig(
    groups=4,
    group_size=6,
    clustering="dbscan",
    learner=LearnerConfig(learning_rate=1e-2, epochs=2, minibatch=16),
    seed=1,
)


def trainer(policy: CompactPolicy, run: Path, verdict: Verdict = first_action_is_positive, **changes: Any) -> Trainer:
    config = replace(CONFIG, **changes)
    return Trainer(config, policy, TASKS, FakeCollector(verdict), LastFrame(), run)  # type: ignore[arg-type]
