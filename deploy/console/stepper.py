"""A rollout as steps, from the offline gate to the end: what is behind, where it stands. Pure.

What the rollout waits for is said by the state machine itself, so that page and controller agree.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from deploy.console.numerals import duration
from deploy.rollout.status import Status, StepStatus
from understudy.documents import Verdict

State = Literal["done", "now", "paused", "failed", "next"]
_GATE: dict[str, State] = {"PASS": "done", "FAIL": "failed", "UNDERPOWERED": "paused"}
_STEP: dict[str, State] = {"passed": "done", "rolled back": "failed"}
_CURRENT: dict[str, State] = {"paused": "paused", "done": "done"}


class Node(NamedTuple):
    """One step: its name, state, and a word on it (a verdict, when it was, what is missing)."""

    name: str
    state: State
    note: str


def nodes(status: Status, gate: Verdict | None, now: float) -> list[Node]:
    """The gate and the steps; empty where the file has no rollout."""
    if not status.steps:
        return []
    first = Node("offline gate", "next", "no verdict yet")
    if gate is not None:
        first = Node("offline gate", _GATE[gate.verdict], gate.verdict)
    return [first, *(_node(step, status, now) for step in status.steps)]


def gate_verdict(verdicts: Sequence[Verdict], student: str | None) -> Verdict | None:
    """The newest word of the offline gate on this student."""
    found = [v for v in verdicts if v.kind == "gate" and v.student == student]
    return found[-1] if found else None


def _node(step: StepStatus, status: Status, now: float) -> Node:
    state = _STEP.get(step.state, "next")
    if step.state == "now":
        state = _CURRENT.get(status.state, "now")
        note = status.next if state == "now" else f"{status.state} {_ago(status.since, now)}"
    elif state == "failed":
        note = step.reason
    else:
        note = _ago(step.since, now) if state == "done" else ""
    return Node(step.step, state, note)


def _ago(since: float | None, now: float) -> str:
    return "" if since is None else f"{duration(now - since)} ago"
