"""One coarse clock for all deadlines of a process.

A timer per request and per read costs more than the relay's own work; here an owner sets a float
(`deadline`, on the clock of the loop) and one tick a quarter of a second looks at all of them.
Late by at most one tick; never early.
"""

import asyncio
from math import inf
from typing import Protocol

TICK_S = 0.25


class Timed(Protocol):
    """Something with a moment after which it wants to be told."""

    deadline: float

    def on_deadline(self) -> None:
        """The moment has passed; called once, set `deadline` again to go on."""


class Deadlines:
    """Watches `Timed` owners from `add` until `discard`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_s: float = TICK_S) -> None:
        self._loop = loop
        self._tick_s = tick_s
        self._watched: set[Timed] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.time = loop.time

    def add(self, owner: Timed) -> None:
        """Watch `owner`; adding twice is fine."""
        self._watched.add(owner)
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._tick)

    def discard(self, owner: Timed) -> None:
        """Forget `owner`; unknown ones are fine."""
        self._watched.discard(owner)

    def close(self) -> None:
        """Stop ticking."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self.time()
        for owner in [one for one in self._watched if one.deadline <= now]:
            if owner in self._watched:  # an earlier owner's call may have ended this one
                owner.deadline = inf
                owner.on_deadline()
        again = bool(self._watched)
        self._timer = self._loop.call_later(self._tick_s, self._tick) if again else None
