"""Progress by alignment: where along the task's successes does a moment lie?

Not in the paper. Its distance compares whole episodes, and most of what differs between two episodes has nothing to do
with the task: docs/results.md shows that among failures it then says next to nothing about true progress. Here the
successes are a ruler instead: a moment that looks like one two thirds into a success has progress two thirds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from srpo.types import SrpoError

NEIGHBOURS = 3


def aligned_progress(
    moments: np.ndarray, references: Sequence[np.ndarray] | np.ndarray, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """Progress of moments: the mean time of the nearest moments of successes.

    ``p = mean over the k nearest reference moments (squared L2) of their time``, time running evenly from 0 at the
    first moment of a success to 1 at its last.

    Args:
        moments: (T, E) float.
        references: R arrays (S_r, E): the moments of each success in order, R >= 1.
        neighbours: k; all, if there are fewer.

    Returns:
        (T,) float64 in [0, 1].

    Raises:
        SrpoError: no reference, or shapes that do not fit.
    """
    successes = [np.asarray(r, np.float64) for r in references]
    points = np.asarray(moments, np.float64)
    if not successes or points.ndim != 2 or any(r.ndim != 2 or r.shape[1] != points.shape[1] for r in successes):
        shapes = ", ".join(str(r.shape) for r in successes[:3]) or "none"
        raise SrpoError(f"Moments {points.shape} and references {shapes} do not fit: pass (T, E) and (S, E) each.")
    time = np.concatenate([np.linspace(0.0, 1.0, len(r)) for r in successes])
    distance = cdist(points, np.concatenate(successes), "sqeuclidean")
    k = min(neighbours, len(time))
    nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
    return time[nearest].mean(1)
