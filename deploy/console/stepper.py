"""A rollout as steps: what is behind, where it stands, what it waits for. Pure.

The steps are the file's, the position is the newest rollout event's; the first node is the offline
gate, which a student passes before any of them.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from deploy.console.control import Point, WorkloadDocuments
from deploy.console.numerals import count, duration, percent
from understudy.config import Step
from understudy.documents import RolloutEvent, Verdict

State = Literal["done", "now", "paused", "failed", "next"]
STOPPED = ("rolled_back", "aborted")


class Node(NamedTuple):
    """One step: its name, state, and a word on it (a verdict, a duration, what is missing)."""

    name: str
    state: State
    note: str


def nodes(
    steps: Sequence[Step], documents: WorkloadDocuments, student: str | None, now: float
) -> list[Node]:
    """The gate and the steps; empty where the file has no rollout."""
    if not steps:
        return []
    event = documents.events[-1] if documents.events else None
    found = [_gate(documents.verdicts, student)]
    for index, step in enumerate(steps):
        state = _state(index, event)
        found.append(Node(step_name(step), state, _note(index, step, state, documents, now)))
    return found


def step_name(step: Step) -> str:
    """'shadow 50 %', 'canary 5 %', 'hybrid', 'student'."""
    if step.shadow is not None:
        return f"shadow {percent(step.shadow)}"
    if step.setWeight is not None:
        return f"canary {percent(step.setWeight / 100)}"
    return "hybrid" if step.hybrid else "student"


def waiting(step: Step, documents: WorkloadDocuments, now: float) -> str:
    """What the current step still waits for, or '' if only its verdict."""
    event = documents.events[-1]
    missing = step.min_pairs - pairs_since(documents.series, event.at)
    if missing > 0:
        return f"waiting for {count(missing)} more pairs"
    remaining = event.at + step.pause_s - now
    return f"pausing for another {duration(remaining)}" if remaining > 0 else ""


def pairs_since(series: Sequence[Point], at: float) -> int:
    """Pairs counted since then; a count that fell was begun anew."""
    if not series or series[-1].at < at:
        return 0
    before = max((point.n for point in series if point.at < at), default=0)
    return series[-1].n - before if series[-1].n >= before else series[-1].n


def gate_verdict(verdicts: Sequence[Verdict], student: str | None) -> Verdict | None:
    """The newest word of the offline gate on this student."""
    found = [v for v in verdicts if v.kind == "gate" and v.student == student]
    return found[-1] if found else None


def _gate(verdicts: Sequence[Verdict], student: str | None) -> Node:
    verdict = gate_verdict(verdicts, student)
    if verdict is None:
        return Node("offline gate", "next", "no verdict yet")
    states: dict[str, State] = {"PASS": "done", "FAIL": "failed", "UNDERPOWERED": "paused"}
    return Node("offline gate", states[verdict.verdict], verdict.verdict)


def _state(index: int, event: RolloutEvent | None) -> State:
    if event is None or event.state == "aborted" or index > event.step:
        return "done" if event is not None and event.state == "done" else "next"
    if event.state == "done" or index < event.step:
        return "done"
    states: dict[str, State] = {"running": "now", "paused": "paused", "rolled_back": "failed"}
    return states[event.state]


def _note(index: int, step: Step, state: State, documents: WorkloadDocuments, now: float) -> str:
    if state == "now":
        return waiting(step, documents, now) or "waiting for its verdict"
    if state in ("paused", "failed"):
        return documents.events[-1].action.replace("_", " ")
    entered = [event.at for event in documents.events if event.step == index]
    return f"{duration(now - entered[0])} ago" if entered and state == "done" else ""
