"""A workload's state in one sentence, and what a person does next where something is missing."""

from collections.abc import Mapping, Sequence

from deploy.console.control import Point, WorkloadDocuments
from deploy.console.numerals import count, duration, interval, percent
from deploy.console.traffic import Arm
from deploy.rollout.status import Status
from understudy.policy import WorkloadPolicy


def headline(
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


def next_action(
    name: str,
    policy: WorkloadPolicy | None,
    arms: Mapping[str, Arm],
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
