"""The control documents through which the parts meet: verdicts, signs of life, events, aliases.

All are small JSON files in the lake (see docs/contracts.md). Verdicts and rollout events are only
ever added, so each is read once per Lake; heartbeats and aliases are replaced.
A damaged verdict is left out with one warning and a damaged heartbeat is none (both err to the
teacher's side: nobody is promoted by them); a damaged event or alias is a LakeError.
"""

import logging
import time
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec

from understudy.config import Mode
from understudy.errors import LakeError
from understudy.ids import uuid7
from understudy.lake import Lake

log = logging.getLogger(__name__)
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
    """One transition of a workload's rollout; the highest `n` is its state. `at` in Unix s.

    `mode`, `weight` (percent) and `shadow_sample` are what the state demands of the policy; without
    a mode the file's step of that number does. `forced`: started without a PASS, or once more.
    """

    workload: str
    n: int
    student: str
    state: Literal["running", "paused", "done", "rolled_back", "aborted"]
    step: int
    action: str
    reason: str
    at: float
    mode: Mode | None = None
    weight: float = 0.0
    shadow_sample: float | None = None
    forced: bool = False
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
    later = [key for key in keys if key.rsplit("/", 1)[1] > f"{after}.json"]
    found = [lake.once(key, partial(_verdict, lake, key)) for key in later]
    return [verdict for verdict in found if verdict is not None]


def passed_students(lake: Lake, workload: str) -> frozenset[str]:
    """The students whose newest gate verdict is PASS."""
    newest = {v.student: v.verdict for v in verdicts(lake, workload) if v.kind == "gate"}
    return frozenset(student for student, word in newest.items() if word == "PASS")


def gate_passed(lake: Lake, workload: str, student: str) -> bool:
    """Whether the newest gate verdict on this student is PASS."""
    return student in passed_students(lake, workload)


def beat(lake: Lake, name: str, **detail: Any) -> None:
    """Leave a sign of life."""
    document = Heartbeat(name=name, at=time.time(), detail=detail)
    lake.put(f"control/heartbeats/{name}.json", msgspec.json.encode(document))


def heartbeat(lake: Lake, name: str) -> Heartbeat | None:
    """The newest sign of life, or None."""
    data = lake.get(f"control/heartbeats/{name}.json")
    try:
        return msgspec.json.decode(data, type=Heartbeat) if data else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None  # the next beat replaces it; until then nobody is known to live


def add_rollout_event(lake: Lake, event: RolloutEvent) -> bool:
    """Add transition `n`; False if another controller was first."""
    key = f"control/rollouts/{event.workload}/{event.n:010d}.json"
    return lake.put_if_absent(key, msgspec.json.encode(event))


def rollout_events(lake: Lake, workload: str) -> list[RolloutEvent]:
    """All transitions of the workload's rollouts, oldest first."""
    keys = lake.keys(f"control/rollouts/{workload}", ".json")
    return [lake.once(key, partial(_decode, lake, key, RolloutEvent)) for key in keys]


def aliases(lake: Lake, workload: str) -> Aliases:
    """The workload's aliases; empty where nothing was registered."""
    key = f"control/students/{workload}.json"
    data = lake.get(key)
    return Aliases() if data is None else _decode(lake, key, Aliases, data)


def write_aliases(lake: Lake, workload: str, value: Aliases) -> None:
    """Replace the workload's aliases."""
    lake.put(f"control/students/{workload}.json", msgspec.json.encode(value))


def _verdict(lake: Lake, key: str, data: bytes) -> Verdict | None:
    try:
        return _decode(lake, key, Verdict, data)
    except LakeError as error:
        log.warning("left out: %s", error)
        return None


def _decode(lake: Lake, key: str, kind: type[T], data: bytes) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise LakeError(f"{lake.path(key)}: no {kind.__name__}: {error}; remove it") from error
