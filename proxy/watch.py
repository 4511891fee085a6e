"""Keeps `Site.current` true: file, policy, routers and signs of life, looked at every second.

The swap is one assignment. A bad file or an unreachable lake changes nothing and is logged once;
the last good policy stays in force. Reading happens in a thread: a slow disk delays no answer.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from proxy.decide import Scorer
from proxy.site import InForce
from proxy.upstream import Upstream
from understudy import documents
from understudy.config import Config
from understudy.config_file import ConfigFile
from understudy.errors import UnderstudyError
from understudy.lake import Lake
from understudy.policy import Policy, PolicyStore
from understudy.router import Router
from understudy.state import refresh

log = logging.getLogger(__name__)
PERIOD_S = 1.0
RETRY_S = 5.0  # how often a file that could not be obeyed is tried again
HEARTBEATS = ("monitor", "controller")


class Watch:
    """Reads what is demanded; `first` is for the start, `run` for ever after."""

    def __init__(self, path: Path, teachers: Callable[[Config], tuple[Upstream, Upstream]]) -> None:
        self.file = ConfigFile(path)
        self.last_error = ""
        self._lake = Lake(self.file.config.lake)
        self._store = PolicyStore(self._lake)
        self._teachers = teachers
        self._retry_at = 0.0
        self._refused = False

    def first(self) -> InForce:
        """What is in force at the start; without any policy every request goes to the teacher."""
        config = self.file.config
        teacher, beside = self._teachers(config)
        start = InForce(config, Policy(config_hash=self.file.hash), teacher, beside)
        self._demand("the proxy started")
        return self._look(start) or start

    async def run(self, get: Callable[[], InForce], put: Callable[[InForce], None]) -> None:
        """Look every second until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PERIOD_S)
            found = await loop.run_in_executor(None, self._poll, get())
            if found is not None:
                put(found)

    def _poll(self, current: InForce) -> InForce | None:
        if self.file.poll():
            config = self.file.config
            teacher, beside = current.teacher, current.teacher_beside
            if config.teacher != current.config.teacher:
                teacher, beside = self._teachers(config)
            current = current._replace(config=config, teacher=teacher, teacher_beside=beside)
            self._demand("the file changed")
            return self._look(current) or current
        if self._refused and time.monotonic() >= self._retry_at:
            self._demand("tried again")
        return self._look(current)

    def _demand(self, reason: str) -> None:
        """Publish what the file demands."""
        self._retry_at = time.monotonic() + RETRY_S
        try:
            refresh(self.file.config, self.file.hash, self._lake, "proxy", reason)
        except UnderstudyError as error:
            self._refused = True
            self._complain(error)
        else:
            self._refused, self.last_error = False, ""

    def _look(self, current: InForce) -> InForce | None:
        """What is in force now, or None where nothing changed."""
        try:
            dead = self._dead(current.config)
            policy = self._store.latest(than=current.policy.version)
            routers = current.routers if policy is None else self._routers(policy, current.routers)
        except (UnderstudyError, OSError) as error:
            self._complain(error)
            return None
        if policy is None and dead == current.dead:
            return None
        if policy is not None:
            log.info("policy %d is in force (%s: %s)", policy.version, policy.author, policy.reason)
        return current._replace(policy=policy or current.policy, routers=routers, dead=dead)

    def _dead(self, config: Config) -> frozenset[str]:
        """Which of those that students depend on have given no sign of life in time."""
        oldest = time.time() - config.heartbeat_max_age_s
        dead = set()
        for name in HEARTBEATS:
            beat = documents.heartbeat(self._lake, name)
            if beat is None or beat.at < oldest:
                dead.add(name)
        return frozenset(dead)

    def _routers(self, policy: Policy, known: Mapping[str, Scorer]) -> Mapping[str, Scorer]:
        """The artefacts that the policy names, by key; one that is not there means the teacher."""
        found: dict[str, Scorer] = {}
        for name, rule in policy.workloads.items():
            key = rule.router
            if key is None:
                continue
            data = None if key in known else self._lake.get(key)
            if key in known:
                found[key] = known[key]
            elif data is not None:
                found[key] = Router.load(data)
            else:
                log.error(
                    "workload %s: router %s is not in the lake; the teacher answers", name, key
                )
        return found

    def _complain(self, error: Exception) -> None:
        if str(error) != self.last_error:
            log.error("%s; the last good policy stays in force", error)
            self.last_error = str(error)
