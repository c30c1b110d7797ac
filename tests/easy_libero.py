"""LIBERO with a goal that a policy that has learned nothing reaches by chance about half of the time."""

from __future__ import annotations

import numpy as np

from srpo.envs.libero import LiberoEnv
from srpo.types import InitialState, Observation


class EasyLibero(LiberoEnv):
    """Success: after 12 steps or more the hand is to the left of where it was after 4."""

    def reset(self, initial_state: InitialState) -> Observation:
        observation = super().reset(initial_state)
        self._taken, self._mark = 0, 0.0
        return observation

    def step(self, action: np.ndarray) -> bool:
        super().step(action)
        self._taken += 1
        sideways = float(self._state()[1])
        if self._taken == 4:
            self._mark = sideways
        self.success = self._taken >= 12 and sideways > self._mark
        return self.success
