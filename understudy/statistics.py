"""Fixed-sample statistics: intervals and tests for rates and for paired binary outcomes.

Pure functions over counts and arrays; what may be looked at every minute is in `sequential.py`.
`alpha` is one-sided everywhere, and an interval's `confidence` two-sided.
Verdicts are PASS, FAIL and UNDERPOWERED: what was not shown is never passed.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from understudy.documents import Word

_NORMAL = NormalDist()


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float


class NonInferiority(NamedTuple):
    """A verdict on `difference` (student minus reference) against -margin, with what it rests on.

    `needed` pairs would show it with power .8 if the truth is as observed; None: no number would.
    """

    verdict: Word
    difference: float
    interval: Interval
    p_pass: float
    p_fail: float
    needed: int | None


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a rate (Newcombe 1998, method 3); [0, 1] where n is 0.

    >>> [round(x, 4) for x in wilson(81, 263)]
    [0.2553, 0.3662]
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z, p = _z(confidence), successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Interval(max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))


def binomial_tail(successes: int, n: int, p: float) -> float:
    """P(X >= successes) for X ~ Binomial(n, p), exactly.

    >>> binomial_tail(2, 2, 0.5)
    0.25
    """
    if successes <= 0:
        return 1.0
    if successes > n or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    k = np.arange(successes, n + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_mass = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    log_mass = log_mass + k * math.log(p) + (n - k) * math.log1p(-p)
    return float(min(1.0, np.exp(log_mass).sum()))


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact one-sided p-value that the first is right more often than the second.

    Arguments are the discordant pairs: only the first right, only the second right.

    >>> round(mcnemar(7, 1), 6)
    0.035156
    """
    return binomial_tail(first_only, first_only + second_only, 0.5)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: below alpha means rejected, family-wise.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def score_statistic(first_only: float, second_only: float, n: float, difference: float) -> float:
    """Tango's score statistic for p(first) - p(second) = `difference` on n pairs; ~ N(0, 1).

    T. Tango, Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design, Statistics in Medicine 17 (1998) 891-908.
    """
    spread = difference * (1 - difference)
    b = -first_only - second_only + (2 * n - first_only + second_only) * difference
    root = math.sqrt(max(0.0, b * b + 8 * n * second_only * spread))
    variance = n * (2 * (root - b) / (4 * n) + spread)
    excess = first_only - second_only - n * difference
    if variance <= 1e-12:
        return 0.0 if abs(excess) < 1e-9 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def paired_interval(
    first_only: float, second_only: float, n: float, confidence: float = 0.95
) -> Interval:
    """Tango's score interval of p(first) - p(second), from the discordant pairs of n.

    >>> [round(x, 3) for x in paired_interval(1, 7, 21)]
    [-0.517, -0.026]
    """
    if n == 0:
        return Interval(-1.0, 1.0)
    z, estimate = _z(confidence), (first_only - second_only) / n

    def end(inside: float, outside: float, wanted: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            value = score_statistic(first_only, second_only, n, middle)
            within = value <= wanted if wanted > 0 else value >= wanted
            inside, outside = (middle, outside) if within else (inside, middle)
        return inside

    return Interval(end(estimate, -1.0, z), end(estimate, 1.0, -z))


def required_pairs(
    discordance: float,
    margin: float,
    alpha: float = 0.05,
    power: float = 0.8,
    difference: float = 0.0,
) -> int | None:
    """Pairs with which a true `difference` is shown to be above -margin; None if it is not.

    >>> [required_pairs(0.05, margin) for margin in (0.01, 0.02, 0.03)]
    [3092, 773, 344]
    """
    room = margin + difference
    if room <= 0:
        return None
    z = _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)
    normal = z * z * (discordance - difference**2) / room**2
    without_error = math.log(alpha) / math.log1p(
        -margin
    )  # below it not even a clean sheet shows it
    return math.ceil(max(normal, without_error))


