"""Work beside the answer: the student asked unseen (shadow), or the teacher asked (holdout).

It starts only after the client has its last byte, on connections of its own, at most
`shadow_max_in_flight` at once per workload: so it cannot change, delay or fail an answer, not even
by taking the event loop's turn while one is under way. What is over the bound, the day's budget or
an open breaker is dropped and counted, never queued. Tools are recorded, never executed.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Literal, NamedTuple

from proxy.attempt import Attempt, Level
from proxy.budget import Budget, tokens_of
from proxy.decide import Decision
from proxy.message import Head
from proxy.site import InForce, Site
from proxy.upstream import END, Call, Event, Failure
from proxy.view import RequestView
from understudy.errors import SpoolError

log = logging.getLogger(__name__)
IDLE_TIMEOUT_S = 120.0


class Beside(NamedTuple):
    """An answered exchange of which a second attempt is wanted."""

    kind: Literal["shadow", "holdout"]
    now: InForce
    view: RequestView
    decision: Decision
    exchange_id: str
    level: Level
    body: bytes


class Shadows:
    """All second attempts of a worker."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._running: defaultdict[str, set[_Run]] = defaultdict(set)
        self._budget = Budget()
        self._idle: asyncio.Event | None = None

    @property
    def in_flight(self) -> int:
        """Second attempts under way."""
        return sum(map(len, self._running.values()))

    def offer(self, wanted: Beside) -> None:
        """Ask the other arm, if bounds and budget allow; never raises."""
        name = wanted.decision.workload or ""
        try:
            why = self._objection(wanted, name)
            if why is not None:
                self._site.metrics.dropped[name, why] += 1
                return
            _Run(self._site, wanted, self._running[name], self._budget, self._ended).start()
        except Exception as error:
            self._site.metrics.dropped[name, "error"] += 1
            if not isinstance(error, SpoolError):
                log.exception("exchange %s: %s call failed", wanted.exchange_id, wanted.kind)

    def _objection(self, wanted: Beside, name: str) -> str | None:
        rule, now = wanted.decision.rule, wanted.now
        assert rule is not None
        assert rule.student is not None
        if self._site.draining:
            return "draining"
        if len(self._running[name]) >= rule.shadow_max_in_flight:
            return "max_in_flight"
        if wanted.kind == "holdout":
            return None
        limit, price = rule.shadow_usd_per_day, now.config.prices.get(rule.student.model)
        if limit is not None and (price is None or not self._budget.allows(name, limit)):
            return "budget" if price else "no_price"
        breaker = self._site.students.breaker(rule.student)
        return None if breaker.admit(self._site.deadlines.time()) else "breaker_open"

    async def drained(self, within_s: float) -> None:
        """Wait until nothing runs any more, `within_s` at most."""
        if self.in_flight:
            self._idle = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), within_s)

    def _ended(self) -> None:
        if self._idle is not None and not self.in_flight:
            self._idle.set()

    def close(self) -> None:
        """Break off what still runs; each is recorded."""
        for runs in list(self._running.values()):
            for run in list(runs):
                run.stop()


class _Run:
    """One second attempt: listens, records, nothing else."""

    def __init__(
        self,
        site: Site,
        wanted: Beside,
        running: "set[_Run]",
        budget: Budget,
        ended: Callable[[], None],
    ) -> None:
        self._site, self._wanted, self._running, self._budget = site, wanted, running, budget
        self._ended = ended
        self.deadline = inf
        self._call: Call | None = None
        self._answer: list[bytes] = []

    def start(self) -> None:
        wanted, rule = self._wanted, self._wanted.decision.rule
        assert rule is not None
        student = rule.student if wanted.kind == "shadow" else None
        self._attempt = Attempt(
            self._site,
            wanted.now,
            wanted.view,
            wanted.decision,
            exchange_id=wanted.exchange_id,
            student=student,
            role=wanted.kind,
            level=wanted.level,
            body=wanted.body,
            beside=True,
        )
        timeout_s = student.first_byte_timeout_s if student else IDLE_TIMEOUT_S
        self.deadline = self._attempt.started + timeout_s
        self._site.deadlines.add(self)
        self._running.add(self)
        self._call = self._attempt.upstream.call(self._attempt.outgoing, self)

    def receive(self, events: Sequence[Event]) -> None:
        self.deadline = self._site.deadlines.time() + IDLE_TIMEOUT_S
        for event in events:
            if type(event) is bytes:
                self._attempt.add(event)
                self._answer.append(event)
            elif isinstance(event, Head):
                self._attempt.head = event
            elif event is END:
                self._end(None)
            elif isinstance(event, Failure):
                self._end(event)

    def interim(self, head: Head) -> None:
        pass

    def upload_paused(self, paused: bool) -> None:
        pass

    def on_deadline(self) -> None:
        self.stop("timeout")

    def stop(self, kind: Literal["timeout", "closed"] = "closed") -> None:
        """Break it off."""
        if self._call is not None:
            self._call.abort()
        self._end(Failure(kind, "broken off"))

    def _end(self, failure: Failure | None) -> None:
        self._site.deadlines.discard(self)
        self._running.discard(self)
        self._call = None
        attempt, head = self._attempt, self._attempt.head
        if failure is not None:
            outcome: Literal["error", "upstream_abort", "complete"] = (
                "upstream_abort" if head else "error"
            )
        else:
            outcome = "error" if head and head.status >= 400 else "complete"
        attempt.settle_breaker(failure)
        attempt.close(outcome, error_type=attempt.error_type(failure))
        self._charge()
        self._ended()

    def _charge(self) -> None:
        rule, student = self._wanted.decision.rule, self._attempt.student
        if student is None or rule is None or rule.shadow_usd_per_day is None:
            return
        price = self._wanted.now.config.prices.get(student.model)
        if price is not None:
            asked, answered = tokens_of(self._wanted.body, b"".join(self._answer))
            cost = (asked * price.input + answered * price.output) / 1e6
            self._budget.spend(self._wanted.decision.workload or "", cost, time.time())
