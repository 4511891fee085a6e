"""The reading side: frames in order, whatever the disk did to them.

A reader follows a spool while it is being written. A frame that does not parse at the end of the
newest segment is "not there yet". Anywhere else it is damage: the reader goes on at the next intact
frame and says what is missing by a LOST frame, and the damaged segment is kept in `<root>/torn/`.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from understudy.errors import SpoolError
from understudy.spool.frame import HEADER, Frame, FrameType, find, lost, parse

log = logging.getLogger(__name__)
_BLOCK = 4 << 20


class SpoolReader:
    """Reads one spool folder from a sequence number on; `read` gives what is there now."""

    def __init__(self, folder: Path, start: int = 0) -> None:
        self.folder = folder
        self.next_seq = start
        self.closed = False  # CLOSE was read: nothing will follow
        self.path: Path | None = None  # the segment that is read, and how far
        self.offset = 0

    def read(self, max_frames: int = 10_000, max_bytes: int = 64 << 20) -> list[Frame]:
        """Up to `max_frames` further frames; an empty list means that nothing new is there."""
        frames: list[Frame] = []
        size = 0
        try:
            for frame in self._frames():
                frames.append(frame)
                size += frame.size
                if frame.type is FrameType.CLOSE:
                    self.closed = True
                if len(frames) >= max_frames or size >= max_bytes:
                    break
        except FileNotFoundError:
            # Another collector stored and removed it meanwhile: look anew next time.
            self.path = None
        except OSError as error:
            raise SpoolError(f"cannot read spool {self.folder}: {error.strerror}") from error
        return frames

    def _frames(self) -> Iterator[Frame]:
        while True:
            if self.path is None:
                self.path, self.offset = self._first(), 0
            path = self.path
            if path is None:
                return
            if int(path.stem) > self.next_seq:
                yield self._lose(int(path.stem) - 1, "segment missing")
            yield from self._intact(path)
            following = next((s for s in segments(self.folder) if s.stem > path.stem), None)
            if following is None:
                return
            # The writer rotates after its last frame: one more look, then what is left is damage.
            yield from self._intact(path)
            yield from self._behind_damage(path, int(following.stem))
            self.path, self.offset = following, 0

    def _intact(self, path: Path) -> Iterator[Frame]:
        with path.open("rb") as file:
            while True:
                file.seek(self.offset)
                block = file.read(_BLOCK)
                if len(block) >= HEADER.size:
                    need = HEADER.size + HEADER.unpack_from(block)[0]
                    if len(block) < need <= file.seek(0, os.SEEK_END) - self.offset:
                        file.seek(self.offset)
                        block = file.read(need)
                at = 0
                while (frame := parse(block, at)) is not None:
                    at += frame.size
                    if frame.seq > self.next_seq:
                        yield self._lose(frame.seq - 1, "numbers missing")
                    self.offset += frame.size
                    if frame.seq == self.next_seq:
                        self.next_seq += 1
                        yield frame
                if at == 0:
                    return

    def _behind_damage(self, path: Path, following: int) -> Iterator[Frame]:
        if self.next_seq >= following:
            return
        keep_damaged(path)
        content = path.read_bytes()
        while (at := find(content, self.offset, self.next_seq)) is not None:
            self.offset = at
            yield from self._intact(path)
        if following > self.next_seq:
            yield self._lose(following - 1, "damaged")

    def _lose(self, until: int, reason: str) -> Frame:
        log.error("spool %s: frames %d-%d: %s", self.folder.name, self.next_seq, until, reason)
        frame = lost(self.next_seq, until, reason)
        self.next_seq = until + 1
        return frame

    def _first(self) -> Path | None:
        found = segments(self.folder)
        older = [segment for segment in found if int(segment.stem) <= self.next_seq]
        return older[-1] if older else next(iter(found), None)


def segments(folder: Path) -> list[Path]:
    """The spool's segments, oldest first."""
    return sorted(folder.glob("*.seg"))


def spools(root: Path) -> list[Path]:
    """The spool folders below `root`, oldest first (their ids are UUIDv7)."""
    return sorted(p.parent for p in root.glob("*/lock") if p.parent.suffix != ".new")


def keep_damaged(path: Path) -> None:
    """Give a damaged segment a second name in `<root>/torn/`, where nothing is ever deleted."""
    kept = path.parent.parent / "torn" / f"{path.parent.name}-{path.stem}.damaged"
    kept.parent.mkdir(exist_ok=True)
    try:
        os.link(path, kept)
    except FileExistsError:
        return
    log.error("%s is damaged; a copy is kept as %s", path, kept)
