"""Does a progress reward measure progress? The published measures, and three that do not hold by construction.

The published ones (SRPO, arXiv 2511.15605, its table of progress rewards) look at progress curves: does progress rise
with time in successes, and does its last value tell successes from failures? Both hold partly by construction: the last
window of a success is its own reference, and windows that grow come nearer to the whole. So we also ask whether the
failures' reward follows true progress (`srpo.evaluation.true_progress`), whether successes and failures are told apart
without knowing which is which, and how much of this the length of the episode alone would give.

Curves and distances come from `srpo.evaluation.progress_curves`, intervals from `srpo.evaluation.intervals`. The paper
names its measures without formulas; those below are the usual ones, each with its source.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist, pdist
from scipy.stats import rankdata

from srpo.evaluation.intervals import rows_by
from srpo.types import SrpoError


def spearman(a: np.ndarray | Sequence[float], b: np.ndarray | Sequence[float]) -> float:
    """Rank correlation: Pearson's correlation of the ranks, ties sharing their mean rank (Spearman 1904).

    Args:
        a, b: (N,) finite floats.

    Returns:
        In [-1, 1]; NaN if there are fewer than 2 values or all of a or of b are equal: then nothing is known.

    Raises:
        SrpoError: shapes differ, or a value is not finite.
    """
    x, y = _paired(a, b)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = rankdata(x), rankdata(y)
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def time_correlation(curves: Sequence[np.ndarray]) -> float:
    """Mean over episodes of the rank correlation of progress with time (the paper's SC, on successes).

    Args:
        curves: (T_i,) progress of each episode. A curve that is constant counts as 0; shorter ones than 2 are left out.

    Returns:
        In [-1, 1]; NaN without an episode.
    """
    values = [spearman(curve, np.arange(len(curve))) for curve in curves if len(curve) >= 2]
    return float(np.mean(np.nan_to_num(values))) if values else float("nan")


def monotonicity(curves: Sequence[np.ndarray]) -> float:
    """Mean over episodes of the share of steps on which progress rises, R_t > R_(t-1) (the paper's Mono).

    Args:
        curves: (T_i,) progress of each episode; shorter ones than 2 are left out.

    Returns:
        In [0, 1]; 0.5 for noise; NaN without an episode.
    """
    values = [float((np.diff(curve) > 0).mean()) for curve in curves if len(curve) >= 2]
    return float(np.mean(values)) if values else float("nan")


def maximum_mean_discrepancy(a: np.ndarray | Sequence[float], b: np.ndarray | Sequence[float]) -> float:
    """Distance of two samples in the feature space of a Gaussian kernel (Gretton et al. 2012, JMLR 13, eq. 5).

    sqrt(mean k(a, a') + mean k(b, b') - 2 mean k(a, b)), k(x, y) = exp(-(x - y)^2 / (2 w^2)), all pairs counted (the
    biased estimate, which is never negative); w is the median distance within the pooled sample (their section 8), or
    the mean one where more than half of the values are equal.

    Args:
        a, b: (N,) and (M,) finite floats, for example final progress of successes and of failures.

    Returns:
        In [0, sqrt 2]; 0 for equal samples; NaN if one is empty.
    """
    x, y = _sample(a)[:, None], _sample(b)[:, None]
    if not len(x) or not len(y):
        return float("nan")
    distances = pdist(np.concatenate([x, y]))
    width = float(np.median(distances)) or float(distances.mean())
    if width == 0.0:
        return 0.0

    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.exp(-0.5 * cdist(p / width, q / width, "sqeuclidean")).mean())

    return float(np.sqrt(max(0.0, kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))))


def jensen_shannon(
    a: np.ndarray | Sequence[float],
    b: np.ndarray | Sequence[float],
    bins: int = 20,
    limits: tuple[float, float] = (0.0, 1.0),
) -> float:
    """Jensen-Shannon divergence of two histograms, in bits (Lin 1991, IEEE Trans. Inf. Theory 37).

    H((p + q) / 2) - (H(p) + H(q)) / 2 with H(p) = -sum p log2 p.

    Args:
        a, b: (N,) and (M,) finite floats; what lies outside of the limits counts in the outermost bins.
        bins: of equal width between the limits.
        limits: of the values; progress lies in [0, 1].

    Returns:
        In [0, 1]: 0 for equal histograms, 1 for ones without a common bin; NaN if a sample is empty.
    """
    x, y = _sample(a), _sample(b)
    if not len(x) or not len(y):
        return float("nan")
    edges = np.linspace(*limits, bins + 1)
    p, q = (np.histogram(np.clip(v, *limits), edges)[0] / len(v) for v in (x, y))

    def entropy(r: np.ndarray) -> float:
        r = r[r > 0]
        return float(-(r * np.log2(r)).sum())

    return max(0.0, entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2)


def standardised_mean_difference(a: np.ndarray | Sequence[float], b: np.ndarray | Sequence[float]) -> float:
    """(mean a - mean b) / sqrt((var a + var b) / 2), Cohen's d (1988, section 2.5), variances with N - 1.

    Args:
        a, b: (N,) and (M,) finite floats.

    Returns:
        0 if the means are equal; infinite if they are not and neither sample varies; NaN if one has fewer than 2.
    """
    x, y = _sample(a), _sample(b)
    if len(x) < 2 or len(y) < 2:
        return float("nan")
    difference = float(x.mean() - y.mean())
    if difference == 0.0:
        return 0.0
    spread = float(np.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2))
    return difference / spread if spread > 0 else float(np.copysign(np.inf, difference))


@dataclass(frozen=True)
class RankCorrelation:
    """A rank correlation over several tasks; NaN where nothing is known.

    Attributes:
        per_task: mean of the tasks' own correlations, each task counted once.
        pooled: of all episodes together.
        tasks: how many had a correlation (2 episodes or more, neither variable constant).
    """

    per_task: float
    pooled: float
    tasks: int


def rank_correlation(
    score: np.ndarray | Sequence[float], truth: np.ndarray | Sequence[float], task: Sequence[Hashable] | np.ndarray
) -> RankCorrelation:
    """Spearman's correlation of failures' reward with their true progress, within tasks and over all of them.

    Within tasks is what training sees: failures are graded against those of the same task. A constant reward has no
    order to compare and leaves its task out, so look at ``tasks`` beside ``per_task``.

    Args:
        score: (N,) reward of failed episodes.
        truth: (N,) their true progress.
        task: (N,).
    """
    x, y = _paired(score, truth)
    values = np.array([spearman(x[rows], y[rows]) for rows in rows_by(task, len(x))])
    known = values[~np.isnan(values)]
    return RankCorrelation(float(known.mean()) if len(known) else float("nan"), spearman(x, y), len(known))


def auc(score: np.ndarray | Sequence[float], success: np.ndarray | Sequence[bool]) -> float:
    """P(score of a success > score of a failure), ties counted half (Mann and Whitney 1947; Hanley and McNeil 1982).

    The score must not know the outcome: take `srpo.evaluation.progress_curves.left_out_distances` with a
    minus, not the reward, which is 1 for every
    success by definition.

    Args:
        score: (N,) finite floats.
        success: (N,) bool.

    Returns:
        In [0, 1], 0.5 for chance; NaN without a success or without a failure.
    """
    x, positive = _paired(score, np.asarray(success, dtype=float))
    won = positive.astype(bool)
    n, m = int(won.sum()), int((~won).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(x)[won].sum() - n * (n + 1) / 2) / (n * m))


def mean_auc(
    score: np.ndarray | Sequence[float], success: np.ndarray | Sequence[bool], task: Sequence[Hashable] | np.ndarray
) -> float:
    """Mean of the tasks' own `auc`, each task counted once; tasks without both outcomes are left out."""
    x, won = _paired(score, np.asarray(success, dtype=float))
    values = np.array([auc(x[rows], won[rows] > 0) for rows in rows_by(task, len(x))])
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")


@dataclass(frozen=True)
class LengthShare:
    """What episode length has to do with a rank correlation; all in ranks, NaN where nothing is known.

    Attributes:
        raw: correlation of score and truth.
        length_alone: correlation of length and truth, with the sign that makes it positive: what a reward made of the
            length could reach.
        without_length: semi-partial correlation: of the truth with that part of the score that length does not give.
        share: 1 - without_length^2 / raw^2, in [0, 1].
    """

    raw: float
    length_alone: float
    without_length: float
    share: float


def length_share(
    score: np.ndarray | Sequence[float],
    truth: np.ndarray | Sequence[float],
    length: np.ndarray | Sequence[float],
) -> LengthShare:
    """Share of the explained variance (of ranks) that is explained by the episode's length alone.

    With r the rank correlations of score (s), truth (t) and length (l), the part of the score that is left when length
    is regressed out correlates with the truth by r_t(s.l) = (r_st - r_sl r_tl) / sqrt(1 - r_sl^2), the semi-partial
    correlation (Cohen et al. 2003, Applied Multiple Regression, section 3.3). Its square is what the score explains
    beyond the length; share = 1 - r_t(s.l)^2 / r_st^2, and 0 where length hid part of the relation.

    The semi-partial correlation and not the partial one, because both squares are then shares of the same variance,
    that of the truth, so that their ratio means something. (The partial one divides by what length leaves of the truth
    as well, and can exceed the raw one for a score that is mostly length.) A constant length explains nothing.

    Args:
        score: (N,) reward of the episodes.
        truth: (N,) true progress, or success as 0 and 1.
        length: (N,) control steps.
    """
    x, y = _paired(score, truth)
    _, z = _paired(score, length)
    raw = spearman(x, y)
    score_length, truth_length = (float(np.nan_to_num(spearman(v, z))) for v in (x, y))
    alone = float("nan") if np.isnan(raw) else abs(truth_length)
    left = 1.0 - score_length**2
    if left < 1e-12:  # the score is the length
        without = 0.0 if not np.isnan(raw) else raw
    else:
        without = (raw - score_length * truth_length) / float(np.sqrt(left))
    share = float(np.clip(1.0 - (without / raw) ** 2, 0.0, 1.0)) if raw else float("nan")
    return LengthShare(raw, alone, without, share)


def _sample(values: np.ndarray | Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise SrpoError("A measure of reward quality needs finite numbers, shape (N,): leave out episodes without one.")
    return array


def _paired(a: np.ndarray | Sequence[float], b: np.ndarray | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = _sample(a), _sample(b)
    if len(x) != len(y):
        raise SrpoError(f"{len(x)} and {len(y)} values cannot be compared: pass one of each per episode.")
    return x, y