def agreement_verdict(agreed: int, n: int, margin: float, alpha: float) -> NonInferiority:
    """Is a rate of agreement at least 1 - margin? Exact binomial, one-sided both ways.

    The reference agrees with itself by definition, so `difference` is minus the disagreement.

    >>> agreement_verdict(149, 149, margin=0.02, alpha=0.05).verdict
    'PASS'
    >>> agreement_verdict(148, 148, margin=0.02, alpha=0.05).verdict
    'UNDERPOWERED'
    """
    p_pass = binomial_tail(agreed, n, 1 - margin) if n else 1.0
    p_fail = binomial_tail(n - agreed, n, margin) if n else 1.0
    low, high = wilson(agreed, n)
    rate = (n - agreed) / n if n else 0.0
    difference = 0.0 - rate  # -rate would print a difference of none as -0
    needed = required_pairs(rate, margin, alpha, difference=difference)
    return NonInferiority(
        _word(p_pass, p_fail, alpha),
        difference,
        Interval(low - 1, high - 1),
        p_pass,
        p_fail,
        needed,
    )


def paired_verdict(
    student_only: float, teacher_only: float, n: float, margin: float, alpha: float
) -> NonInferiority:
    """Is the student at most `margin` worse than the teacher, both judged against a gold answer?

    Score test on the discordant pairs (only one of them right) among n pairs, one-sided both ways.

    >>> paired_verdict(20, 20, 1000, margin=0.02, alpha=0.05).verdict
    'PASS'
    >>> paired_verdict(10, 110, 1000, margin=0.02, alpha=0.05).verdict
    'FAIL'
    """
    if n == 0:
        needed = required_pairs(0.0, margin, alpha)
        return NonInferiority("UNDERPOWERED", 0.0, Interval(-1.0, 1.0), 1.0, 1.0, needed)
    z = score_statistic(student_only, teacher_only, n, -margin)
    p_pass, p_fail = _NORMAL.cdf(-z), _NORMAL.cdf(z)
    difference = (student_only - teacher_only) / n
    needed = required_pairs((student_only + teacher_only) / n, margin, alpha, difference=difference)
    interval = paired_interval(student_only, teacher_only, n)
    return NonInferiority(
        _word(p_pass, p_fail, alpha), difference, interval, p_pass, p_fail, needed
    )


def design_effect(values: ArrayLike, clusters: Sequence[str]) -> float:
    """By how much clustering inflates the variance of a mean: divide n by it (Rao & Scott 1992).

    At least 1. Values without any variance show nothing of it: then a cluster counts as one row.
    """
    data = np.asarray(values, dtype=np.float64)
    _, index, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    if len(sizes) == len(data) or len(data) == 0:
        return 1.0
    centred = data - data.mean()
    independent = float((centred**2).sum())
    if independent == 0:
        return float((sizes**2).sum() / len(data))
    sums = np.bincount(index, weights=centred)
    return max(1.0, float((sums**2).sum()) / independent)


def cluster_bootstrap(
    values: ArrayLike, clusters: Sequence[str], confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of a mean, with whole clusters drawn again (2,000 times)."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) == 0:
        return Interval(-math.inf, math.inf)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sizes = np.bincount(index)
    sums = np.bincount(index, weights=data).astype(np.float64)
    means = _resampled(sums, sizes, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _resampled(
    sums: NDArray[np.float64], sizes: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    means = np.empty(2000)
    for i in range(len(means)):  # one draw at a time: 2,000 x n indices would not fit for large n
        drawn = rng.integers(0, len(sums), len(sums))
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    return means


def _word(p_pass: float, p_fail: float, alpha: float) -> Word:
    if p_pass <= alpha:
        return "PASS"
    return "FAIL" if p_fail <= alpha else "UNDERPOWERED"


def _z(confidence: float) -> float:
    return _NORMAL.inv_cdf((1 + confidence) / 2)
