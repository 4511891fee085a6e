"""The writing side of the spool: O_APPEND, a single writer, no locks in the path.

An append is one writev into the page cache (survives kill -9). `fsync="always"` adds an fdatasync
to each append; `group` leaves it to a flusher thread, and `durable(seq)` waits for it. A short
write or OSError truncates back to the last good byte, so that what follows stays readable; after a
disk error a new segment is begun. The full-spool decision (reject or pass unlogged) is the
caller's: `append` raises `SpoolFull`.
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
from understudy.spool.flusher import GroupFlusher
from understudy.spool.frame import FrameType, encode
from understudy.spool.recovery import sync_folder

log = logging.getLogger(__name__)
Fsync = Literal["os", "group", "always"]
SEGMENT_BYTES = 64 << 20
_CHECK_SPACE_EVERY = 1 << 20  # bytes appended between two looks at the disk
_CHECK_FULL_EVERY_S = (
    0.1  # a full spool is asked for by every request: not each may walk the folder
)
_PENDING_ROOM = 2 << 20  # kept free for the answers of requests that were already let in
# What starts something new has to find room; an answer whose request was let in is always tried.
_ASKS_FOR_ROOM = (FrameType.REQUEST, FrameType.FEEDBACK, FrameType.GAP)


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
        self._room, self._looked_at = True, 0.0
        self._path, self._poisoned = self.folder, False
        try:
            self._create()
        except OSError as error:
            raise SpoolError(
                f"cannot write a spool under {root}: {error.strerror}; "
                "set `spool.path` to a writable folder with free space"
            ) from error
        self._flusher = GroupFlusher() if fsync == "group" else None

    def append(self, kind: FrameType, meta: bytes, payload: bytes = b"") -> int:
        """Write one frame and return its sequence number.

        SpoolFull or SpoolError, and nothing half-done, where it does not fit. An fsync that fails
        under `always` raises too, though the frame is there: its fate on the disk is unknown.
        """
        head, body = encode(self.seq, kind, meta, payload)
        size = len(head) + len(body)
        self._require_room(kind, size)
        if self._needs_segment(size):
            self._rotate()
        self._write(head, body, size)
        seq, self.seq = self.seq, self.seq + 1
        if self._fsync == "always":
            self._sync()
        elif self._flusher:
            self._flusher.written(self._fd, seq)
        return seq

    def durable(self, seq: int) -> "threading.Event | None":
        """With `fsync: group` an event that is set when `seq` is on disk; None where it is."""
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
        try:
            self.append(FrameType.CLOSE, msgspec.json.encode({"at": time.time_ns() // 1_000_000}))
            self._sync()
        except SpoolError as error:  # whoever finds the spool dead writes CLOSE instead
            log.error("spool %s: not closed: %s", self.spool_id, error)
        if self._flusher:
            self._flusher.stop()
        os.close(self._fd)
        os.close(self._lock)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _create(self) -> None:
        """Make folder, lock and first segment; they appear at once, and locked."""
        new = self._root / f"{self.spool_id}.new"
        new.mkdir(parents=True)
        self._lock = os.open(new / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fd = os.open(new / f"{0:020d}.seg", _FLAGS, 0o600)
        new.rename(self.folder)
        self._path = self.folder / f"{0:020d}.seg"
        if self._fsync != "os":
            sync_folder(self.folder)
            sync_folder(self._root)

    def _require_room(self, kind: FrameType, size: int) -> None:
        self._until_check -= size
        if self._until_check <= 0 or (
            not self._room
            and kind in _ASKS_FOR_ROOM
            and time.monotonic() - self._looked_at > _CHECK_FULL_EVERY_S
        ):
            self._look_for_room()
        if not self._room and kind in _ASKS_FOR_ROOM:
            raise SpoolFull(
                f"spool {self._root} is full (cap {self._max_bytes >> 20} MiB, least free disk "
                f"{self._min_free >> 20} MiB): start the collector, or raise `spool.max_gb`"
            )

    def _look_for_room(self) -> None:
        self._until_check, self._looked_at = _CHECK_SPACE_EVERY, time.monotonic()
        free = shutil.disk_usage(self._root).free
        self._room = (
            free > self._min_free + _PENDING_ROOM and self.used_bytes() < self._max_bytes * 0.95
        )

    def _needs_segment(self, size: int) -> bool:
        failed = self._poisoned or (self._flusher is not None and self._flusher.failed)
        return failed or bool(self._at and self._at + size > self._segment_bytes)

    def _write(self, head: bytes, body: bytes, size: int) -> None:
        try:
            written = os.writev(self._fd, (head, body)) if body else os.write(self._fd, head)
            problem = "no space" if written != size else ""  # near a full disk a part is taken
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            self._undo(problem)
            raise SpoolFull(f"spool {self.folder}: {problem}; free disk space")
        self._at += size

    def _undo(self, problem: str) -> None:
        if self._room:  # once per outage, not once per request
            log.warning("spool %s: frame %d: %s", self.spool_id, self.seq, problem)
        self._room, self._looked_at = False, time.monotonic()
        try:
            os.ftruncate(self._fd, self._at)
        except OSError as error:
            log.error("spool %s: cannot truncate: %s", self.spool_id, error)
            self._poisoned = True

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            # After EIO the page cache cannot be trusted: leave this segment, start another.
            self._poisoned = True
            raise SpoolError(f"spool {self.folder}: fsync failed: {error.strerror}") from error

    def _rotate(self) -> None:
        """Begin a segment with the next frame; a failed one of that name is emptied."""
        path = self.folder / f"{self.seq:020d}.seg"
        try:
            fd = os.open(path, _FLAGS | os.O_TRUNC, 0o600)
        except OSError as error:
            raise SpoolFull(f"spool {path}: {error.strerror}; free disk space") from error
        old, self._fd, self._path, self._at, self._poisoned = self._fd, fd, path, 0, False
        if self._flusher:
            self._flusher.retire(old, fd)
        elif self._fsync == "always":
            sync_folder(self.folder)
        if not self._flusher:
            os.close(old)


_FLAGS = os.O_CREAT | os.O_WRONLY | os.O_APPEND
