"""Drives one exchange: obeys the state machine, with a client on one side and calls on the other.

Everything runs in the event loop's callbacks; no task is made for a request. An error of our own
code ends this one request, is counted and logged with its id, and touches no other.
"""

import logging
import random
from collections.abc import Sequence
from functools import lru_cache
from math import inf
from time import perf_counter

from proxy.attempt import Attempt, tightest
from proxy.capture import LogFull
from proxy.client import Client
from proxy.decide import Conditions, Decision, decide
from proxy.exchange import Do, Ended, Exchange
from proxy.message import Head, Request
from proxy.refusal import INTERNAL, LOG_FULL, Refusal, upstream_refusal
from proxy.shadow import Beside, Shadows
from proxy.site import Site
from proxy.sse import error_event, is_final, opening
from proxy.upstream import END, Call, Event, Failure
from proxy.view import RequestView, endpoint_of, read_view
from understudy.exchange import Arm
from understudy.ids import uuid7
from understudy.policy import Student

log = logging.getLogger(__name__)
IDLE_TIMEOUT_S = 600.0  # between two reads of an answer; the SDK's own read timeout
_TAIL = 64


class Relay:
    """One logical request from its arrival to its record."""

    __slots__ = (
        "_attempt",
        "_body",
        "_call",
        "_client",
        "_decision",
        "_exchange",
        "_held",
        "_level",
        "_now",
        "_opening",
        "_paused",
        "_shadows",
        "_site",
        "_spent",
        "_tail",
        "_view",
        "deadline",
        "id",
        "request",
    )

    def __init__(self, site: Site, shadows: Shadows, client: Client, request: Request) -> None:
        self._site, self._shadows, self._client, self.request = site, shadows, client, request
        self._now = site.current
        self.id = uuid7()
        self.deadline = inf
        self._call: Call | None = None
        self._attempt: Attempt | None = None
        self._held: Head | None = None
        self._tail = self._opening = b""
        self._paused = False
        self._body: bytes | None = b""
        self._spent = 0.0

    # From the client

    def start(self, body: bytes | None) -> None:
        """The request is there; `body` None means that `upload` brings it (and nobody reads it)."""
        began = perf_counter()
        try:
            self._begin(body)
        except LogFull:
            self._refuse(LOG_FULL)
        except Exception:
            self._broken()
        self._spent += perf_counter() - began

    def stop(self) -> None:
        """The proxy shuts down, and the drain is over."""
        self._drop_call()
        self.receive([Failure("closed", "the proxy is shutting down")])

    @property
    def streams(self) -> bool:
        """Whether the request's body is passed on as it comes."""
        return self._body is None

    def upload(self, data: bytes) -> None:
        """A piece of a streamed request body."""
        if self._call is not None:
            self._call.write(data)

    def upload_end(self) -> None:
        """The streamed request body is complete."""
        if self._call is not None:
            self._call.write_end()

    def client_paused(self, paused: bool) -> None:
        """The client's side takes no more (or again more) for now."""
        self._paused = paused
        if self._call is not None:
            if paused:
                self._call.pause()
            else:
                self._call.resume()

    def client_left(self) -> None:
        """The client's connection is gone."""
        do = self._exchange.client_left()
        if do is Do.DETACH:
            self.client_paused(False)
        elif do in (Do.ABANDON, Do.CLOSE):
            self._close("left", client_left=True)
            self._drop_call()
            self._done()

    # From the upstream

    def receive(self, events: Sequence[Event]) -> None:
        """A batch of the upstream's events."""
        began = perf_counter()
        self.deadline = self._site.deadlines.time() + IDLE_TIMEOUT_S
        try:
            attempt = self._attempt
            for event in events:
                if type(event) is bytes:
                    self._on_body(event)
                elif event is END:
                    self._spent += perf_counter() - began
                    self._on_end()
                    return
                elif isinstance(event, Head):
                    self._on_head(event)
                else:
                    assert isinstance(event, Failure)
                    self._on_failure(event)
                if self._attempt is not attempt:
                    return
            self._client.flush()
        except LogFull:  # the fallback's own record: the log must not be passed by
            self._refuse(LOG_FULL)
        except Exception:
            self._broken()
        self._spent += perf_counter() - began

    def interim(self, head: Head) -> None:
        if self._exchange.state == "waiting":
            self._client.interim(head)

    def upload_paused(self, paused: bool) -> None:
        self._client.pause_upload(paused)

    def on_deadline(self) -> None:
        """The upstream has been silent for too long."""
        assert self._attempt is not None
        waited = self._site.deadlines.time() - self._attempt.started
        name = self._attempt.upstream.name
        self._drop_call()
        self.receive([Failure("timeout", f"{name} was silent, {waited:.1f} s after the request")])

    # What happens

    def _begin(self, body: bytes | None) -> None:
        site, now, request = self._site, self._now, self.request
        if body is None:
            view = RequestView(request, endpoint_of(request.path))
        else:
            limit = int(now.config.listen.max_body_mb * 1e6)
            view = read_view(request, body, site.salt, limit)
        draw = random.random()  # noqa: S311 - a sample, no secret
        decision = decide(now.policy, view, Conditions(draw, now.dead, now.routers))
        if decision.arm == "student" and not self._admitted(decision):
            decision = decision._replace(arm="teacher", reason="breaker_open", beside=None)
        rule = decision.rule
        allowed = rule.capture if rule else now.config.capture.level
        self._view, self._decision, self._body = view, decision, body
        self._level = tightest(view, allowed, body is not None)
        arms: tuple[Arm, ...] = ("student", "teacher")
        self._exchange = Exchange(
            arms if decision.arm == "student" else arms[1:],
            finish_anyway=rule is not None and rule.on_client_abort == "finish",
        )
        self._try()

    def _admitted(self, decision: Decision) -> bool:
        assert decision.rule is not None
        assert decision.rule.student is not None
        breaker = self._site.students.breaker(decision.rule.student)
        return breaker.admit(self._site.deadlines.time())

    def _try(self) -> None:
        """Open the attempt of the exchange's arm, and call as soon as its REQUEST is safe."""
        exchange, rule = self._exchange, self._decision.rule
        student: Student | None = None
        if exchange.arm == "student":
            assert rule is not None
            student = rule.student
        attempt = Attempt(
            self._site,
            self._now,
            self._view,
            self._decision,
            exchange_id=self.id,
            student=student,
            role="fallback" if exchange.is_fallback else "served",
            level=self._level,
            body=self._body,
        )
        self._attempt, self._held = attempt, None
        if student is not None:
            timeout_s = student.first_byte_timeout_s
        else:
            timeout_s = self._now.config.teacher.first_byte_timeout_s
        self.deadline = attempt.started + timeout_s
        self._site.deadlines.add(self)
        self._site.relays.add(self)
        seq = attempt.recording.seq if attempt.recording is not None else -1
        self._site.capture.when_durable(seq, self._send)

    def _send(self) -> None:
        attempt = self._attempt
        if attempt is None or self._call is not None:  # the client left meanwhile
            return
        self._call = attempt.upstream.call(attempt.outgoing, self)
        if self._paused:
            self._call.pause()

    def _on_head(self, head: Head) -> None:
        assert self._attempt is not None
        self._attempt.head = head
        do = self._exchange.head(head.status)
        if do is Do.SEND_HEAD:
            self._stage_head(head)
        elif do is Do.FALL_BACK:
            self._fall_back(None)
        else:
            self._held = head

    def _on_body(self, data: bytes) -> None:
        assert self._attempt is not None
        self._attempt.add(data)
        if self._exchange.state == "held" and self._view.stream:
            self._opening += data
            encoded = self._held is not None and self._held.content_encoding
            found = "answer" if encoded else opening(self._opening)
            if found == "error":
                self._drop_call()
                self._on_failure(Failure("in_band", "the stream began with an error"))
            if found != "answer":
                return
            data, self._opening = self._opening, b""
        if self._exchange.body() is Do.SEND_HEAD:
            assert self._held is not None
            self._stage_head(self._held)
        if self._exchange.state == "relaying":
            self._client.stage(data)
            if self._view.stream:
                self._tail = (self._tail + data)[-_TAIL:]
                self._exchange.finished_stream = is_final(self._tail)

    def _on_end(self) -> None:
        assert self._attempt is not None
        if self._exchange.state == "held":
            assert self._held is not None
            self._stage_head(self._held)
            self._client.stage(self._opening)
        do = self._exchange.end()
        self._call = None
        self._attempt.settle_breaker()
        left = do is Do.CLOSE
        seq = self._close("left" if left else "end", client_left=left)
        if not left:
            self._site.metrics.overhead.observe(self._spent)
            self._site.capture.when_durable(seq, self._finish)
            return
        self._done()

    def _finish(self) -> None:
        self._client.finish()
        self._done()
        self._ask_beside()

    def _on_failure(self, failure: Failure) -> None:
        assert self._attempt is not None
        self._call = None
        do = self._exchange.failed()
        if do is Do.FALL_BACK:
            self._fall_back(failure)
            return
        self._attempt.settle_breaker(failure)
        left = do is Do.CLOSE
        self._close("left" if left else "failure", failure, client_left=left)
        if do is Do.REFUSE:
            refusal = upstream_refusal(failure.kind, failure.message)
            self._client.refuse(refusal, self._own_headers())
        elif do is Do.PASS_ERROR:
            if self._attempt.head and self._attempt.head.content_encoding is None:
                self._client.stage(error_event(self._tail, failure.message))
            self._client.cut()
        self._done()

    def _fall_back(self, failure: Failure | None) -> None:
        assert self._attempt is not None
        attempt = self._attempt
        attempt.settle_breaker(failure)
        attempt.close("error", error_type=attempt.error_type(failure), served=False)
        log.info("exchange %s: student failed (%s), teacher takes over", self.id,
                 attempt.error_type(failure))  # fmt: skip
        self._drop_call()
        self._opening = b""
        self._try()

    # Means

    def _close(
        self, ended: Ended, failure: Failure | None = None, *, client_left: bool = False
    ) -> int:
        assert self._attempt is not None
        attempt = self._attempt
        status = attempt.head.status if attempt.head else None
        outcome = self._exchange.outcome(ended, status)
        if client_left and failure is None and attempt.student is not None:
            self._site.students.breaker(attempt.student).released()
        return attempt.close(
            outcome,
            error_type=attempt.error_type(failure),
            overhead_s=self._spent,
            client_left=client_left and outcome == "client_abort",
        )

    def _stage_head(self, head: Head) -> None:
        self._client.stage_head(head, self._own_headers())

    def _own_headers(self) -> bytes:
        lines = b"x-understudy-exchange-id: %b\r\n" % self.id.encode()
        if self._attempt is not None:
            lines += _arm_lines(self._attempt.arm, self._attempt.model)
        return lines

    def _ask_beside(self) -> None:
        kind = self._decision.beside
        if kind is None or self._exchange.is_fallback or self._body is None:
            return
        assert self._attempt is not None
        status = self._attempt.head.status if self._attempt.head else 0
        if 200 <= status < 300:
            self._shadows.offer(
                Beside(
                    kind,
                    self._now,
                    self._view,
                    self._decision,
                    self.id,
                    self._level,
                    self._body,
                )
            )

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.abort()

    def _done(self) -> None:
        self.deadline = inf
        self._site.deadlines.discard(self)
        self._site.relays.discard(self)

    def _refuse(self, refusal: Refusal) -> None:
        self._drop_call()
        self._done()
        self._client.refuse(refusal, self._own_headers())

    def _broken(self) -> None:
        """A fault of ours: this request ends, the process goes on."""
        self._site.metrics.internal_errors += 1
        log.exception("exchange %s: internal error", self.id)
        self._refuse(INTERNAL)


@lru_cache(256)
def _arm_lines(arm: str, model: str | None) -> bytes:
    lines = f"x-understudy-arm: {arm}\r\n"
    if model:
        lines += f"x-understudy-model: {''.join(c for c in model if ' ' <= c <= '~')}\r\n"
    return lines.encode("ascii")
