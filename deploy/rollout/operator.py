"""What an operator does to a rollout by hand: each action is one event in the lake.

Publishing the policy afterwards is the caller's job (`understudy.state.refresh`).
"""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from deploy.rollout import champion, transition
from deploy.rollout.machine import Decision
from deploy.rollout.transition import Candidate, Events
from understudy import documents, state
from understudy.config import Config, Workload
from understudy.documents import RolloutEvent
from understudy.errors import ConfigError, GateError, ServingError
from understudy.lake import Lake
from understudy.policy import student_name

Action = Literal["start", "pause", "resume", "promote", "abort", "rollback"]
BY_OPERATOR = {"by": "operator"}


class Request(NamedTuple):
    """An action on a workload; `student` and `force` are for start, `reason` is for rollback."""

    action: Action
    workload: str
    student: str = ""
    force: bool = False
    reason: str = "operator rolled it back"


def act(
    config: Config, lake: Lake, request: Request, clock: Callable[[], float] = time.time
) -> RolloutEvent:
    """Write the event that the request comes to; a one-line error says why it may not be."""
    workload_of(config, request.workload)

    def make(events: Events) -> RolloutEvent:
        event = _event(config, lake, request, events, clock())
        if event.state == "done":
            champion.crown(lake, event)
        return event

    event = transition.append(lake, request.workload, make)
    champion.restore(lake, event)
    return event


def workload_of(config: Config, name: str) -> Workload:
    """The workload of the file; ConfigError names those that there are."""
    if name not in config.workloads:
        known = ", ".join(config.workloads) or "none"
        raise ConfigError(f"no workload {name!r} in the file (known: {known})")
    return config.workloads[name]


def _event(
    config: Config, lake: Lake, request: Request, events: Events, now: float
) -> RolloutEvent:
    rollout = config.workloads[request.workload].rollout
    match request.action:
        case "start":
            who = _candidate(config, lake, request.workload, request.student)
            return transition.start(rollout, events, who, request.force, now)
        case "promote":
            return transition.promoted(rollout, events, now)
        case "rollback":
            return _rolled_back(config, lake, request, events, now)
        case "pause":
            return transition.paused(events, now)
        case "resume":
            return transition.resumed(events, now)
        case "abort":
            return transition.aborted(events, now)


def _rolled_back(
    config: Config, lake: Lake, request: Request, events: Events, now: float
) -> RolloutEvent:
    name = request.workload
    if events and events[-1].state == "rolled_back":
        raise GateError(f"{name} is on the teacher already: {events[-1].reason}")
    running = bool(events) and events[-1].state != "aborted"
    own = student_name(config.workloads[name], None, documents.aliases(lake, name))
    student = events[-1].student if running else own
    if student is None:
        raise GateError(f"{name} has no student; the teacher answers already")
    why = Decision("roll_back", request.reason, BY_OPERATOR)
    return transition.rolled_back(name, student, events, why, now)


def _candidate(config: Config, lake: Lake, name: str, wanted: str) -> Candidate:
    workload, aliases = config.workloads[name], documents.aliases(lake, name)
    router = state.current_router(lake, name)
    student = _known_student(config, lake, name, wanted)
    return Candidate(
        workload=name,
        student=student,
        passed=not workload.gate.required or documents.gate_passed(lake, name, student),
        router=router is not None and router.student == student,
        champion=aliases.champion,
    )


def _known_student(config: Config, lake: Lake, name: str, wanted: str) -> str:
    """`wanted` with aliases resolved: registered, trained into the lake, or named by the file."""
    aliases, served = documents.aliases(lake, name), config.workloads[name].student
    named = {"candidate": aliases.candidate, "champion": aliases.champion}
    known = {student for student in (*aliases.students, *named.values()) if student}
    if served and served.model not in named:
        known.add(served.model)
    student = named.get(wanted, wanted)
    if student and lake.path(f"students/{name}/{student}/student.json").exists():
        known.add(student)
    if student is None or student not in known:
        have = ", ".join(sorted(known)) or "none"
        raise ServingError(
            f"workload {name} has no student {wanted!r} (known: {have}); register it with "
            f"`understudy students register`"
        )
    return student
