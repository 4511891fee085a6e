"""The demo's acts, in order. Each one runs real commands, checks what it claims, notes a fact.

An act raises UnderstudyError when its claim does not hold: a demo that ends has shown everything.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

from deploy.demo.sabotage import swap_for_broken
from deploy.demo.stage import TEACHER_MODEL, WORKLOAD, Stage, until
from deploy.traffic import Application, Background, Call, Sent, send_all
from understudy import documents, triage
from understudy.errors import UnderstudyError
from understudy.policy import PolicyStore
from understudy.views import connect

STUDENT = f"{WORKLOAD}-0001"
STEPS = ("shadow 100 %", "canary 10 %", "canary 50 %", "hybrid", "student")  # as in the file


class Teller(Protocol):
    """Tells the audience what happens: an act's title, its progress, its result."""

    def act(self, title: str) -> None: ...
    def progress(self, done: int, total: int, text: str) -> None: ...
    def result(self, text: str) -> None: ...


@dataclass
class Facts:
    """What the demo measured, for its summary."""

    requests: int = 0
    streams: int = 0
    seconds: float = 0.0
    audit: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    shadow: dict[str, Any] = field(default_factory=dict)
    walk: list[tuple[str, float]] = field(default_factory=list)
    shares: list[tuple[str, int, float]] = field(default_factory=list)
    saved: tuple[float, float] = (0.0, 0.0)
    rollback: dict[str, Any] = field(default_factory=dict)
    failed_calls: int = 0


def play(stage: Stage, requests: int, connections: int, engine: str, tell: Teller) -> Facts:
    """All acts; returns the facts for the summary."""
    facts = Facts()
    _open(stage, tell)
    _log_traffic(stage, requests, connections, facts, tell)
    _distil(stage, facts, tell)
    _judge(stage, engine, facts, tell)
    traffic = _Live(stage, connections)
    try:
        _take_over(stage, traffic, facts, tell)
        _survive(stage, traffic, facts, tell)
    finally:
        traffic.stop()
    _account(stage, traffic, facts, tell)
    return facts


def _open(stage: Stage, tell: Teller) -> None:
    tell.act("A stand-in teacher, and Understudy in front of it")
    stage.start("teacher", "teacher", "--port", str(stage.ports["teacher"]), "--latency-ms", "20")
    stage.wait_for("teacher", "/v1/models", 30)
    stage.start("up", "up", "--console-port", str(stage.ports["console"]))
    stage.wait_for("proxy", "/healthz", 60)
    tell.result(f"proxy {stage.url('proxy')}/v1, console {stage.url('console')}")


