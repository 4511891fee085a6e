"""What an upstream is to the rest of the proxy: four events, and a call that can be dropped.

A call delivers batches of events to its listener, one batch per read, so that a small answer
leaves in one write: `Head` first, then `bytes` of the body as they came, then `END`; or a `Failure`
at any point, after which nothing follows. Two implementations: `pool` (HTTP/1.1) and
`upstream_litellm`.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

from proxy.message import Head, Request

FailureKind = Literal["connect", "timeout", "closed", "protocol", "provider", "in_band"]


class End:
    """The answer is complete."""


class Failure(NamedTuple):
    """The upstream did not bring its answer to an end."""

    kind: FailureKind
    message: str


END: Final = End()
Event = Head | bytes | End | Failure


class Listener(Protocol):
    """Who hears of a call."""

    def receive(self, events: Sequence[Event]) -> None:
        """A batch of events, in order."""

    def interim(self, head: Head) -> None:
        """An interim answer (1xx) came; it may be passed on."""

    def upload_paused(self, paused: bool) -> None:
        """The upstream takes no more (or again more) of the request's body for now."""


class Call(Protocol):
    """One request under way."""

    def write(self, data: bytes) -> None:
        """Send a further piece of a streamed request body."""

    def write_end(self) -> None:
        """The streamed request body is complete."""

    def pause(self) -> None:
        """Stop reading the answer: the client is slower than the upstream."""

    def resume(self) -> None:
        """Read on."""

    def abort(self) -> None:
        """Drop the call and its connection; no further event comes."""


class Outgoing(NamedTuple):
    """What an attempt sends: the client's request with the body of this attempt.

    `body` is None where it is streamed (`Call.write`). `recoded` says that a compressed body is
    sent in plain, so its content-encoding no longer holds.
    """

    request: Request
    body: bytes | None
    endpoint: str
    recoded: bool = False


class Upstream(Protocol):
    """A teacher's or student's address, ready to be called."""

    name: str
    model: str | None  # what it sends instead of the requested model

    def call(self, outgoing: Outgoing, listener: Listener) -> Call:
        """Send it; events follow, never before this returns."""
