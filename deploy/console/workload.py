"""A workload as the console shows it: its figures, and its state in one sentence. Pure."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from deploy.console import plot, stepper
from deploy.console.control import Control, Point, WorkloadDocuments
from deploy.console.numerals import count, duration, interval, percent
from deploy.console.traffic import Arm, Failure, Window
from understudy.config import Config, Step
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
    steps = configured.rollout.steps if configured else ()
    arms = {arm.arm: arm for arm in window.arms if arm.workload == name}
    student = _student(policy, documents)
    cells = [cell for cell in window.cells if cell.workload == name]
    trusted = _trusted(policy, control, window.now, config)
    agreement = documents.series[-1] if documents.series else None
    return View(
        name=name,
        mode=policy.mode if policy else "unknown",
        owner=policy.owner if policy else "file",
        student=student,
        split=_split(policy) if trusted else 0.0,
        measured=measured(arms),
        tone=_tone(policy, documents, trusted),
        headline=_headline(policy, documents, steps, trusted, window.now),
        agreement=agreement,
        nodes=stepper.nodes(steps, documents, student, window.now),
        arms=arms,
        saving=saving(arms),
        failures=[failure for failure in window.failures if failure.workload == name],
        documents=documents,
        agreement_plot=plot.agreement(window, documents.series),
        request_plot=plot.requests(window, cells),
        latency_plot=plot.latency(window, cells),
        empty=_next_action(name, policy, arms, documents),
    )


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
    if documents.events and documents.events[-1].state not in stepper.STOPPED:
        return documents.events[-1].student
    return documents.aliases.candidate or documents.aliases.champion


def _split(policy: WorkloadPolicy | None) -> float | None:
    """The student's share by the policy; None where the router decides request by request."""
    if policy is None or policy.mode in ("teacher", "shadow"):
        return 0.0
    if policy.mode == "canary":
        return policy.weight / 100
    return 1 - policy.holdout if policy.mode == "student" else None


def _trusted(
    policy: WorkloadPolicy | None, control: Control, now: float, config: Config | None
) -> bool:
    """Whether the proxy lets the student answer: not without a living monitor."""
    if policy is None or policy.mode not in SERVING_MODES or not policy.require_monitor:
        return True
    max_age_s = config.heartbeat_max_age_s if config else 15.0
    return alive(control.heartbeats.get("monitor"), now, max_age_s)


def _tone(policy: WorkloadPolicy | None, documents: WorkloadDocuments, trusted: bool) -> Tone:
    state = documents.events[-1].state if documents.events else None
    if not trusted or state == "rolled_back":
        return "bad"
    if state == "paused" or policy is None:
        return "wait"
    return "good" if policy.mode in SERVING_MODES else "calm"


def _headline(
    policy: WorkloadPolicy | None,
    documents: WorkloadDocuments,
    steps: Sequence[Step],
    trusted: bool,
    now: float,
) -> list[str]:
    """The state in a sentence, in pieces: who answers, how well, what comes next."""
    said = [_who_answers(policy, trusted)]
    if documents.series:
        point = documents.series[-1]
        said.append(
            f"student agrees {percent(point.agreement)} {interval(point.low, point.high)} "
            f"on {count(point.n)} pairs"
        )
    if documents.events:
        said.append(_progress(documents, steps, now))
    return said


def _who_answers(policy: WorkloadPolicy | None, trusted: bool) -> str:
    if policy is None:
        return "no policy yet"
    if not trusted:
        return f"{policy.mode} suspended: the monitor is silent, the teacher answers everything"
    sample = percent(policy.shadow_sample)
    return {
        "teacher": "the teacher answers everything",
        "shadow": f"shadow {sample}: the teacher answers, the student is asked unseen",
        "canary": f"canary {percent(policy.weight / 100)}",
        "hybrid": "hybrid: the router decides per request",
        "student": f"the student answers, {percent(policy.holdout)} held out for the teacher",
    }[policy.mode]


def _progress(documents: WorkloadDocuments, steps: Sequence[Step], now: float) -> str:
    event = documents.events[-1]
    since = duration(now - event.at)
    if event.state != "running":
        word = event.state.replace("_", " ")
        return f"rollout {word} {since} ago: {event.reason}"
    if not steps:
        return f"rollout at step {event.step + 1} for {since}"
    step = steps[min(event.step, len(steps) - 1)]
    wait = stepper.waiting(step, documents, now) or "waiting for its verdict"
    return f"step {event.step + 1} of {len(steps)} for {since}, {wait}"


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
        return f"No student yet: `understudy dataset build {name}`, then `understudy train`."
    if not documents.series and policy.mode == "teacher":
        return "No pairs yet: set `mode: shadow`, or start a rollout."
    if not documents.series:
        return "No estimate yet: start `understudy monitor`; it needs pairs of both arms."
    return ""
