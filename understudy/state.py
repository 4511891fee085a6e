"""The policy as the lake's state demands it: reads aliases, gates, routers and rollouts, compiles.

Whoever changes something (the proxy on a new file, the controller on a verdict) calls `refresh`;
it publishes a new version only if the routing changes, and several callers may race.
A file that cannot be obeyed never holds up what a rollout demands, least of all a rollback.
"""

import logging
from typing import NamedTuple

import msgspec

from understudy import documents
from understudy.config import Config, Mode, Step
from understudy.errors import ConfigError, LakeError
from understudy.lake import Lake
from understudy.policy import (
    Override,
    Policy,
    PolicyStore,
    compile_policy,
    same_routing,
    student_name,
)

log = logging.getLogger(__name__)


class RouterRef(msgspec.Struct, frozen=True, kw_only=True):
    """`control/routers/<workload>/current.json`: the router in force for `student`."""

    key: str
    threshold: float
    student: str


class Demand(NamedTuple):
    """What a step of a rollout asks of the policy; `shadow_sample` None means the file's."""

    mode: Mode
    weight: float = 0.0
    shadow_sample: float | None = None


def demand_of(step: Step) -> Demand:
    """The step as mode and numbers."""
    if step.shadow is not None:
        return Demand("shadow", shadow_sample=step.shadow)
    if step.setWeight is not None:
        return Demand("canary", weight=step.setWeight)
    return Demand("hybrid" if step.hybrid else "student")


def override_of(config: Config, name: str, events: list[documents.RolloutEvent]) -> Override | None:
    """What the workload's rollout demands now; None where no rollout has a say."""
    if not events or events[-1].state == "aborted":
        return None
    event = events[-1]
    if event.state == "rolled_back":
        return Override(mode="teacher", student=event.student, note=event.reason)
    steps = config.workloads[name].rollout.steps
    if event.mode is not None:
        demand = Demand(event.mode, event.weight, event.shadow_sample)
    elif steps:
        demand = demand_of(steps[min(event.step, len(steps) - 1)])
    else:
        return None
    # Beyond the shadow step the student is still asked on a sample of what the teacher serves:
    # without pairs nobody could say whether the step is good.
    sample = demand.shadow_sample
    return Override(
        mode=demand.mode,
        student=event.student,
        weight=demand.weight,
        shadow_sample=config.workloads[name].shadow.sample if sample is None else sample,
        note=f"rollout step {event.step + 1}/{len(steps)}: {event.reason}",
    )


def demanded(config: Config, config_hash: str, lake: Lake) -> Policy:
    """The policy that file and lake demand together; ConfigError where they cannot be obeyed."""
    names = list(config.workloads)
    overrides = {
        name: override_of(config, name, documents.rollout_events(lake, name)) for name in names
    }
    aliases = {name: documents.aliases(lake, name) for name in names}
    routers = {}
    for name in names:
        router = current_router(lake, name)
        # A router is calibrated on one student's pairs; on another's answers it says nothing.
        student = student_name(config.workloads[name], overrides[name], aliases[name])
        if router and router.student == student:
            routers[name] = (router.key, router.threshold)
    return compile_policy(
        config,
        config_hash=config_hash,
        overrides={name: value for name, value in overrides.items() if value},
        aliases=aliases,
        passed={name: documents.passed_students(lake, name) for name in names},
        routers=routers,
    )


def refresh(config: Config, config_hash: str, lake: Lake, author: str, reason: str) -> Policy:
    """Publish what is demanded, if it differs from what is in force; returns the policy in force.

    ConfigError where the file cannot be obeyed: then what rollouts demand is published all the
    same, and everything else stays as it was.
    """
    store = PolicyStore(lake)
    while True:
        version = store.version()
        current = _readable(store, version)
        refusal: ConfigError | None = None
        try:
            wanted = demanded(config, config_hash, lake)
        except ConfigError as error:
            if current is None:
                raise
            refusal, wanted = error, _rollouts_only(config, lake, current)
        if current is None or not same_routing(current, wanted):
            current = store.publish(wanted, version, author, reason)
        if current is not None:
            if refusal:
                raise refusal
            return current


def current_router(lake: Lake, workload: str) -> RouterRef | None:
    """The workload's router in force, or None; LakeError if its document is damaged."""
    key = f"control/routers/{workload}/current.json"
    data = lake.get(key)
    try:
        return msgspec.json.decode(data, type=RouterRef) if data is not None else None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise LakeError(f"{lake.path(key)}: no router: {error}; fit it again") from error


def _readable(store: PolicyStore, version: int) -> Policy | None:
    if version == 0:
        return None
    try:
        return store.read(version)
    except LakeError as error:  # the version that is published next replaces it
        log.error("%s", error)
        return None


def _rollouts_only(config: Config, lake: Lake, current: Policy) -> Policy:
    """The policy in force, with each rollout's workload as the rollout demands it."""
    workloads = dict(current.workloads)
    for name in set(workloads) & set(config.workloads):
        alone = config.model_copy(update={"workloads": {name: config.workloads[name]}})
        try:
            own = demanded(alone, current.config_hash, lake).workloads[name]
        except ConfigError:  # it is this one that `refresh` is about to report
            continue
        if own.owner == "controller":
            workloads[name] = own
    return msgspec.structs.replace(current, workloads=workloads)
