"""The reading side: frames in order, the collector's cursor, and the recovery of dead spools.

A reader follows a spool while it is being written. A frame that does not parse at the end of the
newest segment is "not there yet"; anywhere else it is damage, and reading stops with SpoolError.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from understudy.errors import SpoolError
from understudy.spool.frame import HEADER, Frame, FrameType, encode, parse

log = logging.getLogger(__name__)
_BLOCK = 4 << 20


class Cursor(msgspec.Struct, frozen=True):
    """How far the collector is: everything below `seq` is safe elsewhere and may be unlinked."""

    seq: int = 0

    @classmethod
    def load(cls, folder: Path) -> "Cursor":
        """The spool's cursor; the beginning where there is none yet."""
        try:
            return msgspec.json.decode((folder / "cursor.json").read_bytes(), type=cls)
        except FileNotFoundError:
            return cls()

    def save(self, folder: Path) -> None:
        """Write atomically and durably: tmp, fsync, rename, fsync of the folder."""
        tmp = folder / "cursor.json.tmp"
        with tmp.open("wb") as file:
            file.write(msgspec.json.encode(self))
            file.flush()
            os.fsync(file.fileno())
        tmp.rename(folder / "cursor.json")
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class SpoolReader:
    """Reads one spool folder from a sequence number on; `read` gives what is there now."""

    def __init__(self, folder: Path, start: int = 0) -> None:
        self.folder = folder
        self.next_seq = start
        self.closed = False  # CLOSE was read: nothing will follow
        self._path: Path | None = None
        self._offset = 0

    def read(self, max_frames: int = 10_000, max_bytes: int = 64 << 20) -> list[Frame]:
        """Up to `max_frames` further frames; an empty list means that nothing new is there."""
        frames: list[Frame] = []
        size = 0
        for frame in self._frames():
            frames.append(frame)
            size += frame.size
            if frame.type is FrameType.CLOSE:
                self.closed = True
            if len(frames) >= max_frames or size >= max_bytes:
                break
        return frames

    def _frames(self) -> Iterator[Frame]:
        while True:
            path = self._segment()
            if path is None:
                return
            yield from self._of_segment(path)
            following = self._successor(path)
            if following is None:
                return
            # The writer rotates only after its last frame: one more look, then move on.
            yield from self._of_segment(path)
            if int(following.stem) != self.next_seq:
                raise SpoolError(
                    f"spool {self.folder}: frame {self.next_seq} is damaged and the next segment "
                    f"starts at {following.stem}; keep the folder and report `logs audit`"
                )
            self._path, self._offset = following, 0

    def _of_segment(self, path: Path) -> Iterator[Frame]:
        with path.open("rb") as file:
            while True:
                file.seek(self._offset)
                block = file.read(_BLOCK)
                if len(block) >= HEADER.size:
                    need = HEADER.size + HEADER.unpack_from(block)[0]
                    if need > len(block):
                        block += file.read(need - len(block))
                at = 0
                while (frame := parse(block, at)) is not None:
                    at += frame.size
                    self._offset += frame.size
                    if frame.seq < self.next_seq:
                        continue
                    if frame.seq != self.next_seq:
                        raise SpoolError(
                            f"{path}: frame {frame.seq} where {self.next_seq} was due; "
                            "keep the folder and report `logs audit`"
                        )
                    self.next_seq += 1
                    yield frame
                if at == 0:
                    return

    def _segment(self) -> Path | None:
        if self._path is None:
            older = [s for s in segments(self.folder) if int(s.stem) <= self.next_seq]
            if not older:
                return None
            self._path, self._offset = older[-1], 0
        return self._path

    def _successor(self, path: Path) -> Path | None:
        return next((s for s in segments(self.folder) if s.stem > path.stem), None)


def segments(folder: Path) -> list[Path]:
    """The spool's segments, oldest first."""
    return sorted(folder.glob("*.seg"))


def spools(root: Path) -> list[Path]:
    """The spool folders below `root`, oldest first (their ids are UUIDv7)."""
    return sorted(path.parent for path in root.glob("*/lock"))


def living(folder: Path) -> bool:
    """Whether the spool's writer process still runs (it holds an flock)."""
    try:
        fd = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def recover(folder: Path) -> int:
    """Truncate a dead spool's torn tail and append CLOSE, once; returns the bytes cut off.

    A no-op while the writer lives, or where CLOSE is already the last frame.
    """
    fd = os.open(folder / "lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return 0
    try:
        return _close_dead(folder)
    finally:
        os.close(fd)


def _close_dead(folder: Path) -> int:
    existing = segments(folder)
    if not existing:
        return 0
    last = existing[-1]
    reader = SpoolReader(folder, int(last.stem))
    while reader.read():
        pass
    if reader.closed:
        return 0
    good = reader._offset if reader._path == last else 0
    torn = last.stat().st_size - good
    meta = msgspec.json.encode({"at": time.time_ns() // 1_000_000, "recovered": True, "torn": torn})
    with last.open("r+b") as file:
        file.truncate(good)
        file.seek(good)
        file.write(encode(reader.next_seq, FrameType.CLOSE, meta)[0])
        file.flush()
        os.fsync(file.fileno())
    log.warning("spool %s: its writer died; %d torn bytes cut, closed", folder.name, torn)
    return torn
