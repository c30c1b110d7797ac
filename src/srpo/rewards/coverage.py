"""Progress by coverage: how many of the moments of a success does an episode have too?

Not in the paper. Its distance compares two whole episodes, and most of what differs between them has nothing to do with
the task: docs/results.md shows that among failures it then says next to nothing about true progress. Here every moment
of the task's successes asks whether the episode has a moment like it: the hand over the bowl, the bowl lifted, the bowl
over the plate. A failure that got half-way has the first half of them. (A Chamfer distance from the successes to the
episode, one way only: what a failure does besides is not held against it.)
"""

from __future__ import annotations

import numpy as np

from srpo.types import SrpoError

#: More successes than these tell nothing new (docs/results.md), and cost time: so many are used, evenly chosen.
MOST_REFERENCES = 16


def covered_progress(moments: np.ndarray, references: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Progress of the growing windows 0..t of an episode: the share of the successes' stages that it has covered.

    With the s-th moments of all R successes as stage s and ``d_s = min over references and moments up to t of the
    squared L2 distance``, a stage is matched by ``m_s = min(1, sigma / d_s)``: wholly if the episode came nearer to it
    than a step of a success. No stage counts without those before it:
    ``p_t = mean_s min_{s' <= s} m_{s'}``, which cannot fall with t.

    Args:
        moments: (T, E) float, in time order.
        references: (R, S, E): S moments of each success, evenly over it, R >= 1.
        scale: sigma; None: `coverage_scale` of the references.

    Returns:
        (T,) float64 in (0, 1].

    Raises:
        SrpoError: no reference, or shapes that do not fit.
    """
    points, known = np.asarray(moments, np.float32), np.asarray(references, np.float32)
    if points.ndim != 2 or known.ndim != 3 or not known.size or points.shape[1] != known.shape[2]:
        raise SrpoError(
            f"Moments {points.shape} and references {known.shape} do not fit: pass (T, E) and (R, S, E), R and S at "
            "least 1."
        )
    sigma = coverage_scale(known) if scale is None else scale
    nearest = np.minimum.accumulate(_distances(points, few(known)).min(1), axis=0)
    matched = np.minimum(1.0, sigma / np.maximum(nearest, sigma * 1e-9))
    return np.minimum.accumulate(matched, axis=1).mean(1)


def coverage_scale(references: np.ndarray) -> float:
    """Sigma: half the mean squared L2 step from one moment of a success to the next (steps of no length left out).

    Args:
        references: (R, S, E) float, R >= 1.

    Returns:
        A number > 0 (1 if nothing ever changes).
    """
    steps = np.square(np.diff(np.asarray(references, np.float32), axis=1)).sum(2)
    return float(steps[steps > 0].mean()) / 2 if (steps > 0).any() else 1.0


def few(references: np.ndarray) -> np.ndarray:
    """`MOST_REFERENCES` of (R, ...) references at most, evenly chosen."""
    chosen = np.linspace(0, len(references) - 1, min(len(references), MOST_REFERENCES)).round().astype(int)
    return references[chosen]


def _distances(points: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(T, R, S) float64 squared L2 distances of (T, E) from (R, S, E), by one matrix product."""
    flat = references.reshape(-1, references.shape[-1])
    squares = np.square(points).sum(1)[:, None] + np.square(flat).sum(1) - 2.0 * (points @ flat.T)
    return np.maximum(squares, 0.0).astype(np.float64).reshape(len(points), *references.shape[:2])
