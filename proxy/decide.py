"""Who answers: a pure function of the policy, the request and the conditions of this moment.

Sticky by a salted hash: a unit's bucket in [0, 100) never changes, so growing the weight only ever
moves units from the teacher to the student. Everything that speaks against the student (no monitor,
an endpoint or a conversation state that it does not have, no router) means the teacher.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from proxy.view import STUDENT_ENDPOINTS, RequestView
from understudy.exchange import Arm
from understudy.policy import SERVING_MODES, Policy, WorkloadPolicy


class Scorer(Protocol):
    """The hybrid router as far as it is used here."""

    def score(self, text: str) -> float:
        """How likely the student answers this as the teacher would, in [0, 1]."""


class Conditions(NamedTuple):
    """What beside policy and request decides. `draw` is uniform in [0, 1); names are heartbeats."""

    draw: float
    dead: frozenset[str] = frozenset()
    routers: Mapping[str, Scorer] = {}


class Decision(NamedTuple):
    """Who answers first and who is asked beside, with what the record says about it."""

    arm: Arm
    reason: str
    version: int
    workload: str | None = None
    rule: WorkloadPolicy | None = None
    bucket: float | None = None
    score: float | None = None
    beside: Literal["shadow", "holdout"] | None = None


def decide(policy: Policy, view: RequestView, now: Conditions) -> Decision:
    """The decision for one request."""
    name, rule = match_workload(policy, view)
    if rule is None:
        return Decision("teacher", "no_workload", policy.version)
    teacher = Decision("teacher", f"mode_{rule.mode}", policy.version, name, rule)
    if rule.mode == "teacher" or rule.student is None:
        return teacher._replace(reason="mode_teacher")
    if view.endpoint not in STUDENT_ENDPOINTS or view.body is None or view.model is None:
        return teacher._replace(reason="unsupported")
    if view.stateful:
        return teacher._replace(reason="stateful")
    if rule.mode in SERVING_MODES and _unwatched(rule, now.dead):
        return teacher._replace(reason="dead_monitor")
    decision = _split(rule, view, teacher, now)
    if decision.arm == "student":
        return decision._replace(beside="holdout" if now.draw < rule.holdout else None)
    # The student is asked on a sample of what stays with the teacher, or nobody could judge it.
    return decision._replace(beside="shadow" if now.draw < rule.shadow_sample else None)


def _split(rule: WorkloadPolicy, view: RequestView, teacher: Decision, now: Conditions) -> Decision:
    if rule.mode == "shadow":
        return teacher
    bucket = bucket_of(rule, view)
    if rule.mode == "student":
        return teacher._replace(arm="student", bucket=bucket)
    if rule.mode == "canary":
        arm: Arm = "student" if bucket is not None and bucket < rule.weight else "teacher"
        return teacher._replace(arm=arm, bucket=bucket)
    router = now.routers.get(rule.router or "")
    if router is None:
        return teacher._replace(reason="no_router")
    score = router.score(view.text())
    arm = "student" if score >= rule.router_threshold else "teacher"
    return teacher._replace(arm=arm, bucket=bucket, score=score)


def _unwatched(rule: WorkloadPolicy, dead: frozenset[str]) -> bool:
    if not rule.require_monitor:
        return False
    return "monitor" in dead or (rule.owner == "controller" and "controller" in dead)


def bucket_of(rule: WorkloadPolicy, view: RequestView) -> float | None:
    """The sticky unit's position in [0, 100); None for a request that has no unit at all."""
    own = {
        "user": view.user_hash,
        "key": view.key_hash,
        "conversation": view.conversation_key,
    }[rule.sticky_by]
    unit = own or view.conversation_key
    if unit is None:
        return None
    digest = hashlib.sha256(f"{rule.salt}\0{unit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100


def match_workload(policy: Policy, view: RequestView) -> tuple[str | None, WorkloadPolicy | None]:
    """The workload that the client names, else the first that matches."""
    if not policy.workloads:
        return None, None
    named = view.header("x-understudy-workload")
    if named is not None and named in policy.workloads:
        return named, policy.workloads[named]
    for name, rule in policy.workloads.items():
        if _matches(rule, view):
            return name, rule
    return None, None


def _matches(rule: WorkloadPolicy, view: RequestView) -> bool:
    return (
        (rule.match_model is None or rule.match_model == view.model)
        and (rule.match_prompt_hash is None or rule.match_prompt_hash == view.prompt_hash)
        and all(view.metadata.get(key) == value for key, value in rule.match_metadata.items())
        and all(view.header(key) == value for key, value in rule.match_header.items())
    )