def calls(seed: int) -> Iterator[Call]:
    """Tickets without end: 200 users, every third answer a stream."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable demo, no secret
    number = 0
    while True:
        written = triage.ticket(rng)
        request = triage.request(written, TEACHER_MODEL) | {"user": f"user-{rng.randrange(200)}"}
        yield Call(request, number % 3 == 0, triage.answer_text(written.text))
        number += 1


def _log_traffic(stage: Stage, requests: int, connections: int, facts: Facts, tell: Teller) -> None:
    tell.act(f"{requests:,} requests by the real OpenAI client, a third of them streams")
    application = Application(stage.url("proxy") + "/v1")
    source = calls(seed=1)
    started = time.monotonic()
    for sent in send_all(application, [next(source) for _ in range(requests)], connections):
        if sent.error or sent.text != sent.call.expected:
            raise UnderstudyError(f"the proxy changed or lost an answer: {sent}")
        facts.requests += 1
        facts.streams += sent.call.stream
        tell.progress(facts.requests, requests, "answers equal to the teacher's")
    facts.seconds = time.monotonic() - started
    facts.audit = until(lambda: _counted(stage, requests), 60, "the records to reach Parquet")
    tell.result(
        f"{requests:,} answered in {facts.seconds:.0f} s, {facts.audit['stored']:,} records in "
        f"Parquet, {facts.audit['lost']} lost"
    )


def _counted(stage: Stage, requests: int) -> dict[str, Any] | None:
    query = "select count(*), count(distinct exchange_id) from exchanges"
    with connect(stage.lake) as lake:
        rows, exchanges = lake.execute(query).fetchone() or (0, 0)
    if rows < requests:
        return None
    if rows != requests or exchanges != requests:
        raise UnderstudyError(f"{rows} rows of {exchanges} exchanges for {requests} requests")
    return {"stored": rows, "lost": _lost(stage)}


def _lost(stage: Stage) -> int:
    audit = stage.run("logs", "audit")
    if audit["alarms"]:
        raise UnderstudyError(f"the audit says: {audit['alarms']}")
    return sum(spool["lost"] for spool in audit["spools"])


def _distil(stage: Stage, facts: Facts, tell: Teller) -> None:
    tell.act("A dataset from the log, and a LoRA student from the dataset")
    facts.dataset = stage.run("dataset", "build", "--workload", WORKLOAD)
    rows = facts.dataset["rows"]
    tell.result(f"dataset: {rows['train']:,} to learn, {rows['test']:,} to be judged on")
    facts.training = stage.run(
        "train", "--dataset", facts.dataset["path"], "--experiment-name", "demo"
    )
    learnt = facts.training["metrics"]
    tell.result(
        f"student {facts.training['name']}: {learnt['validation_exact']:.1%} of the validation "
        f"tickets exact, {learnt['tokens_per_s']:,.0f} tokens/s"
    )


def _judge(stage: Stage, engine: str, facts: Facts, tell: Teller) -> None:
    tell.act("The student is served, and compared with the teacher on held-out tickets")
    port = str(stage.ports["serve"])
    folder = facts.training["path"]
    stage.start(
        "serve", "serve", "--base", "builtin", "--students", f"{STUDENT}={folder}",
        "--engine", engine, "--port", port,
    )  # fmt: skip
    stage.wait_for("serve", "/v1/models", 600)
    until(lambda: STUDENT in _served(stage), 120, f"the parity probe of {STUDENT}")
    facts.evaluation = stage.run(
        "evaluate", "--workload", WORKLOAD, "--dataset", facts.dataset["path"],
        "--student", STUDENT, "--student-url", stage.url("serve") + "/v1",
    )  # fmt: skip
    if facts.evaluation["verdict"] != "PASS":
        raise UnderstudyError(f"the gate says {facts.evaluation['verdict']}; see the report")
    stage.run("students", "register", folder)
    tell.result(
        f"agreement {facts.evaluation['agreement']:.1%} on {facts.evaluation['n']:,} tickets: "
        f"{facts.evaluation['verdict']}"
    )


def _served(stage: Stage) -> list[str]:
    cards = httpx.get(stage.url("serve") + "/v1/models", timeout=10).json()["data"]
    return [card["id"] for card in cards]


class _Live:
    """The application's traffic from now on, and what the demo sees of it."""

    def __init__(self, stage: Stage, connections: int) -> None:
        self.failed = self.sent = 0
        self.first_error: str | None = None
        application = Application(stage.url("proxy") + "/v1")
        self._traffic = Background(application, calls(seed=2), connections, self._see)

    def stop(self) -> None:
        self._traffic.stop()

    def _see(self, sent: Sent) -> None:
        self.sent += 1
        if sent.error:
            self.failed += 1
            self.first_error = self.first_error or sent.error


def _take_over(stage: Stage, traffic: "_Live", facts: Facts, tell: Teller) -> None:
    tell.act("Shadow, canary, hybrid, student: each step waits for a verdict on live pairs")
    stage.run("rollout", "start", WORKLOAD, "--student", STUDENT)
    since = time.monotonic()
    for number, name in enumerate(STEPS, 1):
        event = _next_event(stage, number)
        if event.state == "rolled_back":
            raise UnderstudyError(f"the rollout went back: {event.reason}")
        now = time.monotonic()
        facts.walk.append((name, now - since))
        since = now
        tell.result(f"{name}: {event.reason}")
        if number == 2:
            stage.run("router", WORKLOAD)
            tell.result("a router was fitted on the pairs so far, for the hybrid step")


