"""The monitor: reads what is new in the lake, judges students, writes verdicts and a heartbeat.

`tick` is one look; the caller loops. Everything it knows comes from the lake, so that a restart
says the same. A look that failed leaves no heartbeat, and the proxies go to the teacher: a monitor
that cannot see must look dead. After a failure start again with a new Monitor.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from evaluator.pairs import Call, Pair, PairReader
from evaluator.watch import Finding, Point, Rules, Track, Window, window
from understudy import documents, state
from understudy.config import Config, Workload
from understudy.config_file import ConfigFile
from understudy.documents import RolloutEvent, Verdict
from understudy.errors import UnderstudyError
from understudy.lake import Lake
from understudy.policy import Policy, PolicyStore

log = logging.getLogger(__name__)

_POINTS = 500
_GROWTH = 1.5


class _Key(NamedTuple):
    workload: str
    student: str


class Monitor:
    """Watches every workload of the configuration. `clock` gives Unix seconds."""

    def __init__(self, lake: Lake, clock: Callable[[], float] = time.time) -> None:
        self._lake, self._clock = lake, clock
        self._reader = PairReader(lake)
        self._store = PolicyStore(lake)
        self._tracks: dict[_Key, Track] = {}
        self._said: dict[str, list[Verdict]] = {}
        self._policy: Policy | None = None
        self._seen = 0

    def tick(self, config: Config) -> list[Verdict]:
        """Take what is new, write what changed, give a sign of life; the verdicts written."""
        started = self._clock()
        scorers = {name: workload.gate.scorer for name, workload in config.workloads.items()}
        news = self._reader.read(scorers)
        self._policy = self._store.latest()
        pairs, calls = _by_student(news.pairs), _by_student(news.calls)
        self._seen += len(news.pairs)
        written = []
        for name, workload in config.workloads.items():
            events = documents.rollout_events(self._lake, name)
            keys = [key for key in {*self._tracks, *pairs, *calls} if key.workload == name]
            for key in sorted(keys):
                track = self._track(key, workload, events)
                track.take(pairs.get(key, []), calls.get(key, []))
                written += self._speak(key, track, workload, events, started)
            self._draw(name, keys)
        documents.beat(self._lake, "monitor", pairs=self._seen, students=len(self._tracks))
        return written

    def close(self) -> None:
        """Give the lake's connection back."""
        self._reader.close()

    def _track(self, key: _Key, workload: Workload, events: Sequence[RolloutEvent]) -> Track:
        rules, span = self._rules(key, workload), window(events, key.student)
        if key not in self._tracks:
            self._tracks[key] = Track(rules, span)
        self._tracks[key].follow(rules, span)
        return self._tracks[key]

    def _rules(self, key: _Key, workload: Workload) -> Rules:
        gate, guardrails = workload.gate, workload.rollout.guardrails
        rules = Rules(
            margin=gate.margin,
            alpha=gate.alpha,
            error_rate=guardrails.error_rate,
            latency_p95_ms=guardrails.latency_p95_ms,
        )
        policy = self._policy.workloads.get(key.workload) if self._policy else None
        if policy is None or policy.mode != "hybrid":
            return rules
        room = 1 - workload.hybrid.target_quality
        margin = room / max(_student_share(self._lake, key.workload), room, 1e-9)
        return rules._replace(
            margin=min(0.5, max(gate.margin, margin)), threshold=policy.router_threshold
        )

    def _speak(
        self,
        key: _Key,
        track: Track,
        workload: Workload,
        events: Sequence[RolloutEvent],
        started: float,
    ) -> list[Verdict]:
        said = self._history(key.workload)
        new = []
        for finding in track.findings():
            mine = [v for v in said if (v.student, v.signal) == (key.student, finding.signal)]
            span = window(events, key.student)
            if _worth_saying(mine[-1] if mine else None, finding, span, _min_pairs(workload, span)):
                new.append(_verdict(key, finding, mine, span, started))
        # A step that began meanwhile would take this for a verdict on itself: say it next time.
        if new and len(documents.rollout_events(self._lake, key.workload)) != len(events):
            return []
        for verdict in new:
            documents.write_verdict(self._lake, verdict)
        said += new
        return new

    def _history(self, workload: str) -> list[Verdict]:
        if workload not in self._said:
            found = documents.verdicts(self._lake, workload)
            self._said[workload] = [v for v in found if v.kind != "gate"]
        return self._said[workload]

    def _draw(self, workload: str, keys: list[_Key]) -> None:
        """Add the new points of the student that was seen last to the plot's document."""
        if not keys:
            return
        key = max(keys, key=lambda key: self._tracks[key].last_at)
        track = self._tracks[key]
        new, track.points = track.points, []
        name = f"control/monitor/{workload}.json"
        old = (self._lake.get_json(name) or []) if new else []
        newest = old[-1]["at"] if old else -math.inf
        points = old + [_point(p, key.student) for p in new if p.at > newest]
        if len(points) > len(old):
            self._lake.put_json(name, _thinned(points))


