"""The writing side of the spool: O_APPEND, a single writer, no locks in the path.

An append is one writev into the page cache (survives kill -9). `fsync="always"` adds an fdatasync
to each append; `group` leaves it to a flusher thread, and `durable(seq)` waits for it. A short
write or OSError truncates back to the last good byte, so that what follows stays readable.
The full-spool decision (reject or pass unlogged) is the caller's: `append` raises `SpoolFull`.
"""

import fcntl
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from understudy.errors import SpoolError
from understudy.ids import uuid7
from understudy.spool.frame import FrameType, encode

log = logging.getLogger(__name__)
Fsync = Literal["os", "group", "always"]
SEGMENT_BYTES = 64 << 20
_CHECK_SPACE_EVERY = 1 << 20  # bytes appended between two looks at the disk
_PENDING_ROOM = 2 << 20  # kept free for the answers of requests that were already let in


class SpoolFull(SpoolError):
    """The spool's cap or the disk's free space is used up: the policy decides what happens now."""


class SpoolWriter:
    """Appends frames to `<root>/<spool_id>/`. Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        root: Path,
        *,
        fsync: Fsync = "os",
        segment_bytes: int = SEGMENT_BYTES,
        max_bytes: int = 10 << 30,
        min_free_bytes: int = 256 << 20,
    ) -> None:
        self.spool_id = uuid7()
        self.folder = root / self.spool_id
        self.seq = 0
        self._root, self._fsync, self._segment_bytes = root, fsync, segment_bytes
        self._max_bytes, self._min_free = max_bytes, min_free_bytes
        self._fd, self._at, self._until_check = -1, 0, 0
        self._room = True
        try:
            self.folder.mkdir(parents=True)
            self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._rotate()
        except OSError as error:
            raise SpoolError(
                f"cannot write a spool under {root}: {error.strerror}; "
                "set `spool.path` to a writable folder with free space"
            ) from error
        self._flusher = _GroupFlusher() if fsync == "group" else None

    def append(self, kind: FrameType, meta: bytes, payload: bytes = b"") -> int:
        """Write one frame and return its sequence number; SpoolFull or SpoolError, nothing half-done.

        Only REQUEST and FEEDBACK ask for room: an answer whose request was let in is always tried.
        """
        head, body = encode(self.seq, kind, meta, payload)
        size = len(head) + len(body)
        if self._at and self._at + size > self._segment_bytes:
            self._rotate()
        self._until_check -= size
        if self._until_check <= 0:
            self._look_for_room()
        if not self._room and kind in (FrameType.REQUEST, FrameType.FEEDBACK):
            self._look_for_room()
            if not self._room:
                raise SpoolFull(self._full_message())
        self._write(head, body, size)
        seq, self.seq = self.seq, self.seq + 1
        if self._fsync == "always":
            self._sync()
        elif self._flusher:
            self._flusher.written(self._fd, seq)
        return seq

    def durable(self, seq: int) -> "threading.Event | None":
        """With `fsync: group` an event that is set once `seq` is on disk; None where it already is."""
        return self._flusher.wait_for(seq) if self._flusher else None

    def used_bytes(self) -> int:
        """Bytes of all segments below the root, other writers' included: the cap is the host's."""
        total = 0
        for path in self._root.glob("*/*.seg"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue  # the collector unlinked it meanwhile
        return total

    def close(self) -> None:
        """Write CLOSE, sync, let the lock go. The folder is then the collector's to delete."""
        if self._fd < 0:
            return
        meta = msgspec.json.encode({"at": time.time_ns() // 1_000_000})
        self.append(FrameType.CLOSE, meta)
        if self._flusher:
            self._flusher.stop()
        self._sync()
        os.close(self._fd)
        os.close(self._lock)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, head: bytes, body: bytes, size: int) -> None:
        try:
            written = os.writev(self._fd, (head, body)) if body else os.write(self._fd, head)
        except OSError as error:
            self._undo()
            raise SpoolFull(f"spool {self.folder}: {error.strerror}; free disk space") from error
        if written != size:  # near a full disk the kernel takes a part of the frame
            self._undo()
            self._room = False
            raise SpoolFull(self._full_message())
        self._at += size

    def _undo(self) -> None:
        os.ftruncate(self._fd, self._at)
        log.warning("spool %s: frame %d did not fit, truncated back", self.spool_id, self.seq)

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            # After EIO the page cache cannot be trusted: leave this segment, start another.
            log.error("spool %s: fsync failed: %s", self.spool_id, error)
            self._rotate()
            raise SpoolError(f"spool {self.folder}: fsync failed: {error.strerror}") from error

    def _rotate(self) -> None:
        path = self.folder / f"{self.seq:020d}.seg"
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
        fd = os.open(path, flags, 0o600)
        if self._fd >= 0:
            if self._fsync != "os":
                os.fdatasync(self._fd)
            os.close(self._fd)
        self._fd, self._at = fd, os.fstat(fd).st_size

    def _look_for_room(self) -> None:
        self._until_check = _CHECK_SPACE_EVERY
        free = shutil.disk_usage(self.folder).free
        self._room = (
            free > self._min_free + _PENDING_ROOM and self.used_bytes() < self._max_bytes * 0.95
        )

    def _full_message(self) -> str:
        return (
            f"spool {self._root} is full ({self.used_bytes() >> 20} MiB used, cap "
            f"{self._max_bytes >> 20} MiB, {shutil.disk_usage(self.folder).free >> 20} MiB free on "
            "disk): start the collector, or raise `spool.max_gb`"
        )


class _GroupFlusher:
    """A thread that fdatasyncs what was written since, and then releases everyone who waits."""

    def __init__(self) -> None:
        self._wake, self._mutex = threading.Event(), threading.Lock()
        self._fd, self._written, self._synced, self._stopping = -1, -1, -1, False
        self._waiting: list[tuple[int, threading.Event]] = []
        self._thread = threading.Thread(target=self._run, name="spool-fsync", daemon=True)
        self._thread.start()

    def written(self, fd: int, seq: int) -> None:
        with self._mutex:
            self._fd, self._written = fd, seq
        self._wake.set()

    def wait_for(self, seq: int) -> threading.Event | None:
        with self._mutex:
            if self._synced >= seq:
                return None
            event = threading.Event()
            self._waiting.append((seq, event))
        return event

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not (self._stopping and self._synced >= self._written):
            self._wake.wait()
            self._wake.clear()
            with self._mutex:
                fd, seq = self._fd, self._written
            if seq > self._synced:
                self._flush(fd, seq)

    def _flush(self, fd: int, seq: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError as error:  # the segment was rotated (and synced) or the disk failed
            log.error("spool fsync failed: %s", error)
        with self._mutex:
            self._synced = seq
            ready = [event for want, event in self._waiting if want <= seq]
            self._waiting = [(want, event) for want, event in self._waiting if want > seq]
        for event in ready:
            event.set()
