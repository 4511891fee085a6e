"""One logical request as a state machine without IO: it is told what happened and says what to do.

It holds the rules that must never bend: the client gets at most one answer; the teacher takes over
from a student only while no byte has gone out; what went out is either finished or visibly broken;
every attempt that was opened is closed once. Who obeys is `relay`.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Literal

from understudy.exchange import Arm, Outcome

Ended = Literal["end", "failure", "left"]
State = Literal["waiting", "held", "relaying", "detached", "done"]


class Do(Enum):
    """What the driver has to do now."""

    NOTHING = auto()
    CALL = auto()  # record REQUEST of `arm`, then call it
    FALL_BACK = auto()  # close the failed attempt unserved, drop it, then CALL
    SEND_HEAD = auto()  # the head (and what is staged) goes to the client
    FINISH = auto()  # record RESPONSE, then send the last bytes
    REFUSE = auto()  # close the attempt as failed, answer an error of our own
    PASS_ERROR = auto()  # close the attempt; the client's answer is broken off visibly
    ABANDON = auto()  # the client left: record ABORT, drop the upstream
    DETACH = auto()  # the client left: go on reading for the record only
    CLOSE = auto()  # nobody waits any more: record what there is


class Exchange:
    """The plan (`arms`, tried in order) and how far it is."""

    __slots__ = ("_arms", "_at", "_finish_anyway", "finished_stream", "state")

    def __init__(self, arms: Sequence[Arm], finish_anyway: bool = False) -> None:
        assert arms
        self._arms, self._at, self._finish_anyway = arms, 0, finish_anyway
        self.state: State = "waiting"
        self.finished_stream = False  # the stream's own last event has gone out

    @property
    def arm(self) -> Arm:
        """The arm whose attempt is under way."""
        return self._arms[self._at]

    @property
    def is_fallback(self) -> bool:
        """Whether this attempt replaces a failed one."""
        return self._at > 0

    @property
    def _replaceable(self) -> bool:
        return self._at + 1 < len(self._arms)

    def head(self, status: int) -> Do:
        """The upstream's final head."""
        if self.state == "detached":
            return Do.NOTHING
        assert self.state == "waiting", self.state
        if self._replaceable:
            if status >= 400:
                return self._fall_back()
            self.state = "held"  # a head is no answer yet: the first byte of the body decides
            return Do.NOTHING
        self.state = "relaying"
        return Do.SEND_HEAD

    def body(self) -> Do:
        """A piece of the body."""
        if self.state == "held":
            self.state = "relaying"
            return Do.SEND_HEAD
        return Do.NOTHING

    def end(self) -> Do:
        """The upstream's answer is complete."""
        detached, self.state = self.state == "detached", "done"
        return Do.CLOSE if detached else Do.FINISH

    def failed(self) -> Do:
        """No further byte will come: refused, silent, broken off, or beyond a deadline."""
        if self.state in ("waiting", "held"):
            if self._replaceable:
                return self._fall_back()
            self.state = "done"
            return Do.REFUSE
        detached, self.state = self.state == "detached", "done"
        return Do.CLOSE if detached else Do.PASS_ERROR

    def client_left(self) -> Do:
        """The client closed its side."""
        if self.state == "done":
            return Do.NOTHING
        if self.finished_stream:
            self.state = "done"
            return Do.CLOSE
        if self._finish_anyway:
            self.state = "detached"
            return Do.DETACH
        self.state = "done"
        return Do.ABANDON

    def outcome(self, ended: Ended, status: int | None) -> Outcome:
        """How the attempt that just closed is called in the record."""
        if ended == "left":
            return "complete" if self.finished_stream else "client_abort"
        if ended == "failure":
            return "error" if status is None else "upstream_abort"
        return "error" if status is not None and status >= 400 else "complete"

    def _fall_back(self) -> Do:
        self._at += 1
        self.state = "waiting"
        return Do.FALL_BACK
