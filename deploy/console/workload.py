"""A workload as the console shows it: its figures, and its state in one sentence. Pure."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from deploy.console import plot, stepper
from deploy.console.control import Control, Point, WorkloadDocuments
from deploy.console.numerals import count, duration, interval, percent
from deploy.console.traffic import Arm, Failure, Window
from deploy.rollout.machine import Seen
from deploy.rollout.status import Status, status_of
from understudy.config import Config, Rollout, Workload
from understudy.documents import Heartbeat
from understudy.policy import SERVING_MODES, WorkloadPolicy

Tone = Literal["good", "calm", "wait", "bad"]


class Saving(NamedTuple):
    """What the student's answers would have cost at the teacher, and what they did cost.

    `own` are all calls to the student and those to the teacher that no client saw; None if the
    student has no price. Over one window.
    """

    avoided: float | None
    own: float | None

    @property
    def net(self) -> float | None:
        """What was saved; None where one side is unknown."""
        return None if self.avoided is None or self.own is None else self.avoided - self.own


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
        headline=_headline(policy, series, status, silent, window.now),
        agreement=series[-1] if series else None,
        nodes=stepper.nodes(status, gate, window.now),
        arms=arms,
        saving=saving(arms),
        failures=[failure for failure in window.failures if failure.workload == name],
        documents=documents,
        agreement_plot=plot.agreement(window, series, _least(documents, configured)),
        request_plot=plot.requests(window, cells),
        latency_plot=plot.latency(window, cells),
        empty=_next_action(name, policy, arms, documents),
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


def measured(arms: dict[str, Arm]) -> float | None:
    """Share of the answers that came from the student; None without any."""
    total = sum(arm.served for arm in arms.values())
    return arms["student"].served / total if "student" in arms and total else 0.0 if total else None


def saving(arms: dict[str, Arm]) -> Saving:
    """Teacher cost avoided, and the cost of having the student, within the window."""
    teacher, student = arms.get("teacher"), arms.get("student")
    if student is None:
        return Saving(0.0, 0.0)
    known = teacher is not None and teacher.priced > 0 and teacher.cost_usd is not None
    if teacher is None or not known or teacher.cost_usd is None:
        return Saving(None, None)
    avoided = student.served * teacher.cost_usd / teacher.priced
    if student.cost_usd is None:
        return Saving(avoided, None)
    return Saving(avoided, student.cost_usd + teacher.cost_usd - (teacher.served_cost_usd or 0.0))


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


def _headline(
    policy: WorkloadPolicy | None,
    series: Sequence[Point],
    status: Status,
    silent: str | None,
    now: float,
) -> list[str]:
    """The state in a sentence, in pieces: who answers, how well, what comes next."""
    said = [_who_answers(policy, silent)]
    if series:
        point = series[-1]
        said.append(
            f"student agrees {percent(point.agreement)} {interval(point.low, point.high)} "
            f"on {count(point.n)} pairs"
        )
    if status.since is not None:
        said.append(_progress(status, now))
    return said


def _who_answers(policy: WorkloadPolicy | None, silent: str | None) -> str:
    if policy is None:
        return "no policy yet"
    if silent:
        return f"{policy.mode} suspended: the {silent} is silent, the teacher answers everything"
    sample = percent(policy.shadow_sample)
    return {
        "teacher": "the teacher answers everything",
        "shadow": f"shadow {sample}: the teacher answers, the student is asked unseen",
        "canary": f"canary {percent(policy.weight / 100)}",
        "hybrid": f"hybrid: the student answers where the router gives it "
        f"{policy.router_threshold:.2f} or more",
        "student": f"the student answers, the teacher is asked beside it on "
        f"{percent(policy.holdout)}",
    }[policy.mode]


def _progress(status: Status, now: float) -> str:
    since = duration(now - (status.since or now))
    if status.state != "running":
        return f"rollout {status.state.replace('_', ' ')} {since} ago: {status.reason}"
    here = [number for number, step in enumerate(status.steps, 1) if step.state == "now"]
    where = f"step {here[0]} of {len(status.steps)}" if here else "rollout running"
    return f"{where} for {since}: {status.next}"


def _next_action(
    name: str,
    policy: WorkloadPolicy | None,
    arms: dict[str, Arm],
    documents: WorkloadDocuments,
) -> str:
    """What a person does next where something is missing; '' if nothing is."""
    if not arms:
        return "No requests in this window: point a client at the proxy, or choose a longer one."
    if policy is None:
        return "No policy in the lake: start `understudy proxy`; it publishes the file's."
    if documents.aliases.candidate is None and documents.aliases.champion is None:
        return (
            f"No student yet: `understudy dataset build --workload {name}`, then train, evaluate."
        )
    if not documents.series and policy.mode == "teacher":
        return "No pairs yet: set `mode: shadow`, or start a rollout."
    if not documents.series:
        return "No estimate yet: start `understudy monitor`; it needs pairs of both arms."
    return ""
