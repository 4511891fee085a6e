"""Transitions of a rollout as events: what the controller decided and what an operator asked for.

Pure: from the events so far to the next one, or a GateError that says why it may not be. `append`
writes one put-if-absent and starts over from the new events if somebody else was first.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from deploy.rollout.machine import Decision
from understudy import documents
from understudy.config import Rollout
from understudy.documents import RolloutEvent
from understudy.errors import GateError
from understudy.lake import Lake
from understudy.state import demand_of

Events = Sequence[RolloutEvent]


class Candidate(NamedTuple):
    """A student that shall go on stage. `passed`: its gate said PASS or none is required."""

    workload: str
    student: str
    passed: bool
    router: bool
    champion: str | None = None


def start(
    rollout: Rollout, events: Events, who: Candidate, force: bool, now: float
) -> RolloutEvent:
    """The first step; GateError if one runs, the gate has not passed or the alpha is spent."""
    if not rollout.steps:
        raise GateError(
            f"workload {who.workload} has no steps; write `rollout: {{steps: [{{shadow: 0.5}}, "
            f"{{setWeight: 5}}, {{student: true}}]}}` into the file"
        )
    if events and events[-1].state in ("running", "paused"):
        raise GateError(
            f"{events[-1].student} is {events[-1].state} at step {events[-1].step + 1} of "
            f"{who.workload}; end it with `understudy rollout abort {who.workload}`"
        )
    if rollout.steps[0].hybrid and not who.router:
        raise GateError(f"no router for {who.student}; fit one with `understudy router`")
    obstacle = _obstacle(events, who)
    if obstacle and not force:
        raise GateError(
            f"{obstacle}; prove another with `understudy evaluate`, or answer for it with --force"
        )
    forced = f" by --force, although {obstacle}" if obstacle else ""
    event = RolloutEvent(
        workload=who.workload,
        n=events[-1].n + 1 if events else 1,
        student=who.student,
        state="running",
        step=0,
        action="start",
        reason=f"operator started {who.student}{forced}",
        at=now,
        forced=obstacle is not None,
        previous_champion=who.champion if who.champion != who.student else None,
        evidence={"by": "operator"},
    )
    return _at_step(event, rollout, 0)


def decided(rollout: Rollout, events: Events, decision: Decision, now: float) -> RolloutEvent:
    """The event that carries out the controller's decision on a running or finished rollout."""
    event = events[-1]
    if decision.action == "roll_back":
        return rolled_back(event.workload, event.student, events, decision, now)
    assert decision.action in ("promote", "done"), decision
    return _forward(rollout, event, decision, now)


def promoted(rollout: Rollout, events: Events, now: float) -> RolloutEvent:
    """The operator's own promotion, without asking for a verdict."""
    event = _ongoing(events, "promote")
    if event.step >= len(rollout.steps):
        raise GateError(f"the file has no step {event.step + 1} any more; put it back, or abort")
    by_hand = Decision("promote", "operator promoted it", {"by": "operator"})
    return _forward(rollout, event, by_hand, now)


def paused(events: Events, now: float) -> RolloutEvent:
    """Traffic stays as it is; only a FAIL moves it."""
    event = _ongoing(events, "pause")
    if event.state == "paused":
        raise GateError(f"{event.workload} is paused already; `understudy rollout resume` goes on")
    return _next(event, now, state="paused", action="pause", reason="operator paused it")


def resumed(events: Events, now: float) -> RolloutEvent:
    """Verdicts count again."""
    if not events or events[-1].state != "paused":
        raise GateError("nothing is paused; see `understudy rollout status`")
    return _next(events[-1], now, state="running", action="resume", reason="operator resumed it")


def aborted(events: Events, now: float) -> RolloutEvent:
    """The rollout ends, or its rollback is lifted: the file decides again."""
    if not events or events[-1].state == "aborted":
        raise GateError("there is no rollout to abort; see `understudy rollout status`")
    return _next(events[-1], now, state="aborted", action="abort", reason="operator aborted it")


def rolled_back(
    workload: str, student: str, events: Events, why: Decision, now: float
) -> RolloutEvent:
    """To the teacher: from any state of a rollout, or where the file made the student serve."""
    last = events[-1] if events else None
    running = last if last and last.state in ("running", "paused", "done") else None
    return RolloutEvent(
        workload=workload,
        n=last.n + 1 if last else 1,
        student=student,
        state="rolled_back",
        step=running.step if running else 0,
        action="roll_back",
        reason=why.reason,
        at=now,
        forced=bool(running and running.forced),
        previous_champion=running.previous_champion if running else None,
        evidence=why.evidence,
        verdict_id=why.verdict_id,
    )


def append(lake: Lake, workload: str, make: Callable[[Events], RolloutEvent]) -> RolloutEvent:
    """Write the transition that `make` derives from the events; starts over if it lost a race."""
    while True:
        event = make(documents.rollout_events(lake, workload))
        if documents.add_rollout_event(lake, event):
            return event


def _obstacle(events: Events, who: Candidate) -> str | None:
    if any(e.state == "rolled_back" and e.student == who.student for e in events):
        return f"{who.student} was rolled back before and has had its try"
    if not who.passed:
        return f"the gate of {who.student} has not passed"
    return None


def _ongoing(events: Events, action: str) -> RolloutEvent:
    if not events or events[-1].state not in ("running", "paused"):
        state = events[-1].state if events else "none was started"
        raise GateError(
            f"no rollout runs ({state}): nothing to {action}; `understudy rollout start`"
        )
    return events[-1]


def _forward(rollout: Rollout, event: RolloutEvent, why: Decision, now: float) -> RolloutEvent:
    step = event.step + 1
    last = step >= len(rollout.steps)
    moved = _next(
        event,
        now,
        state="done" if last else "running",
        action="done" if last else "promote",
        reason=why.reason,
        evidence=why.evidence,
        verdict_id=why.verdict_id,
    )
    return moved if last else _at_step(moved, rollout, step)


def _at_step(event: RolloutEvent, rollout: Rollout, step: int) -> RolloutEvent:
    demand = demand_of(rollout.steps[step])
    return msgspec.structs.replace(
        event, step=step, mode=demand.mode, weight=demand.weight,
        shadow_sample=demand.shadow_sample,
    )  # fmt: skip


def _next(event: RolloutEvent, now: float, **changes: Any) -> RolloutEvent:
    fresh = {"verdict_id": None, "evidence": {"by": "operator"}}
    return msgspec.structs.replace(event, n=event.n + 1, at=now, **(fresh | changes))
