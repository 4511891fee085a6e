"""The controller: looks at the lake each second, writes rollout events, publishes the policy.

It holds no state of its own but what it has logged: a restart, or a second controller beside it,
derives the same from events and verdicts, and put-if-absent lets one of them write. While a
workload's documents cannot be read it gives no sign of life, so that the proxies go to the teacher
by themselves instead of trusting what nobody watches.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from deploy.rollout import champion, transition
from deploy.rollout.machine import Seen, decide, watch
from understudy import documents, state
from understudy.config import Config
from understudy.config_file import ConfigFile
from understudy.documents import RolloutEvent
from understudy.errors import ConfigError, LakeError
from understudy.lake import Lake
from understudy.policy import SERVING_MODES, Policy, PolicyStore

log = logging.getLogger(__name__)


class Controller:
    """`tick` is one look; the caller loops. `clock` gives Unix seconds."""

    def __init__(self, file: ConfigFile, clock: Callable[[], float] = time.time) -> None:
        self._file, self._clock = file, clock
        self._lake = Lake(file.config.lake)
        self._policy: Policy | None = None
        self._complaints: dict[str, str] = {}

    def tick(self) -> list[RolloutEvent]:
        """Examine every workload, publish, give a sign of life; the events that were written."""
        self._file.poll()
        config = self._file.config
        if config.lake != self._lake.root:
            self._lake, self._policy = Lake(config.lake), None
        written: list[RolloutEvent] = []
        for name in config.workloads:
            with self._hold_on(name):
                event = self._examine(name)
                written += [event] if event else []
        with self._hold_on("policy"):
            self._publish(config, written)
        if not self._complaints.keys() - {"file"}:
            with self._hold_on("heartbeat"):
                version = self._policy.version if self._policy else 0
                documents.beat(self._lake, "controller", policy=version)
        return written

    def _examine(self, name: str) -> RolloutEvent | None:
        now = self._clock()  # before the documents are read: what comes later counts as later
        events = documents.rollout_events(self._lake, name)
        if events:
            champion.restore(self._lake, events[-1])
        event = self._next_event(name, events, now)
        if event is None:
            return None
        if event.state == "done":
            champion.crown(self._lake, event)
        if not documents.add_rollout_event(self._lake, event):
            return None  # another controller or an operator was first: the next look sees theirs
        log.info("%s: %s %s: %s", name, event.action, event.student, event.reason)
        champion.restore(self._lake, event)
        return event

    def _next_event(
        self, name: str, events: Sequence[RolloutEvent], now: float
    ) -> RolloutEvent | None:
        config = self._file.config
        rollout = config.workloads[name].rollout
        if events and events[-1].state != "aborted":
            decision = decide(rollout, events, observe(config, self._lake, name, events, now))
            log.debug("%s: %s: %s", name, decision.action, decision.reason)
            if decision.action == "wait":
                return None
            return transition.decided(rollout, events, decision, now)
        student = self._served_by_file(name)
        if student is None:
            return None
        why = watch(student, events, documents.verdicts(self._lake, name))
        if why.action == "wait":
            return None
        return transition.rolled_back(name, student, events, why, now)

    def _served_by_file(self, name: str) -> str | None:
        rule = self._policy.workloads.get(name) if self._policy else None
        if rule is None or rule.owner != "file" or rule.mode not in SERVING_MODES:
            return None
        return rule.student.model if rule.student else None

    def _publish(self, config: Config, written: Sequence[RolloutEvent]) -> None:
        moved = [f"{event.workload}: {event.reason}" for event in written]
        reason = "; ".join(moved) or "gate, alias, router, file or an operator's rollout changed"
        try:
            self._policy = state.refresh(config, self._file.hash, self._lake, "controller", reason)
            self._complaints.pop("file", None)
        except ConfigError as error:
            self._complain("file", f"{error}; the rest of the policy stays as it was")
            self._policy = PolicyStore(self._lake).latest()

    @contextmanager
    def _hold_on(self, what: str) -> Iterator[None]:
        """An unreadable or unwritable lake is said once and tried again at the next look."""
        try:
            yield
        except LakeError as error:
            self._complain(what, f"{error}; until then no heartbeat, so the teacher answers")
        else:
            if self._complaints.pop(what, None):
                log.info("%s: all right again", what)

    def _complain(self, what: str, message: str) -> None:
        if self._complaints.get(what) != message:
            self._complaints[what] = message
            log.error("%s: %s", what, message)


def observe(
    config: Config, lake: Lake, name: str, events: Sequence[RolloutEvent], now: float
) -> Seen:
    """What the state machine has to know about a workload with a rollout."""
    beat = documents.heartbeat(lake, "monitor")
    router = state.current_router(lake, name)
    return Seen(
        verdicts=documents.verdicts(lake, name),
        now=now,
        monitor_age_s=now - beat.at if beat else None,
        max_age_s=config.heartbeat_max_age_s,
        router=bool(router and events and router.student == events[-1].student),
    )
