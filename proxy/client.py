"""What a relay may ask of the client's connection; `downstream` is the one that does it."""

from typing import Protocol

from proxy.message import Head
from proxy.refusal import Refusal


class Client(Protocol):
    """The downstream connection, as far as a relay uses it."""

    def stage_head(self, head: Head, own: bytes) -> None:
        """Put the answer's head into the next write."""

    def stage(self, data: bytes) -> None:
        """Put a piece of the body into the next write."""

    def flush(self) -> None:
        """Write what is staged."""

    def finish(self) -> None:
        """Write what is staged and end the answer."""

    def refuse(self, refusal: Refusal, own: bytes = b"") -> None:
        """Answer an error of our own."""

    def cut(self) -> None:
        """Write what is staged and break the answer off."""

    def interim(self, head: Head) -> None:
        """Pass an interim answer on."""

    def pause_upload(self, paused: bool) -> None:
        """Take no more (or again more) of the request's body."""
