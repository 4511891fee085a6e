"""What a request needs of its process, as plain dependencies: no globals, no singletons.

`InForce` is everything that a reload may change, swapped as one object; a request takes it once, at
its beginning, and lives with it to its end.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from proxy.breaker import Breaker
from proxy.capture import Capture
from proxy.deadline import Deadlines
from proxy.decide import Scorer
from proxy.message import Request
from proxy.metrics import Metrics
from proxy.pool import HttpUpstream, Pool
from proxy.upstream import Upstream
from understudy.config import Config
from understudy.policy import Policy, Student


class InForce(NamedTuple):
    """The configuration and policy that new requests obey."""

    config: Config
    policy: Policy
    teacher: Upstream
    teacher_beside: Upstream
    routers: Mapping[str, Scorer] = {}
    dead: frozenset[str] = frozenset()


class Students:
    """The students' upstreams and breakers, by address and model; shadow work has its own pool."""

    def __init__(self, primary: Pool, beside: Pool) -> None:
        self._pools = {False: primary, True: beside}
        self._upstreams: dict[tuple[str, str | None, bool], HttpUpstream] = {}
        self.breakers: dict[str, Breaker] = {}

    def upstream(self, student: Student, *, beside: bool = False) -> HttpUpstream:
        """Where this student is called; the caller's credentials never go there."""
        key = os.environ.get(student.api_key_env) if student.api_key_env else None
        name = (student.base_url, key, beside)
        if name not in self._upstreams:
            pool = self._pools[beside]
            upstream = HttpUpstream(student.base_url, pool, key=key, credentials=False)
            self._upstreams[name] = upstream
        return self._upstreams[name]

    def breaker(self, student: Student) -> Breaker:
        """Its breaker, shared by all workloads that it serves."""
        return self.breakers.setdefault(f"{student.base_url}#{student.model}", Breaker())


class Stoppable(Protocol):
    """An exchange under way."""

    def stop(self) -> None:
        """Break it off and record it."""


@dataclass(slots=True)
class Site:
    """One worker process, as its connections see it. Only `current` is ever replaced."""

    current: InForce
    capture: Capture
    deadlines: Deadlines
    students: Students
    pool: Pool
    beside_pool: Pool
    metrics: Metrics
    salt: bytes
    draining: bool = False
    heads: dict[bytes, Request] = field(default_factory=dict)
    relays: "set[Stoppable]" = field(default_factory=set)
