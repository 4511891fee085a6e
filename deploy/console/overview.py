"""The state of the whole installation: alerts, signs of life, records, totals. Pure."""

from typing import Literal, NamedTuple

from deploy.console import workload
from deploy.console.control import Audit, Control
from deploy.console.numerals import count, duration
from deploy.console.saving import Saving
from deploy.console.traffic import Arm, Window
from understudy.config import Config
from understudy.policy import SERVING_MODES

EXPECTED = ("monitor", "controller")
ALERTED_S = 3_600  # a rollback is news for so long; its workload's card says it on


class Alert(NamedTuple):
    """Something that a person should see before anything else."""

    tone: Literal["bad", "wait"]
    title: str
    text: str


class Beat(NamedTuple):
    """A process's sign of life. `age_s` is None where it never gave one."""

    name: str
    alive: bool
    age_s: float | None


class Records(NamedTuple):
    """What the proxies offered to the log and what the lake holds, over all partitions."""

    offered: int
    stored: int
    attempts: int
    open: int
    gap: int
    lost: int
    lag_s: float | None
    audited_at: float


class Overview(NamedTuple):
    """Everything that the first page shows. `other` is traffic that matched no workload."""

    alerts: list[Alert]
    workloads: list[workload.View]
    other: list[Arm]
    beats: list[Beat]
    records: Records | None
    requests: int
    per_minute: float
    moved: float | None
    failed: int
    failed_share: float | None
    saving: Saving
    control: Control
    window: Window


def overview(
    control: Control, window: Window, config: Config | None, config_problem: str | None
) -> Overview:
    """Put together what was read."""
    views = [workload.view(name, control, window, config) for name in control.workloads]
    beats = _beats(control, window.now, config)
    answered = sum(arm.served for arm in window.arms)
    attempts = sum(arm.attempts for arm in window.arms)
    failed = sum(arm.failed for arm in window.arms)
    by_student = sum(arm.served for arm in window.arms if arm.arm == "student")
    return Overview(
        alerts=_alerts(control, window, views, beats, config_problem),
        workloads=views,
        other=[arm for arm in window.arms if arm.workload not in control.workloads],
        beats=beats,
        records=records(control.audits),
        requests=answered,
        per_minute=answered / max(1.0, window.now - window.since) * 60,
        moved=by_student / answered if answered else None,
        failed=failed,
        failed_share=failed / attempts if attempts else None,
        saving=_sum([view.saving for view in views]),
        control=control,
        window=window,
    )


def records(audits: list[Audit]) -> Records | None:
    """The sum over partitions; None before the collector's first word."""
    if not audits:
        return None
    spools = [spool for audit in audits for spool in audit.spools]
    # The lag of a writer that is gone says nothing of now.
    living = [audit for audit in audits if not all(spool.closed for spool in audit.spools)]
    lags = [audit.lag_seconds for audit in living if audit.lag_seconds is not None]
    return Records(
        offered=sum(spool.offered for spool in spools),
        stored=sum(spool.stored for spool in spools),
        attempts=sum(spool.attempts for spool in spools),
        open=sum(spool.open for spool in spools),
        gap=sum(spool.gap for spool in spools),
        lost=sum(spool.lost for spool in spools),
        lag_s=max(lags, default=None),
        audited_at=max(audit.at for audit in audits),
    )


def _beats(control: Control, now: float, config: Config | None) -> list[Beat]:
    max_age_s = config.heartbeat_max_age_s if config else 15.0
    names = [*EXPECTED, *sorted(set(control.heartbeats) - set(EXPECTED))]
    found = []
    for name in names:
        beat = control.heartbeats.get(name)
        age_s = max(0.0, now - beat.at) if beat else None
        found.append(Beat(name, workload.alive(beat, now, max_age_s), age_s))
    return found


def _alerts(
    control: Control,
    window: Window,
    views: list[workload.View],
    beats: list[Beat],
    config_problem: str | None,
) -> list[Alert]:
    alerts = [*_silence(control, beats), *_rolled_back(control, window.now)]
    found = records(control.audits)
    if found and found.lost:
        text = f"{count(found.lost)} frames are missing; `understudy logs audit` names them."
        alerts.append(Alert("bad", "Records lost", text))
    said = [config_problem, window.problem, *control.problems]
    alerts += [Alert("wait", "Cannot be read", problem) for problem in said if problem]
    return alerts


def _silence(control: Control, beats: list[Beat]) -> list[Alert]:
    policies = list(control.policy.workloads.values()) if control.policy else []
    obeying = [p for p in policies if p.mode in SERVING_MODES and p.require_monitor]
    driven = [p for p in obeying if p.owner == "controller"]
    newest = [d.events[-1] for d in control.workloads.values() if d.events]
    running = any(event.state == "running" for event in newest)
    alerts = []
    for beat in beats:
        silent = "was never seen" if beat.age_s is None else f"silent for {duration(beat.age_s)}"
        if beat.alive:
            continue
        if beat.name == "monitor" and obeying:
            text = "The teacher answers everything until it is back: `understudy monitor`."
            alerts.append(Alert("bad", f"Monitor {silent}", text))
        elif beat.name == "monitor" and any(p.mode == "shadow" for p in policies):
            text = "Pairs are logged, but nobody judges them: `understudy monitor`."
            alerts.append(Alert("wait", f"Monitor {silent}", text))
        elif beat.name == "controller" and driven:
            text = "The teacher answers in its workloads until it is back: `understudy controller`."
            alerts.append(Alert("bad", f"Controller {silent}", text))
        elif beat.name == "controller" and running:
            text = "No rollout moves until it is back: `understudy controller`."
            alerts.append(Alert("bad", f"Controller {silent}", text))
    return alerts


def _rolled_back(control: Control, now: float) -> list[Alert]:
    alerts = []
    for name, documents in control.workloads.items():
        event = documents.events[-1] if documents.events else None
        if event and event.state == "rolled_back" and now - event.at < ALERTED_S:
            title = f"{name}: {event.student} rolled back {duration(now - event.at)} ago"
            alerts.append(Alert("bad", title, event.reason))
    return alerts


def _sum(savings: list[Saving]) -> Saving:
    """Totals; a workload without known prices leaves its side unknown only if none is known."""
    avoided = [saving.avoided for saving in savings if saving.avoided is not None]
    known = all(saving.own is not None for saving in savings)
    own = sum(saving.own or 0.0 for saving in savings) if known else None
    return Saving(sum(avoided) if avoided else None, own)
