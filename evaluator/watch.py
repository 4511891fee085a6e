"""The monitor's judgement of one student on one workload: three signals, anytime-valid. Pure.

`agreement` asks whether pairs disagree more often than the margin allows, `error_rate` whether
calls fail more often than the guardrail allows, `latency_p95` whether more than 5 % of the answers
take longer than its limit. Each is a `RateTest` and may be read at every look.
Two of them run for each signal: one begins anew with every step of a rollout, so that a PASS rests
on that step's own traffic; one runs over the whole rollout for its change detector, which finds a
late regression within a few pairs however long the good past was.

Which pairs count. Pairs exist only where both were asked: on shadowed requests and on the hold-out,
both drawn by chance and not by what was answered, so that their plain mean is unbiased for the
traffic (a fallback is no pair: it exists because the student failed, and is counted as an error).
In hybrid mode the client gets the student's answer only where the router's score reaches the
threshold: the other pairs get weight 0, and what the student may disagree on among its own share s
of the traffic is (1 - target quality) / s, so that the whole keeps its target.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from evaluator.pairs import Call, Pair
from understudy.documents import RolloutEvent, Word
from understudy.sequential import FALSE_ALARM_EVERY, RateTest, confidence_sequence
from understudy.statistics import wilson

_HISTORY = 200_000
_RECENT, _TIMED = 50, 1000


class Rules(NamedTuple):
    """What a student is held to. `margin` is the share of pairs that may disagree.

    `threshold` is the router's in hybrid mode, else None.
    """

    margin: float
    alpha: float
    error_rate: float
    latency_p95_ms: float | None
    threshold: float | None = None


class Window(NamedTuple):
    """Since when rows count (Unix s): for the step's own test, and for the change detector."""

    step: int | None
    since: float
    rollout_since: float


class Finding(NamedTuple):
    """What a signal says now; `evidence` as it goes into the verdict."""

    signal: str
    verdict: Word
    n: int
    evidence: dict[str, Any]


class Point(NamedTuple):
    """Agreement at one time, over the step's `n` pairs, and over the last few (`recent`)."""

    at: float
    n: int
    agreement: float
    low: float
    high: float
    recent: float


def window(events: Sequence[RolloutEvent], student: str) -> Window:
    """The student's window: a new step, a new rollout or its end begins one, a pause does not."""
    found, before = Window(None, 0.0, 0.0), None
    for event in events:
        if event.student != student:
            before = None
            continue
        begins = before is None or before.state in ("rolled_back", "aborted")
        if event.state == "aborted":  # the file has its say again, with a clean slate
            found = Window(None, event.at, event.at)
        elif begins:
            found = Window(event.step, event.at, event.at)
        elif before and (event.step != before.step or event.state == "done" != before.state):
            found = Window(event.step, event.at, found.rollout_since)
        before = event
    return found


class Signal:
    """One rate with its limit, over the step and over the rollout. Values: (Unix s, 0 or 1)."""

    def __init__(self, name: str, limit: float, alpha: float, span: Window) -> None:
        self.name, self.limit, self.alpha, self._span = name, limit, alpha, span
        self._step, self._long = RateTest(limit, alpha), RateTest(limit, alpha)
        self._first_at = self._last_at = 0.0
        self.recent: deque[float] = deque(maxlen=_RECENT)

    def take(self, values: Sequence[tuple[float, float]]) -> None:
        """Take values in the order of time; those from before the window are ignored."""
        since, began = self._span.since, self._span.rollout_since
        self._long.update(bad for at, bad in values if at >= began)
        mine = [(at, bad) for at, bad in values if at >= since]
        if not mine:
            return
        self._step.update(bad for _, bad in mine)
        self._first_at = self._first_at or mine[0][0]
        self._last_at = mine[-1][0]
        self.recent.extend(bad for _, bad in mine)

    @property
    def n(self) -> int:
        """Values in the step."""
        return self._step.reading().n

    @property
    def bad(self) -> int:
        """How many of them are 1."""
        reading = self._step.reading()
        return round(reading.mean * reading.n)

    def finding(self) -> Finding:
        """The verdict: FAIL of either test, else what the step's own says."""
        step, change = self._step.reading(), self._long.reading().e_change
        changed = change >= FALSE_ALARM_EVERY
        evidence = {
            "n": step.n,
            "limit": self.limit,
            "alpha": self.alpha,
            "e_pass": step.e_pass,
            "e_fail": step.e_fail,
            "e_change": change,
            "e_change_threshold": FALSE_ALARM_EVERY,
            "first_at": self._first_at,
            "last_at": self._last_at,
            "step": self._span.step,
            "since": self._span.since,
        }
        return Finding(self.name, "FAIL" if changed else step.verdict, step.n, evidence)


