"""The control documents through which the parts meet: verdicts, heartbeats, rollout events, aliases.

All are small JSON files in the lake (see docs/contracts.md). Verdicts and rollout events are only
ever added; heartbeats and aliases are replaced.
"""

import time
from typing import Any, Literal, TypeVar

import msgspec

from understudy.errors import LakeError
from understudy.ids import uuid7
from understudy.lake import Lake

T = TypeVar("T")
Word = Literal["PASS", "FAIL", "UNDERPOWERED"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate, monitor or guardrail says of a student, with its evidence. `at` in Unix s."""

    workload: str
    student: str
    kind: Literal["gate", "monitor", "guardrail"]
    signal: str
    verdict: Word
    evidence: dict[str, Any]
    id: str = msgspec.field(default_factory=uuid7)
    at: float = msgspec.field(default_factory=time.time)
    report: str | None = None


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life: the proxy trusts students only while the monitor gives it."""

    name: str
    at: float
    detail: dict[str, Any] = {}


class RolloutEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One transition of a workload's rollout; the highest `n` is its state. `at` in Unix s."""

    workload: str
    n: int
    student: str
    state: Literal["running", "paused", "done", "rolled_back", "aborted"]
    step: int
    action: str
    reason: str
    at: float
    previous_champion: str | None = None
    verdict_id: str | None = None
    evidence: dict[str, Any] = {}


class Aliases(msgspec.Struct, frozen=True, kw_only=True):
    """The registry's mirror for one workload: alias -> served name, and each student's folder."""

    candidate: str | None = None
    champion: str | None = None
    previous: str | None = None
    students: dict[str, str] = {}


def write_verdict(lake: Lake, verdict: Verdict) -> None:
    """Add a verdict; it is never changed again."""
    lake.put_if_absent(
        f"control/verdicts/{verdict.workload}/{verdict.id}.json", msgspec.json.encode(verdict)
    )


def verdicts(lake: Lake, workload: str, after: str = "") -> list[Verdict]:
    """The workload's verdicts, oldest first; with `after` only those with a later id."""
    keys = lake.keys(f"control/verdicts/{workload}", ".json")
    return [_read(lake, key, Verdict) for key in keys if key.rsplit("/", 1)[1] > f"{after}.json"]


def gate_passed(lake: Lake, workload: str, student: str) -> bool:
    """Whether the newest gate verdict on this student is PASS."""
    found = [v for v in verdicts(lake, workload) if v.kind == "gate" and v.student == student]
    return bool(found) and found[-1].verdict == "PASS"


def beat(lake: Lake, name: str, **detail: Any) -> None:
    """Leave a sign of life."""
    document = Heartbeat(name=name, at=time.time(), detail=detail)
    lake.put(f"control/heartbeats/{name}.json", msgspec.json.encode(document))


def heartbeat(lake: Lake, name: str) -> Heartbeat | None:
    """The newest sign of life, or None."""
    key = f"control/heartbeats/{name}.json"
    return _read(lake, key, Heartbeat) if lake.get(key) is not None else None


def add_rollout_event(lake: Lake, event: RolloutEvent) -> bool:
    """Add transition `n`; False if another controller was first."""
    key = f"control/rollouts/{event.workload}/{event.n:010d}.json"
    return lake.put_if_absent(key, msgspec.json.encode(event))


def rollout_events(lake: Lake, workload: str) -> list[RolloutEvent]:
    """All transitions of the workload's rollouts, oldest first."""
    keys = lake.keys(f"control/rollouts/{workload}", ".json")
    return [_read(lake, key, RolloutEvent) for key in keys]


def aliases(lake: Lake, workload: str) -> Aliases:
    """The workload's aliases; empty where nothing was registered."""
    key = f"control/students/{workload}.json"
    return _read(lake, key, Aliases) if lake.get(key) is not None else Aliases()


def write_aliases(lake: Lake, workload: str, value: Aliases) -> None:
    """Replace the workload's aliases."""
    lake.put(f"control/students/{workload}.json", msgspec.json.encode(value))


def _read(lake: Lake, key: str, kind: type[T]) -> T:
    data = lake.get(key)
    try:
        return msgspec.json.decode(data or b"", type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise LakeError(f"{lake.path(key)}: no {kind.__name__}: {error}; remove it") from error
