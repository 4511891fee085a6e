"""The rollout's state machine: from what is known to promote, finish, roll back or wait. Pure.

Three outcomes everywhere: only a PASS that rests on this step's own pairs promotes, FAIL rolls back
whatever else is true, and everything that is missing (a verdict, pairs, time, the monitor, the
router) means waiting. It reads no clock and no lake; a restart sees the same events and verdicts
and so decides the same.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from understudy.config import Rollout
from understudy.documents import RolloutEvent, Verdict

SIGNAL = "agreement"  # the monitor's signal that a step has to pass
_BEGINNINGS = ("start", "promote", "done")


class Seen(NamedTuple):
    """What is known at `now` (Unix s). `monitor_age_s` is None if it never gave a sign of life."""

    verdicts: Sequence[Verdict]
    now: float
    monitor_age_s: float | None
    max_age_s: float
    router: bool = False


class Decision(NamedTuple):
    """What to do and why; `reason` is a sentence for a person, `evidence` what it rests on."""

    action: Literal["promote", "done", "roll_back", "wait"]
    reason: str
    evidence: dict[str, Any] = {}  # noqa: RUF012 - never changed
    verdict_id: str | None = None


def decide(rollout: Rollout, events: Sequence[RolloutEvent], seen: Seen) -> Decision:
    """The decision on a workload's rollout, given all of its events, oldest first."""
    if not events or events[-1].state in ("rolled_back", "aborted"):
        return Decision("wait", "no rollout runs")
    event = events[-1]
    mine = [v for v in seen.verdicts if v.student == event.student and v.kind != "gate"]
    mine.sort(key=lambda verdict: verdict.at)
    since = step_began(events)
    here = [verdict for verdict in mine if verdict.at > since]
    failures = [verdict for verdict in here if verdict.verdict == "FAIL"]
    if len(failures) >= rollout.failure_limit:
        return _fallen(failures)
    if event.state == "done":
        return Decision("wait", f"{event.student} is champion and stays watched")
    if event.state == "paused":
        return Decision("wait", "paused; `understudy rollout resume` goes on")
    return _missing(rollout, event, seen, since, here) or _judge(rollout, event, mine, here, since)


def watch(student: str, events: Sequence[RolloutEvent], verdicts: Sequence[Verdict]) -> Decision:
    """The decision on a student that serves because the file says so: a newest FAIL ends it.

    Verdicts from before the last event were answered by it (`abort` gives the workload back).
    """
    since = events[-1].at if events else 0.0
    failures = [v for v in newest(student, verdicts, since) if v.verdict == "FAIL"]
    return _fallen(failures) if failures else Decision("wait", "the file's mode is in force")


def step_began(events: Sequence[RolloutEvent]) -> float:
    """When the present step began (Unix s): pausing and resuming begin nothing."""
    return next((e.at for e in reversed(events) if e.action in _BEGINNINGS), 0.0)


def newest(student: str, verdicts: Sequence[Verdict], since: float) -> list[Verdict]:
    """The newest verdict on each signal of this student after `since`, gates left out."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.at)
    signals = {
        (v.kind, v.signal): v
        for v in ordered
        if v.student == student and v.kind != "gate" and v.at > since
    }
    return list(signals.values())


def pairs_of(verdicts: Sequence[Verdict], since: float) -> int:
    """Pairs behind the newest agreement verdict that were seen after `since` (verdicts by time).

    The monitor counts on over the steps, so what it had before is taken off; a count that fell
    means that it began anew.
    """
    counts = [(v.at, int(v.evidence.get("pairs", 0))) for v in verdicts if _is_agreement(v)]
    total = counts[-1][1] if counts else 0
    before = [count for at, count in counts if at <= since]
    return total - before[-1] if before and total >= before[-1] else total


def _missing(
    rollout: Rollout, event: RolloutEvent, seen: Seen, since: float, here: list[Verdict]
) -> Decision | None:
    """What has to be there before a verdict is looked at; None when nothing is missing."""
    if event.step >= len(rollout.steps):
        return Decision("wait", "the file has no such step any more; put it back, or abort")
    if seen.monitor_age_s is None or seen.monitor_age_s > seen.max_age_s:
        age = "never" if seen.monitor_age_s is None else f"{seen.monitor_age_s:.0f} s ago"
        return Decision(
            "wait", f"the monitor is dead (last seen {age}); start `understudy monitor`"
        )
    pause_s, lasted_s = rollout.steps[event.step].pause_s, seen.now - since
    if lasted_s < pause_s:
        return Decision("wait", f"{lasted_s:.0f} of {pause_s:.0f} s of this step have passed")
    following = rollout.steps[event.step + 1 : event.step + 2]
    if following and following[0].hybrid and not seen.router:
        return Decision("wait", f"no router for {event.student}; fit one with `understudy router`")
    failing = [v for v in newest(event.student, here, since) if v.verdict == "FAIL"]
    if failing:
        return Decision("wait", f"{failing[0].signal} says FAIL", _evidence(failing[0]))
    return None


def _judge(
    rollout: Rollout,
    event: RolloutEvent,
    mine: list[Verdict],
    here: list[Verdict],
    since: float,
) -> Decision:
    agreement = [verdict for verdict in here if _is_agreement(verdict)]
    if not agreement:
        return Decision("wait", f"no verdict on {SIGNAL} since this step began")
    verdict, pairs = agreement[-1], pairs_of(mine, since)
    needed = rollout.steps[event.step].min_pairs
    evidence = _evidence(verdict) | {"pairs_in_step": pairs}
    if pairs < needed:
        return Decision("wait", f"{pairs} of {needed} pairs seen in this step", evidence)
    if verdict.verdict != "PASS":
        return Decision("wait", f"{SIGNAL} is {verdict.verdict} after {pairs} pairs", evidence)
    last = event.step + 1 >= len(rollout.steps)
    reason = f"{SIGNAL} PASS on {pairs} pairs of step {event.step + 1}/{len(rollout.steps)}"
    return Decision("done" if last else "promote", reason, evidence, verdict.id)


def _fallen(failures: list[Verdict]) -> Decision:
    verdict = failures[-1]
    times = f" ({len(failures)} FAIL verdicts)" if len(failures) > 1 else ""
    reason = f"{verdict.kind} on {verdict.signal} says FAIL{times}; the teacher answers"
    return Decision("roll_back", reason, _evidence(verdict), verdict.id)


def _is_agreement(verdict: Verdict) -> bool:
    return verdict.kind == "monitor" and verdict.signal == SIGNAL


def _evidence(verdict: Verdict) -> dict[str, Any]:
    return {"signal": verdict.signal, "verdict": verdict.verdict, **verdict.evidence}