class Watch:
    """A monitor over a file that changes and a lake that may fail: crash-only.

    A look that fails throws the monitor away, so that nothing half-read survives it.
    """

    def __init__(self, file: ConfigFile, lake: Path | None = None) -> None:
        self._file, self._folder = file, lake
        self._monitor: Monitor | None = None
        self._root: Path | None = None
        self._complaint = ""

    def look(self) -> list[Verdict]:
        """One look; a failure is logged once, leaves no heartbeat, and gives no verdicts."""
        try:
            written = self.tick()
        except (UnderstudyError, duckdb.Error, OSError) as error:
            if str(error) != self._complaint:
                log.error("%s; no heartbeat until then, so the teacher answers", error)
            self._complaint = str(error)
            self._forget()
            return []
        if self._complaint:
            log.info("all right again")
            self._complaint = ""
        return written

    def tick(self) -> list[Verdict]:
        """One look; errors leave as they are."""
        self._file.poll()
        root = self._folder or self._file.config.lake
        if self._monitor is None or root != self._root:
            self._forget()
            self._monitor, self._root = Monitor(Lake(root)), root
        return self._monitor.tick(self._file.config)

    def _forget(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        self._monitor = None


def _by_student(rows: Sequence[Any]) -> dict[_Key, list[Any]]:
    def key(row: Pair | Call) -> _Key:
        return _Key(row.workload, row.student)

    return {k: list(group) for k, group in groupby(sorted(rows, key=key), key)}


def _student_share(lake: Lake, workload: str) -> float:
    """Share of the traffic that the router in force was calibrated to give to the student."""
    ref = state.current_router(lake, workload)
    artefact = lake.get_json(ref.key) if ref else None
    return float((artefact or {}).get("evidence", {}).get("share", 1.0))


def _min_pairs(workload: Workload, span: Window) -> int:
    steps = workload.rollout.steps
    return steps[span.step].min_pairs if span.step is not None and span.step < len(steps) else 0


def _worth_saying(before: Verdict | None, finding: Finding, span: Window, min_pairs: int) -> bool:
    """A new word, a new window, enough pairs for the step, or half as many rows again."""
    if before is None or before.verdict != finding.verdict:
        return True
    if before.evidence.get("since") != span.since:
        return True
    n = int(before.evidence.get("n", 0))
    return n < min_pairs <= finding.n or finding.n >= _GROWTH * n


def _verdict(
    key: _Key, finding: Finding, before: Sequence[Verdict], span: Window, at: float
) -> Verdict:
    # `pairs` counts on over the steps: what was said before this one, and what it saw itself.
    earlier = [v for v in before if v.at <= span.since]
    pairs = (int(earlier[-1].evidence.get("pairs", 0)) if earlier else 0) + finding.n
    return Verdict(
        workload=key.workload,
        student=key.student,
        kind="monitor" if finding.signal == "agreement" else "guardrail",
        signal=finding.signal,
        verdict=finding.verdict,
        evidence=finding.evidence | {"pairs": pairs},
        at=max(at, span.since + 0.001),  # it rests on rows of the step, so it is later than it
    )


def _point(point: Point, student: str) -> dict[str, Any]:
    return point._asdict() | {"student": student}


def _thinned(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most 500 points: the older half loses every second one, the newest stay."""
    while len(points) > _POINTS:
        half = len(points) // 2
        points = points[:half:2] + points[half:]
    return points
