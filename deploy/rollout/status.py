"""A rollout as a person or a program reads it: steps, verdicts, since when, what next. Pure."""

import time
from collections.abc import Sequence

import msgspec

from deploy.rollout.machine import Seen, decide, newest, step_began
from understudy.config import Rollout, Step
from understudy.documents import RolloutEvent, Verdict


class StepStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One step: what it demands; where it was entered, since when (Unix s) and why it was left."""

    step: str
    state: str
    since: float | None = None
    reason: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A workload's rollout. `next` is the sentence that says what happens or is waited for."""

    workload: str
    state: str
    student: str | None
    since: float | None
    reason: str
    next: str
    steps: list[StepStatus]
    verdicts: list[Verdict]


def status_of(
    workload: str, rollout: Rollout, events: Sequence[RolloutEvent], seen: Seen
) -> Status:
    """The status of a workload with or without a rollout."""
    if not events:
        begin = f"`understudy rollout start {workload} --student NAME`"
        hint = begin if rollout.steps else "the file's mode is in force; it has no steps"
        return Status(
            workload=workload, state="none", student=None, since=None, reason="", next=hint,
            steps=_steps(rollout, []), verdicts=[],
        )  # fmt: skip
    event = events[-1]
    return Status(
        workload=workload,
        state=event.state,
        student=event.student,
        since=event.at,
        reason=event.reason,
        next=_next(workload, rollout, events, seen),
        steps=_steps(rollout, events),
        verdicts=newest(event.student, seen.verdicts, step_began(events)),
    )


def table(status: Status, now: float) -> str:
    """The status as text for a terminal."""
    who = f", {status.student}" if status.student else ""
    lines = [f"{status.workload}: {status.state}{who}{_ago(status.since, now)}"]
    lines += [f"  why   {status.reason}"] if status.reason else []
    lines += [f"  next  {status.next}"]
    width = max((len(step.step) for step in status.steps), default=0)
    for number, step in enumerate(status.steps, 1):
        since = _ago(step.since, now)
        lines.append(
            f"  {number:>3}  {step.step:<{width}}  {step.state:<11}{since}  {step.reason}".rstrip()
        )
    for verdict in status.verdicts:
        pairs = verdict.evidence.get("pairs")
        count = f" on {pairs} pairs" if pairs is not None else ""
        lines.append(
            f"  {verdict.kind} {verdict.signal}: {verdict.verdict}{count}{_ago(verdict.at, now)}"
        )
    return "\n".join(lines) + "\n"


def as_json(value: msgspec.Struct) -> str:
    """One line of JSON."""
    return msgspec.json.encode(value).decode() + "\n"


def step_words(step: Step) -> str:
    """A step as the operator reads it."""
    if step.shadow is not None:
        return f"shadow {100 * step.shadow:g} %"
    if step.setWeight is not None:
        return f"canary {step.setWeight:g} %"
    return "hybrid" if step.hybrid else "student"


def _next(workload: str, rollout: Rollout, events: Sequence[RolloutEvent], seen: Seen) -> str:
    if events[-1].state == "rolled_back":
        return f"the teacher answers until `understudy rollout abort {workload}` or a new start"
    if events[-1].state == "aborted":
        return "the file's mode is in force"
    decision = decide(rollout, events, seen)
    waiting = (
        "" if decision.action == "wait" else f"{decision.action} at the controller's next look: "
    )
    return waiting + decision.reason


def _steps(rollout: Rollout, events: Sequence[RolloutEvent]) -> list[StepStatus]:
    walked = _walked(events)
    found = []
    for number, step in enumerate(rollout.steps):
        if number >= len(walked):
            found.append(StepStatus(step=step_words(step), state="to come"))
            continue
        entered, left = walked[number]
        if left is not None:
            word = "passed" if left.action in ("promote", "done") else left.state.replace("_", " ")
        else:
            word = "now"
        found.append(
            StepStatus(
                step=step_words(step),
                state=word,
                since=entered.at,
                reason=left.reason if left else "",
            )
        )
    return found


def _walked(events: Sequence[RolloutEvent]) -> list[tuple[RolloutEvent, RolloutEvent | None]]:
    """For each step of the newest run the event that entered it and the one that left it."""
    walked: list[tuple[RolloutEvent, RolloutEvent | None]] = []
    for event in events:
        if event.action == "start":
            walked = [(event, None)]
        elif event.action in ("promote", "done", "roll_back", "abort") and walked:
            entered, left = walked[-1]
            walked[-1] = (entered, left or event)
            if event.action == "promote":
                walked.append((event, None))
    return walked


def _ago(at: float | None, now: float) -> str:
    if at is None:
        return ""
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    return f"  since {clock} ({max(now - at, 0):.0f} s)"
