"""The few types that travel through the training loop, with their shapes and units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


class SrpoError(RuntimeError):
    """A problem the user can mend. Its message is one sentence that names the remedy; the CLI prints it and exits 2."""


@dataclass(frozen=True)
class Task:
    """One task of a benchmark: what to do, and how long it may take.

    Attributes:
        suite: benchmark suite, for example ``"libero_object"``.
        index: position of the task in its suite, from 0.
        name: the benchmark's own name of the task.
        instruction: what the policy is told, in natural language.
        max_steps: step limit of an episode (control steps of 50 ms), settle steps excluded.
    """

    suite: str
    index: int
    name: str
    instruction: str
    max_steps: int

    @property
    def id(self) -> str:
        """Unique name, ``suite/index``."""
        return f"{self.suite}/{self.index}"


@dataclass(frozen=True, order=True)
class InitialState:
    """How an episode begins.

    Attributes:
        kind: ``"published"`` for one of the initial states that the benchmark ships (50 a task in LIBERO), or
            ``"sampled"`` for one drawn anew from the task's own placement regions with ``index`` as the seed.
        index: which one.
    """

    kind: str
    index: int


@dataclass
class Observation:
    """What the policy sees at one moment.

    Attributes:
        images: camera name -> (H, W, 3) uint8 RGB, upright and not mirrored.
        state: (8,) float32 proprioception: end-effector position (m, 3), axis-angle (rad, 3), finger positions (m, 2).
        instruction: the task in natural language.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    instruction: str


@dataclass(frozen=True)
class EpisodeRequest:
    """An order for one episode; together with the policy's weights it determines the episode completely.

    Attributes:
        task: task to attempt.
        initial_state: how it begins.
        group: episodes with the same number share task and initial state (a GRPO group).
        seed: seeds the sampling of actions.
        temperature: of the action tokens; 0 is greedy decoding.
        median: take the median of each token's distribution at ``temperature``, instead of sampling.
        keep_frames: keep the camera images of the decision points (for videos and image-based world models).
        gripper_temperature: of the gripper's tokens; None: as the others.
        again: the initial state was chosen because attempts at it failed.
    """

    task: Task
    initial_state: InitialState
    group: int
    seed: int
    temperature: float = 1.0
    median: bool = False
    keep_frames: bool = False
    gripper_temperature: float | None = None
    again: bool = False


@dataclass
class Episode:
    """One finished episode, T decisions long (a decision is a chunk of C actions of A dims).

    Attributes:
        request: what was asked for.
        success: the simulator's verdict.
        n_steps: control steps taken.
        inputs: name -> (T, ...) arrays, what the policy's ``log_prob`` needs at each decision (features, not pixels,
            where the vision backbone is frozen).
        tokens: (T, C * A) int16 action bins, 0 to 255.
        log_probs: (T, C * A) float32 log-probability of each token at sampling time.
        executed: (T,) int16, how many of the C actions were carried out (the episode may end within a chunk).
        frames: camera name -> (T + 1, H, W, 3) uint8, the decision points and the end; empty unless kept.
        frame_features: (T + 1, ...) what the world model keeps of the third-person images (features, or for a video
            model the images themselves), or None.
        seconds: wall-clock time of the rollout.
        info: what else was noted: ``"true_progress"`` (T + 1,) float32 in [0, 1], if it was asked for.
    """

    request: EpisodeRequest
    success: bool
    n_steps: int
    inputs: dict[str, np.ndarray]
    tokens: np.ndarray
    log_probs: np.ndarray
    executed: np.ndarray
    frames: dict[str, np.ndarray] = field(default_factory=dict)
    frame_features: np.ndarray | None = None
    seconds: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)
