"""Confidence intervals of what an evaluation measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from srpo.types import SrpoError


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate (E. B. Wilson 1927, J. Am. Stat. Assoc. 22), without continuity
    correction.

    Args:
        successes: 0 <= successes <= n.
        n: episodes; with 0 nothing is known and the interval is (0, 1).
        confidence: in (0, 1), for example 0.95.

    Returns:
        (low, high), both in [0, 1].

    Raises:
        SrpoError: impossible counts or confidence.
    """
    if not 0 <= successes <= n:
        raise SrpoError(f"{successes} successes of {n} episodes is impossible: pass 0 <= successes <= n.")
    z = float(norm.ppf(0.5 + _checked_confidence(confidence) / 2))
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return low, high


def bootstrap_mean(
    values: np.ndarray | Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (B. Efron 1979, Ann. Statist. 7).

    Args:
        values: (N,) finite floats, N >= 1; for training runs, one value per seed.
        confidence: in (0, 1).
        resamples: bootstrap samples.
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        (low, high); equal when N is 1 or all values are.

    Raises:
        SrpoError: no values, values that are not finite, or an impossible confidence.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise SrpoError(
            "The bootstrap needs one or more finite numbers, shape (N,): drop failed runs before averaging."
        )
    if resamples < 1:
        raise SrpoError(f"{resamples} bootstrap samples give no interval: draw 1,000 or more.")
    tail = (1 - _checked_confidence(confidence)) / 2
    rng = np.random.default_rng(seed)
    # In blocks, so that a long list of values does not need resamples * N numbers at once.
    block = max(1, 2_000_000 // len(array))
    means = [
        array[rng.integers(len(array), size=(min(block, resamples - start), len(array)))].mean(1)
        for start in range(0, resamples, block)
    ]
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Interval:
    """A measure and its bootstrap interval.

    Attributes:
        value: on all episodes.
        low, high: percentiles of the resamples.
    """

    value: float
    low: float
    high: float


def stratified_bootstrap(
    measure: Callable[[np.ndarray], float],
    strata: Sequence[Hashable] | np.ndarray,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over episodes, drawn anew within each stratum (Efron and Tibshirani 1993, chapters 8, 13).

    Args:
        measure: (N,) int64 row numbers, some of them repeated -> the measure on these episodes.
        strata: (N,) task of each episode, or task and outcome: each keeps its number of episodes.
        confidence: in (0, 1).
        resamples: bootstrap samples.
        seed: the same seed gives the same interval, and the same resamples to every measure of these episodes.

    Returns:
        Resamples on which the measure is NaN are left out; if they are the half or more, the interval is NaN.

    Raises:
        SrpoError: no episodes, or impossible settings.
    """
    tail = (1 - _checked_confidence(confidence)) / 2
    if not len(strata) or resamples < 1:
        raise SrpoError("The bootstrap needs one or more episodes, and 1,000 resamples or so.")
    groups = rows_by(strata, len(strata))
    rng = np.random.default_rng(seed)
    values = np.array(
        [measure(np.concatenate([g[rng.integers(len(g), size=len(g))] for g in groups])) for _ in range(resamples)]
    )
    value = float(measure(np.arange(len(strata))))
    known = values[~np.isnan(values)]
    if 2 * len(known) <= resamples:
        return Interval(value, float("nan"), float("nan"))
    # The lower and higher neighbours: a mean of two values could be infinity minus infinity.
    return Interval(
        value,
        float(np.quantile(known, tail, method="lower")),
        float(np.quantile(known, 1 - tail, method="higher")),
    )


def rows_by(labels: Sequence[Hashable] | np.ndarray, count: int) -> list[np.ndarray]:
    """Row numbers of each label, in the order in which the labels appear."""
    names = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if len(names) != count:
        raise SrpoError(f"{count} episodes and {len(names)} tasks do not fit: pass one task per episode.")
    rows: dict[Hashable, list[int]] = {}
    for i, name in enumerate(names):
        rows.setdefault(name, []).append(i)
    return [np.array(r, dtype=np.int64) for r in rows.values()]


def _checked_confidence(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise SrpoError(f"A confidence of {confidence} is impossible: pass a number between 0 and 1, such as 0.95.")
    return confidence
