"""The reward of plain GRPO: the simulator's verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srpo.types import SrpoError


def sparse_rewards(success: np.ndarray | Sequence[bool]) -> np.ndarray:
    """1 for a success, 0 for a failure.

    Args:
        success: (N,) bool.

    Returns:
        (N,) float64.

    Raises:
        SrpoError: ``success`` is not one value per episode.
    """
    array = np.asarray(success)
    if array.ndim != 1:
        raise SrpoError(f"success has the shape {array.shape}: pass one True or False per episode, shape (N,).")
    return array.astype(bool).astype(np.float64)