def _next_event(stage: Stage, number: int) -> documents.RolloutEvent:
    """The rollout's event after `number` earlier ones."""

    def question() -> documents.RolloutEvent | None:
        events = documents.rollout_events(stage.lake, WORKLOAD)
        return events[number] if len(events) > number else None

    found = until(question, 400, f"the verdict on {STEPS[number - 1]}; see {stage.folder}/logs")
    assert isinstance(found, documents.RolloutEvent)
    return found


def _survive(stage: Stage, traffic: _Live, facts: Facts, tell: Teller) -> None:
    tell.act("A bad deployment: the served student's weights are swapped for broken ones")
    time.sleep(5)  # some traffic in student mode first
    before = time.monotonic()
    swap_for_broken(stage, STUDENT, Path(facts.training["path"]))
    event = until(lambda: _rolled_back(stage), 180, "the rollback")
    decided = time.monotonic() - before
    until(lambda: _teacher_in_force(stage), 30, "the policy to say teacher")
    facts.rollback = {"seconds": decided, "reason": event.reason}
    tell.result(f"back to the teacher after {decided:.0f} s: {event.reason}")


def _rolled_back(stage: Stage) -> documents.RolloutEvent | None:
    events = documents.rollout_events(stage.lake, WORKLOAD)
    return events[-1] if events[-1].state == "rolled_back" else None


def _teacher_in_force(stage: Stage) -> bool:
    policy = PolicyStore(stage.lake).latest()
    return policy is not None and policy.workloads[WORKLOAD].mode == "teacher"


def _account(stage: Stage, traffic: _Live, facts: Facts, tell: Teller) -> None:
    tell.act("The bill")
    stage.stop("up")
    facts.failed_calls = traffic.failed
    total = facts.requests + traffic.sent
    with connect(stage.lake) as lake:
        served = lake.execute("select count(*) from exchanges where served").fetchone()
        facts.shares = _shares(stage, lake.execute(_SHARES).fetchall())
        facts.saved = lake.execute(_SAVED).fetchone() or (0.0, 0.0)
        shadow = lake.execute(_SHADOW).fetchone()
    stored = served[0] if served else 0
    facts.audit = {"offered": total, "stored": stored, "lost": _lost(stage)}
    facts.shadow = dict(zip(("pairs", "agreed"), shadow or (0, 0), strict=True))
    if facts.audit["stored"] != total or traffic.failed:
        raise UnderstudyError(
            f"{total} requests were sent, {facts.audit['stored']} answers are stored, "
            f"{traffic.failed} failed ({traffic.first_error})"
        )
    tell.result(f"{total:,} requests offered, {facts.audit['stored']:,} stored")


def _shares(stage: Stage, rows: list[tuple[int, int, int]]) -> list[tuple[str, int, float]]:
    """(what the policy said, answers served, the student's share), in the order of time."""
    served: dict[str, list[int]] = {}
    for version, answers, student in rows:
        policy = stage.lake.get_json(f"control/policy/{version:010d}.json")
        workload = policy["workloads"][WORKLOAD] if policy else {}
        mode = workload.get("mode", "teacher")
        name = f"canary {workload['weight']:.0f} %" if mode == "canary" else mode
        counted = served.setdefault(name, [0, 0])
        counted[0] += answers
        counted[1] += student
    return [(name, n, student / n) for name, (n, student) in served.items()]


_SHARES = """
select policy_version, count(*), count(*) filter (arm = 'student')
from exchanges where served group by all order by 1
"""
_SAVED = """
with price as (select avg(cost_usd) each from exchanges where arm = 'teacher' and cost_usd > 0)
select sum(cost_usd), (select count(*) * any_value(each) from exchanges, price where served)
from exchanges
"""
_SHADOW = """
select count(*), count(*) filter (teacher_text = student_text)
from pairs where student_role = 'shadow'
"""
