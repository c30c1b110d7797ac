"""What the rest of the package needs of an environment. It knows nothing of learning."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from srpo.types import InitialState, Observation, Task


class Env(Protocol):
    """One simulated robot cell, at one task."""

    task: Task

    def reset(self, initial_state: InitialState) -> Observation:
        """Put the scene into ``initial_state``, let it settle, and look. The same argument gives the same scene."""
        ...

    def step(self, action: np.ndarray) -> bool:
        """Carry out one action, (7,) floats in [-1, 1]; returns True once the task is solved. Renders nothing."""
        ...

    def observe(self) -> Observation:
        """Look at the scene as it is now (this renders)."""
        ...

    def close(self) -> None:
        """Release the simulator and the GL context."""
        ...
