"""One upstream call made for an exchange, as the record will show it: opened once, closed once."""

import time
from typing import Literal

from proxy.capture import Recording
from proxy.decide import Decision
from proxy.message import Head
from proxy.site import InForce, Site
from proxy.splice import splice_model
from proxy.upstream import Failure, Outgoing, Upstream
from proxy.view import RequestView
from understudy.exchange import Outcome, RequestMeta, ResponseMeta, Role
from understudy.ids import uuid7
from understudy.policy import Student
from understudy.spool import FrameType

Level = Literal["off", "metadata", "full"]
_LEVELS: tuple[Level, ...] = ("off", "metadata", "full")


class Attempt:
    """The call's facts; the owner feeds it what comes and closes it."""

    __slots__ = (
        "arm",
        "body_events",
        "head",
        "id",
        "model",
        "outgoing",
        "recording",
        "role",
        "site",
        "started",
        "student",
        "ttft_ms",
        "upstream",
        "workload",
    )

    def __init__(
        self,
        site: Site,
        now: InForce,
        view: RequestView,
        decision: Decision,
        *,
        exchange_id: str,
        student: Student | None,
        role: Role,
        level: Level,
        body: bytes | None,
        beside: bool = False,
    ) -> None:
        """Choose the upstream and its body, and append REQUEST (LogFull if that is refused)."""
        self.site, self.role, self.student = site, role, student
        self.workload = decision.workload
        self.id = uuid7()
        self.head: Head | None = None
        self.body_events = 0
        self.ttft_ms: float | None = None
        self.started = site.deadlines.time()
        self.recording: Recording | None = None
        if student is None:
            self.arm: Literal["teacher", "student"] = "teacher"
            self.upstream: Upstream = now.teacher_beside if beside else now.teacher
            self.model = self.upstream.model or view.model
            self.outgoing = Outgoing(view.request, body, view.endpoint)
        else:
            self.arm = "student"
            self.upstream = site.students.upstream(student, beside=beside)
            self.model = student.model
            plain = view.body or b""
            spliced = splice_model(plain, student.model) or plain
            self.outgoing = Outgoing(view.request, spliced, view.endpoint, recoded=plain != body)
        if level != "off":
            meta = self._meta(now, view, decision, exchange_id, level)
            self.recording = site.capture.begin(meta, body or b"")

    def _meta(
        self,
        now: InForce,
        view: RequestView,
        decision: Decision,
        exchange_id: str,
        level: Literal["metadata", "full"],
    ) -> RequestMeta:
        headers = view.headers
        return RequestMeta(
            exchange_id=exchange_id,
            attempt_id=self.id,
            arm=self.arm,
            role=self.role,
            served=self.role in ("served", "fallback"),
            requested_at=time.time_ns() // 1_000_000,
            endpoint=view.endpoint,
            method=view.request.method.decode(),
            path=view.request.path,
            workload=decision.workload,
            conversation_key=view.conversation_key,
            user_hash=view.user_hash,
            key_hash=view.key_hash,
            stream=view.stream,
            model_requested=view.model,
            model_sent=self.model,
            adapter=self.student.model if self.student else None,
            provider=self.upstream.name,
            policy_version=decision.version,
            route_reason="fallback" if self.role == "fallback" else decision.reason,
            bucket=decision.bucket,
            router_score=decision.score,
            prompt_hash=view.prompt_hash,
            store=view.store,
            train_ok=view.store is not False,
            level=level,
            content_type=_text(headers.get(b"content-type")),
            content_encoding=_text(headers.get(b"content-encoding")),
            config_hash=now.policy.config_hash or None,
        )

    def add(self, data: bytes) -> None:
        """A piece of the answer's body."""
        if self.ttft_ms is None:
            self.ttft_ms = (self.site.deadlines.time() - self.started) * 1000
        self.body_events += 1
        if self.recording is not None:
            self.recording.add(data)

    def close(
        self,
        outcome: Outcome,
        *,
        error_type: str | None = None,
        served: bool | None = None,
        overhead_s: float | None = None,
        client_left: bool = False,
    ) -> int:
        """Append RESPONSE or ABORT; returns its sequence number, -1 where nothing is logged."""
        metrics, head = self.site.metrics, self.head
        metrics.attempt(self.workload, self.arm, self.role, outcome)
        if self.recording is None:
            return -1
        meta = ResponseMeta(
            attempt_id=self.id,
            outcome=outcome,
            status=head.status if head else None,
            ttft_ms=self.ttft_ms,
            duration_ms=(self.site.deadlines.time() - self.started) * 1000,
            overhead_us=None if overhead_s is None else round(overhead_s * 1e6, 1),
            client_left_at_event=self.body_events if client_left else None,
            error_type=error_type,
            served=served,
            content_type=head.content_type if head else None,
            content_encoding=head.content_encoding if head else None,
            upstream_request_id=head.request_id if head else None,
        )
        aborted = outcome in ("client_abort", "upstream_abort")
        self.recording.close(meta, FrameType.ABORT if aborted else FrameType.RESPONSE)
        return self.recording.seq

    def error_type(self, failure: Failure | None = None) -> str | None:
        """What failed, in one word: connect, timeout, closed, http_500."""
        if failure is not None:
            return failure.kind
        status = self.head.status if self.head else 200
        return f"http_{status}" if status >= 400 else None

    def settle_breaker(self, failure: Failure | None = None) -> None:
        """Tell the student's breaker how it went; a 4xx is an answer, save those of absence."""
        if self.student is None:
            return
        breaker = self.site.students.breaker(self.student)
        status = self.head.status if self.head else 200
        if failure is not None or status >= 500 or status in (404, 408, 429):
            breaker.failed(self.site.deadlines.time())
        else:
            breaker.succeeded()


def tightest(view: RequestView, allowed: Level, understood: bool) -> Level:
    """The capture level: a request may only tighten what the operator allows."""
    wanted: list[Level] = [allowed]
    asked = view.header("x-understudy-capture")
    if asked == "off":
        wanted.append("off")
    elif asked == "metadata" or not understood:
        wanted.append("metadata")
    return min(wanted, key=_LEVELS.index)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