class Track:
    """All signals of one student on one workload, with enough history to begin a window anew."""

    def __init__(self, rules: Rules, span: Window) -> None:
        self.last_at = 0.0
        self._pairs: deque[tuple[float, float, float | None]] = deque(maxlen=_HISTORY)
        self._calls: deque[Call] = deque(maxlen=_HISTORY)
        self.points: list[Point] = []
        self._begin(rules, span)

    def _begin(self, rules: Rules, span: Window) -> None:
        self._rules, self._span = rules, span
        self._agreement = Signal("agreement", rules.margin, rules.alpha, span)
        self._guardrails = [Signal("error_rate", max(rules.error_rate, 1e-6), rules.alpha, span)]
        if rules.latency_p95_ms is not None:
            self._guardrails.append(Signal("latency_p95", 0.05, rules.alpha, span))

    def follow(self, rules: Rules, span: Window) -> None:
        """Begin anew from the history if rules or window are not what they were."""
        if (rules, span) == (self._rules, self._span):
            return
        self._begin(rules, span)
        self._agreement.take(self._counted(self._pairs))
        self._count(self._calls)

    def take(self, pairs: Sequence[Pair], calls: Sequence[Call]) -> None:
        """Take what is new, each in the order of time, and note points for the plot."""
        scored = [(pair.at, float(not pair.agreed), pair.score) for pair in pairs]
        self._pairs.extend(scored)
        self._calls.extend(calls)
        chunk = max(1, len(scored) // 100)
        for start in range(0, len(scored), chunk):
            self._agreement.take(self._counted(scored[start : start + chunk]))
            self._note(scored[min(start + chunk, len(scored)) - 1][0])
        self._count(calls)
        self.last_at = max([self.last_at, *(p.at for p in pairs), *(c.at for c in calls)])

    def findings(self) -> list[Finding]:
        """What each signal says that has seen anything in its window."""
        found = [self._on_agreement()] + [self._on_guardrail(s) for s in self._guardrails]
        return [finding for finding in found if finding.n]

    def _counted(
        self, scored: Iterable[tuple[float, float, float | None]]
    ) -> list[tuple[float, float]]:
        least = self._rules.threshold
        return [
            (at, bad)
            for at, bad, score in scored
            if least is None or score is None or score >= least
        ]

    def _count(self, calls: Iterable[Call]) -> None:
        counted = list(calls)
        self._guardrails[0].take([(call.at, float(call.failed)) for call in counted])
        limit = self._rules.latency_p95_ms
        if limit is not None:
            timed = [(c.at, float(c.duration_ms > limit)) for c in counted if c.duration_ms]
            self._guardrails[1].take(timed)

    def _note(self, at: float) -> None:
        signal = self._agreement
        if not signal.n:
            return
        low, high = confidence_sequence(signal.n - signal.bad, signal.n, self._rules.alpha)
        recent = 1 - sum(signal.recent) / len(signal.recent)
        self.points.append(Point(at, signal.n, 1 - signal.bad / signal.n, low, high, recent))

    def _on_agreement(self) -> Finding:
        signal, finding = self._agreement, self._agreement.finding()
        low, high = confidence_sequence(signal.n - signal.bad, signal.n, self._rules.alpha)
        agreement = 1 - signal.bad / signal.n if signal.n else 1.0
        more = {
            "agreement": agreement,
            "low": low,
            "high": high,
            "margin": self._rules.margin,
            "router_threshold": self._rules.threshold,
        }
        return finding._replace(evidence=finding.evidence | more)

    def _on_guardrail(self, signal: Signal) -> Finding:
        finding = signal.finding()
        low, high = wilson(signal.bad, signal.n)
        rate = signal.bad / signal.n if signal.n else 0.0
        more: dict[str, Any] = {"rate": rate, "low": low, "high": high}
        if signal.name == "latency_p95":
            latest = itertools.islice(reversed(self._calls), _TIMED)
            times = sorted(call.duration_ms for call in latest if call.duration_ms)
            more |= {"limit_ms": self._rules.latency_p95_ms}
            more |= {"p95_ms": times[int(0.95 * (len(times) - 1))] if times else None}
        return finding._replace(evidence=finding.evidence | more)
