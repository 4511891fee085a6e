"""Anytime-valid tests: they may be looked at after every pair, for ever, and keep their error rate.

A `RateTest` watches values in [0, 1] (1: the pair disagreed, the call failed, it was too slow)
against a limit on their mean. Three betting processes run over them: evidence that the mean is
below the limit (PASS), that it is above (FAIL), and an e-detector that forgets a good past (FAIL
soon after a change). Nothing here knows pairs, students or the lake; state is a few dozen floats.

The capital of a bettor who stakes a fixed fraction is a nonnegative supermartingale if the claim
he bets against is true, hence (Ville) ever reaches 1/alpha with probability at most alpha; a
mixture over fractions is one too. Waudby-Smith & Ramdas, Estimating means of bounded random
variables by betting, JRSS-B 86 (2024). The detector is the e-SR recursion M <- (M + 1) * factor:
Shin, Ramdas & Rinaldo, E-detectors, New England Journal of Statistics in Data Science 2 (2024).
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from understudy.documents import Word
from understudy.statistics import Interval

# Fractions of the largest stake that cannot go bankrupt. Below a limit the right stake is seldom
# small, above a small limit it often is: even spacing passes 20-30 % sooner than a geometric grid,
# squared spacing still finds a doubled rate, which even spacing misses.
_BELOW = np.arange(1, 21) / 20.5
_ABOVE = 0.98 * (np.arange(1, 17) / 16) ** 2

FALSE_ALARM_EVERY = 100_000
"""Values between false alarms of the change detector, on average at least, at the limit itself."""


class Reading(NamedTuple):
    """What the test says now; an e-value of 1/alpha is proof, for `e_change` its own threshold."""

    verdict: Word
    n: int
    mean: float
    e_pass: float
    e_fail: float
    e_change: float


class RateTest:
    """Is the mean of values in [0, 1] at most `limit`? One-sided alpha each way.

    FAIL stays and beats PASS, and PASS stays until a FAIL: both were proved when they were said.

    >>> test = RateTest(limit=0.02, alpha=0.05)
    >>> test.update([0.0] * 400).verdict, test.update([1.0] * 10).verdict
    ('PASS', 'FAIL')
    """

    def __init__(
        self, limit: float, alpha: float, false_alarm_every: float = FALSE_ALARM_EVERY
    ) -> None:
        assert 0 < limit < 1, limit
        self.limit, self.alpha, self.false_alarm_every = limit, alpha, false_alarm_every
        self._n, self._sum = 0, 0.0
        self._log_pass = np.zeros(len(_BELOW))
        self._log_fail = np.zeros(len(_ABOVE))
        self._log_change = np.full(len(_ABOVE), -np.inf)
        self._best_pass = self._best_fail = self._best_change = 0.0  # logarithms

    def update(self, values: Iterable[float]) -> Reading:
        """Take values in the order in which they came; returns the reading after the last."""
        data = np.asarray(list(values), dtype=np.float64)
        assert ((data >= 0) & (data <= 1)).all(), data
        for start in range(0, len(data), 4096):  # bounds the memory of a long history
            self._bet(data[start : start + 4096])
        return self.reading()

    def reading(self) -> Reading:
        """The verdict on the highest evidence seen so far (Ville's bound allows that)."""
        return Reading(
            verdict=self._verdict(),
            n=self._n,
            mean=self._sum / self._n if self._n else 0.0,
            e_pass=_exp(self._best_pass),
            e_fail=_exp(self._best_fail),
            e_change=_exp(self._best_change),
        )

    def _bet(self, values: NDArray[np.float64]) -> None:
        self._n, self._sum = self._n + len(values), self._sum + float(values.sum())
        excess = values[:, None] - self.limit
        gain = np.cumsum(np.log1p(excess * _ABOVE / self.limit), axis=0)
        log_pass = self._log_pass + np.cumsum(np.log1p(-excess * _BELOW / (1 - self.limit)), axis=0)
        log_fail = self._log_fail + gain
        # M_t = sum over starts s <= t of the factors s..t; the first start carries what was before.
        starts = np.vstack([np.logaddexp(self._log_change, 0), -gain[:-1]])
        log_change = gain + np.logaddexp.accumulate(starts, axis=0)
        self._log_pass, self._log_fail, self._log_change = (
            log_pass[-1],
            log_fail[-1],
            log_change[-1],
        )
        self._best_pass = max(self._best_pass, _best(log_pass))
        self._best_fail = max(self._best_fail, _best(log_fail))
        self._best_change = max(self._best_change, _best(log_change))

    def _verdict(self) -> Word:
        proof = -math.log(self.alpha)
        if self._best_fail >= proof or self._best_change >= math.log(self.false_alarm_every):
            return "FAIL"
        return "PASS" if self._best_pass >= proof else "UNDERPOWERED"


def difference_values(student: ArrayLike, teacher: ArrayLike) -> NDArray[np.float64]:
    """Paired scores in [0, 1] as values for a `RateTest` with limit `difference_limit(margin)`.

    The difference student - teacher lies in [-1, 1]; mapped to [0, 1], more is worse.
    """
    gap = np.asarray(student, dtype=np.float64) - np.asarray(teacher, dtype=np.float64)
    return (1 - gap) / 2


def difference_limit(margin: float) -> float:
    """The limit at which a mean difference is exactly -margin."""
    return (1 + margin) / 2


def confidence_sequence(successes: int, n: int, alpha: float = 0.05) -> Interval:
    """Bounds of a rate that hold at all n at once with probability 1 - alpha, for 0/1 outcomes.

    Inverts the mixture likelihood ratio with a uniform prior (H. Robbins, Statistical methods
    related to the law of the iterated logarithm, Ann. Math. Statist. 41, 1970).

    >>> [round(x, 3) for x in confidence_sequence(95, 100)]
    [0.84, 0.993]
    """
    if n == 0:
        return Interval(0.0, 1.0)
    failures, rate = n - successes, successes / n
    mixture = math.lgamma(successes + 1) + math.lgamma(failures + 1) - math.lgamma(n + 2)

    def refuted(p: float) -> bool:
        if (p <= 0 and successes) or (p >= 1 and failures):
            return True
        log_p = successes * math.log(p) if successes else 0.0
        log_q = failures * math.log1p(-p) if failures else 0.0
        return mixture - log_p - log_q >= math.log(1 / alpha)

    return Interval(_edge(rate, 0.0, refuted), _edge(rate, 1.0, refuted))


def _edge(inside: float, outside: float, refuted: Callable[[float], bool]) -> float:
    if not refuted(outside):
        return outside
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return inside


def _best(log_capital: NDArray[np.float64]) -> float:
    """The highest logarithm, over time (rows), of the mixture over stakes (columns)."""
    top = log_capital.max(axis=1, keepdims=True)
    return float((top[:, 0] + np.log(np.exp(log_capital - top).mean(axis=1))).max())


def _exp(logarithm: float) -> float:
    return math.exp(min(logarithm, 690.0))  # beyond it a float is infinite, which JSON cannot say
