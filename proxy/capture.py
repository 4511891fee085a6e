"""Frames to the spool, in the order that the promise needs, and the count of everything offered.

REQUEST is in the spool before the upstream is called, RESPONSE before the client has the last byte.
A full spool is the operator's decision: refuse the request, or serve it and count the gap exactly.
The tap never breaks an answer that is under way: such a failure is counted, and logged once.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from threading import Event
from typing import Literal

import msgspec

from understudy.errors import SpoolError
from understudy.exchange import Feedback, RequestMeta, ResponseMeta
from understudy.spool import FrameType, SpoolFull, SpoolWriter

log = logging.getLogger(__name__)
CHUNK_BYTES = 256 * 1024
HEARTBEAT_S = 10.0
_encode = msgspec.json.Encoder().encode


class LogFull(SpoolError):
    """The spool takes nothing, and the operator wants requests refused then."""


class Counts:
    """offered == stored + refused + unlogged + failed + open, at every moment."""

    def __init__(self) -> None:
        self.offered = self.stored = self.refused = self.unlogged = self.failed = 0


class Recording:
    """One attempt's frames: answers are kept as they come, long ones leave memory as CHUNKs."""

    __slots__ = ("_capture", "_full", "_parts", "_size", "attempt_id", "chunks", "seq")

    def __init__(self, capture: "Capture", attempt_id: str, full: bool) -> None:
        self._capture, self.attempt_id, self._full = capture, attempt_id, full
        self._parts: list[bytes] = []
        self._size = self.chunks = 0
        self.seq = -1

    def add(self, data: bytes) -> None:
        """A piece of the answer's body."""
        if not self._full:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > CHUNK_BYTES:
            self._flush()

    def close(self, meta: ResponseMeta, kind: FrameType = FrameType.RESPONSE) -> None:
        """The attempt's end; nothing may follow."""
        meta.chunks = self.chunks
        self._capture.write_end(self, kind, _encode(meta), b"".join(self._parts))
        self._parts = []

    def _flush(self) -> None:
        payload = b"".join(self._parts)
        self._parts, self._size = [], 0
        meta = {"attempt_id": self.attempt_id, "part": self.chunks}
        if self._capture.write(FrameType.CHUNK, _encode(meta), payload) is not None:
            self.chunks += 1
        else:
            self._full = False  # a hole in the middle would be worse than a cut


class Capture:
    """The process's way into its spool. Not thread-safe: the event loop owns it."""

    def __init__(
        self,
        spool: SpoolWriter,
        loop: asyncio.AbstractEventLoop,
        when_full: Literal["reject", "pass_unlogged"] = "reject",
    ) -> None:
        self.spool, self._loop, self.when_full = spool, loop, when_full
        self.counts = Counts()
        self._gap = 0
        self._gap_since = 0
        self._last_append = loop.time()
        self._complained = False

    def begin(self, meta: RequestMeta, body: bytes) -> Recording | None:
        """Append REQUEST; None if the exchange passes unlogged. LogFull if it may not pass."""
        self.counts.offered += 1
        full = meta.level == "full"
        try:
            if self._gap:
                self._write_gap()
            seq = self.spool.append(FrameType.REQUEST, _encode(meta), body if full else b"")
        except SpoolError as error:
            self._refuse(error)
            return None
        self._last_append = self._loop.time()
        recording = Recording(self, meta.attempt_id, full)
        recording.seq = seq
        return recording

    def write_end(self, recording: Recording, kind: FrameType, meta: bytes, body: bytes) -> None:
        """Append RESPONSE or ABORT."""
        seq = self.write(kind, meta, body)
        if seq is None:
            self.counts.failed += 1
        else:
            self.counts.stored += 1
            recording.seq = seq

    def write(self, kind: FrameType, meta: bytes, body: bytes) -> int | None:
        """Append a frame of an exchange that was let in; None if it fails (the caller counts)."""
        try:
            seq = self.spool.append(kind, meta, body)
        except SpoolError as error:
            self._complain(error)
            return None
        self._last_append = self._loop.time()
        return seq

    def feedback(self, feedback: Feedback) -> int:
        """Append FEEDBACK; SpoolError if it cannot be kept."""
        return self.spool.append(FrameType.FEEDBACK, _encode(feedback))

    def when_durable(self, seq: int, then: Callable[[], None]) -> None:
        """Call `then` once frame `seq` is as safe as `capture.fsync` promises; at once for `os`."""
        event = self.spool.durable(seq) if seq >= 0 else None
        if event is None:
            then()
        else:
            self._loop.create_task(self._wait(event, then))

    async def _wait(self, event: Event, then: Callable[[], None]) -> None:
        await self._loop.run_in_executor(None, event.wait, 30)
        then()

    def heartbeat(self) -> None:
        """Append HEARTBEAT after a while without traffic: silence is then no doubt."""
        if self._loop.time() - self._last_append >= HEARTBEAT_S:
            self.write(FrameType.HEARTBEAT, _encode({"at": _now_ms()}), b"")

    def close(self) -> None:
        """The last words: an open gap, then CLOSE."""
        if self._gap:
            try:
                self._write_gap()
            except SpoolError as error:
                log.error("gap of %d unlogged exchanges could not be noted: %s", self._gap, error)
        self.spool.close()

    def _refuse(self, error: SpoolError) -> None:
        self._complain(error)
        if self.when_full == "reject":
            self.counts.refused += 1
            raise LogFull(str(error)) from error
        if not self._gap:
            self._gap_since = _now_ms()
        self._gap += 1
        self.counts.unlogged += 1

    def _write_gap(self) -> None:
        meta = {
            "count": self._gap,
            "reason": "spool_full",
            "since": self._gap_since,
            "until": _now_ms(),
        }
        if self.spool.append(FrameType.GAP, _encode(meta)) >= 0:
            log.warning("spool takes frames again; %d exchanges passed unlogged", self._gap)
            self._gap, self._complained = 0, False

    def _complain(self, error: SpoolError) -> None:
        if not self._complained:
            self._complained = True
            word = "refused" if self.when_full == "reject" else "served unlogged"
            full = isinstance(error, SpoolFull)
            log.error("%s; %s", error, f"requests are {word}" if full else "frame lost")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
