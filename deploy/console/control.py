"""The lake's control documents as the console reads them: tolerant, and each immutable file once.

A torn, damaged or unreadable document becomes a sentence in `problems`; it never breaks the page
and never hides its neighbours. Nothing here judges: it says what lies there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from understudy.documents import Aliases, Heartbeat, RolloutEvent, Verdict
from understudy.errors import LakeError
from understudy.lake import Lake
from understudy.policy import Policy
from understudy.state import RouterRef

T = TypeVar("T")
HISTORY = 500  # newest documents of a folder that are looked at
REPORTS = 8  # newest evaluation runs that are offered


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The monitor's estimate at one time: agreement in [0, 1] over `n` pairs, with its interval."""

    at: float
    n: int
    agreement: float
    low: float
    high: float
    student: str | None = None


class SpoolCount(msgspec.Struct, frozen=True, kw_only=True):
    """What the sink has seen of one writer process: frames offered, stored, known to be missing."""

    spool_id: str
    offered: int = 0
    stored: int = 0
    attempts: int = 0
    feedback: int = 0
    gap: int = 0
    lost: int = 0
    open: int = 0
    closed: bool = False


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """The sink's counts for one partition."""

    partition: str
    at: float
    next_offset: int = 0
    lag_seconds: float | None = None
    spools: list[SpoolCount] = []


class Report(NamedTuple):
    """An evaluation report: its folder's name, and the files that a person may open."""

    run: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class WorkloadDocuments:
    """What lies in the lake about one workload; lists oldest first."""

    series: list[Point]
    verdicts: list[Verdict]
    events: list[RolloutEvent]
    aliases: Aliases
    router: RouterRef | None
    reports: list[Report]


@dataclass(frozen=True)
class Control:
    """One look at the control documents. `policies` and `audits` newest first."""

    policies: list[Policy]
    heartbeats: dict[str, Heartbeat]
    audits: list[Audit]
    workloads: dict[str, WorkloadDocuments]
    problems: list[str]

    @property
    def policy(self) -> Policy | None:
        """The policy in force."""
        return self.policies[0] if self.policies else None


class _Folder(Generic[T]):
    """The documents of folders whose files are written once: each is read and decoded once."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._known: dict[str, T] = {}

    def newest(self, lake: Lake, prefix: str, problems: list[str]) -> list[T]:
        """The newest HISTORY documents, oldest first."""
        found = []
        for key in _keys(lake, prefix, problems)[-HISTORY:]:
            if key not in self._known:
                document = _read(lake, key, self._kind, problems)
                if document is None:
                    continue
                self._known[key] = document
            found.append(self._known[key])
        return found


@dataclass
class ControlReader:
    """Reads the documents of a lake again and again; not thread-safe."""

    lake: Lake
    _policies: _Folder[Policy] = field(default_factory=lambda: _Folder(Policy))
    _verdicts: _Folder[Verdict] = field(default_factory=lambda: _Folder(Verdict))
    _events: _Folder[RolloutEvent] = field(default_factory=lambda: _Folder(RolloutEvent))

    def read(self, configured: tuple[str, ...] = ()) -> Control:
        """All of it, for the workloads of the policy, of the file, and of the lake's folders."""
        problems: list[str] = []
        policies = self._policies.newest(self.lake, "control/policy", problems)[::-1]
        names = dict.fromkeys([*configured, *(policies[0].workloads if policies else ())])
        for folder in ("control/verdicts", "control/rollouts", "reports"):
            found = _names(self.lake, folder, problems)
            names |= dict.fromkeys(name for name in found if "." not in name)  # no stray files
        return Control(
            policies=policies,
            heartbeats={beat.name: beat for beat in self._all("control/heartbeats", problems)},
            audits=sorted(
                _each(self.lake, "audit", Audit, problems), key=lambda a: a.at, reverse=True
            ),
            workloads={name: self._workload(name, problems) for name in names},
            problems=problems,
        )

    def _all(self, prefix: str, problems: list[str]) -> Iterator[Heartbeat]:
        return _each(self.lake, prefix, Heartbeat, problems)

    def _workload(self, name: str, problems: list[str]) -> WorkloadDocuments:
        lake = self.lake
        series = _read(lake, f"control/monitor/{name}.json", list[Point], problems)
        aliases = _read(lake, f"control/students/{name}.json", Aliases, problems)
        return WorkloadDocuments(
            series=series or [],
            verdicts=self._verdicts.newest(lake, f"control/verdicts/{name}", problems),
            events=self._events.newest(lake, f"control/rollouts/{name}", problems),
            aliases=aliases or Aliases(),
            router=_read(lake, f"control/routers/{name}/current.json", RouterRef, problems),
            reports=_reports(lake, name, problems),
        )


def _reports(lake: Lake, workload: str, problems: list[str]) -> list[Report]:
    found = []
    for run in _names(lake, f"reports/{workload}", problems)[-REPORTS:]:
        files = _names(lake, f"reports/{workload}/{run}", problems)
        shown = tuple(name for name in ("report.html", "report.json") if name in files)
        if shown:
            found.append(Report(run, shown))
    return found


def _names(lake: Lake, prefix: str, problems: list[str]) -> list[str]:
    return [key.rsplit("/", 1)[1] for key in _keys(lake, prefix, problems, "")]


def _keys(lake: Lake, prefix: str, problems: list[str], suffix: str = ".json") -> list[str]:
    try:
        return list(lake.keys(prefix, suffix))
    except LakeError as error:
        problems.append(str(error))
        return []


def _each(lake: Lake, prefix: str, kind: type[T], problems: list[str]) -> Iterator[T]:
    for key in _keys(lake, prefix, problems):
        document = _read(lake, key, kind, problems)
        if document is not None:
            yield document


def _read(lake: Lake, key: str, kind: Any, problems: list[str]) -> Any:
    try:
        data = lake.get(key)
        return None if data is None else msgspec.json.decode(data, type=kind)
    except (LakeError, msgspec.DecodeError, msgspec.ValidationError) as error:
        problems.append(f"{key} cannot be read ({error}); it is left out here, remove or repair it")
        return None
