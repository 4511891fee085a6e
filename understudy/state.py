"""The policy as the lake's state demands it: reads aliases, gates, routers and rollouts, compiles.

Whoever changes something (the proxy on a new file, the controller on a verdict) calls `refresh`;
it publishes a new version only if the routing changes, and several callers may race.
"""

import msgspec

from understudy import documents
from understudy.config import Config, Mode
from understudy.lake import Lake
from understudy.policy import Override, Policy, PolicyStore, compile_policy, same_routing


class RouterRef(msgspec.Struct, frozen=True, kw_only=True):
    """`control/routers/<workload>/current.json`: the router in force for `student`."""

    key: str
    threshold: float
    student: str


def override_of(config: Config, name: str, events: list[documents.RolloutEvent]) -> Override | None:
    """What the workload's rollout demands now; None where no rollout has a say."""
    steps = config.workloads[name].rollout.steps
    if not events or not steps:
        return None
    event = events[-1]
    if event.state == "aborted":
        return None
    if event.state == "rolled_back":
        return Override(mode="teacher", student=event.student, note=event.reason)
    step = steps[min(event.step, len(steps) - 1)]
    # Beyond the shadow step the student is still asked on a sample of what the teacher serves:
    # without pairs nobody could say whether the step is good.
    sample = config.workloads[name].shadow.sample
    note = f"rollout step {event.step + 1}/{len(steps)}: {event.reason}"
    if step.shadow is not None:
        return Override(
            mode="shadow", student=event.student, shadow_sample=step.shadow, note=note
        )
    if step.setWeight is not None:
        return Override(
            mode="canary",
            student=event.student,
            weight=step.setWeight,
            shadow_sample=sample,
            note=note,
        )
    mode: Mode = "hybrid" if step.hybrid else "student"
    return Override(mode=mode, student=event.student, shadow_sample=sample, note=note)


def demanded(config: Config, config_hash: str, lake: Lake) -> Policy:
    """The policy that file and lake demand together; ConfigError where they cannot be obeyed."""
    names = list(config.workloads)
    passed = {}
    for name in names:
        words = {v.student: v.verdict for v in documents.verdicts(lake, name) if v.kind == "gate"}
        passed[name] = frozenset(student for student, word in words.items() if word == "PASS")
    events = {name: documents.rollout_events(lake, name) for name in names}
    overrides = {name: override_of(config, name, events[name]) for name in names}
    routers = {name: current_router(lake, name) for name in names}
    return compile_policy(
        config,
        config_hash=config_hash,
        overrides={name: value for name, value in overrides.items() if value},
        aliases={name: documents.aliases(lake, name) for name in names},
        passed=passed,
        routers={name: (ref.key, ref.threshold) for name, ref in routers.items() if ref},
    )


def refresh(config: Config, config_hash: str, lake: Lake, author: str, reason: str) -> Policy:
    """Publish what is demanded, if it differs from what is in force; returns the policy in force."""
    store = PolicyStore(lake)
    while True:
        current = store.latest()
        wanted = demanded(config, config_hash, lake)
        if current is not None and same_routing(current, wanted):
            return current
        published = store.publish(wanted, current.version if current else 0, author, reason)
        if published is not None:
            return published


def current_router(lake: Lake, workload: str) -> RouterRef | None:
    """The workload's router in force, or None."""
    data = lake.get(f"control/routers/{workload}/current.json")
    return msgspec.json.decode(data, type=RouterRef) if data else None
