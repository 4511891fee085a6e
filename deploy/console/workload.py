"""A workload as the console shows it: its figures, and its state in one sentence. Pure."""

from typing import Literal, NamedTuple

from deploy.console import plot, stepper
from deploy.console.control import Control, Point, WorkloadDocuments
from deploy.console.headline import headline, next_action
from deploy.console.saving import Saving, measured, saving
from deploy.console.traffic import Arm, Failure, Window
from deploy.rollout.machine import Seen
from deploy.rollout.status import Status, status_of
from understudy.config import Config, Rollout, Workload
from understudy.documents import Heartbeat
from understudy.policy import SERVING_MODES, WorkloadPolicy

Tone = Literal["good", "calm", "wait", "bad"]


class View(NamedTuple):
    """Everything that a workload's card and page show."""

    name: str
    mode: str
    owner: str
    student: str | None
    split: float | None
    suspended: bool
    measured: float | None
    tone: Tone
    headline: list[str]
    agreement: Point | None
    nodes: list[stepper.Node]
    arms: dict[str, Arm]
    saving: Saving
    failures: list[Failure]
    documents: WorkloadDocuments
    agreement_plot: plot.Plot
    request_plot: plot.Plot
    latency_plot: plot.Plot
    empty: str


def alive(beat: Heartbeat | None, now: float, max_age_s: float) -> bool:
    """Whether a sign of life is fresh enough."""
    return beat is not None and now - beat.at <= max_age_s


def view(name: str, control: Control, window: Window, config: Config | None) -> View:
    """The view of one workload from what was read."""
    documents = control.workloads[name]
    policy = control.policy.workloads.get(name) if control.policy else None
    configured = config.workloads.get(name) if config else None
    arms = {arm.arm: arm for arm in window.arms if arm.workload == name}
    student = _student(policy, documents)
    series = [p for p in documents.series if p.student in (None, student)]
    cells = [cell for cell in window.cells if cell.workload == name]
    silent = silence(policy, control, window.now, config)
    status = _status(name, control, configured, config, window.now)
    gate = stepper.gate_verdict(documents.verdicts, student)
    return View(
        name=name,
        mode=policy.mode if policy else "unknown",
        owner=policy.owner if policy else "file",
        student=student,
        split=0.0 if silent else _split(policy),
        suspended=silent is not None,
        measured=measured(arms),
        tone=_tone(policy, status, silent),
        headline=headline(policy, series, status, silent, window.now),
        agreement=series[-1] if series else None,
        nodes=stepper.nodes(status, gate, window.now),
        arms=arms,
        saving=saving(arms),
        failures=[failure for failure in window.failures if failure.workload == name],
        documents=documents,
        agreement_plot=plot.agreement(window, series, _least(documents, configured)),
        request_plot=plot.requests(window, cells),
        latency_plot=plot.latency(window, cells),
        empty=next_action(name, policy, arms, documents),
    )


def silence(
    policy: WorkloadPolicy | None, control: Control, now: float, config: Config | None
) -> str | None:
    """Whose silence keeps the student from answering (the proxy's rule), or None."""
    if policy is None or policy.mode not in SERVING_MODES or not policy.require_monitor:
        return None
    needed = ("monitor", "controller") if policy.owner == "controller" else ("monitor",)
    max_age_s = config.heartbeat_max_age_s if config else 15.0
    beats = control.heartbeats
    return next((n for n in needed if not alive(beats.get(n), now, max_age_s)), None)


def _status(
    name: str, control: Control, configured: Workload | None, config: Config | None, now: float
) -> Status:
    documents, beat = control.workloads[name], control.heartbeats.get("monitor")
    student = documents.events[-1].student if documents.events else None
    seen = Seen(
        verdicts=documents.verdicts,
        now=now,
        monitor_age_s=now - beat.at if beat else None,
        max_age_s=config.heartbeat_max_age_s if config else 15.0,
        router=documents.router is not None and documents.router.student == student,
    )
    rollout = configured.rollout if configured else Rollout()
    return status_of(name, rollout, documents.events, seen)


def _least(documents: WorkloadDocuments, configured: Workload | None) -> float | None:
    """The agreement that is demanded: as the monitor last said, else as the file says."""
    said = [v.evidence.get("margin") for v in documents.verdicts if v.kind == "monitor"]
    margin = said[-1] if said else configured.gate.margin if configured else None
    return 1 - margin if isinstance(margin, int | float) else None


def _student(policy: WorkloadPolicy | None, documents: WorkloadDocuments) -> str | None:
    if policy and policy.student:
        return policy.student.model
    if documents.events and documents.events[-1].state != "aborted":
        return documents.events[-1].student
    return documents.aliases.candidate or documents.aliases.champion


def _split(policy: WorkloadPolicy | None) -> float | None:
    """The student's share by the policy; None where the router decides request by request."""
    if policy is None or policy.mode in ("teacher", "shadow"):
        return 0.0
    if policy.mode == "canary":
        return policy.weight / 100
    return 1.0 if policy.mode == "student" else None


def _tone(policy: WorkloadPolicy | None, status: Status, silent: str | None) -> Tone:
    if silent or status.state == "rolled_back":
        return "bad"
    if status.state == "paused" or policy is None:
        return "wait"
    return "good" if policy.mode in SERVING_MODES else "calm"
