"""What the collector does to spools: note how far it is, close those of dead writers, delete.

Nothing that was written is destroyed before it is stored: a torn tail is copied to `<root>/torn/`,
and damage stays where it is for the reader to report.
"""

import fcntl
import itertools
import logging
import os
import time
from pathlib import Path

import msgspec

from understudy.errors import SpoolError
from understudy.spool.frame import Frame, FrameType, encode, find, is_torn, parse
from understudy.spool.reader import SpoolReader, segments

log = logging.getLogger(__name__)


class Cursor(msgspec.Struct, frozen=True):
    """How far a spool is safe elsewhere: everything below `seq` may be unlinked.

    `target` names where it went (`lake` or `kafka`), `partition` is the Kafka partition, fixed at
    the spool's first sight.
    """

    seq: int = 0
    target: str = ""
    partition: int | None = None

    @classmethod
    def load(cls, folder: Path) -> "Cursor":
        """The spool's cursor; the beginning where there is none yet."""
        path = folder / "cursor.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return cls()
        except msgspec.DecodeError as error:
            raise SpoolError(
                f"{path} is damaged ({error}); remove it: lake and topic know what they have"
            ) from error

    def save(self, folder: Path) -> None:
        """Write atomically and durably: tmp, fsync, rename, fsync of the folder."""
        tmp = folder / "cursor.json.tmp"
        with tmp.open("wb") as file:
            file.write(msgspec.json.encode(self))
            file.flush()
            os.fsync(file.fileno())
        tmp.rename(folder / "cursor.json")
        sync_folder(folder)


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


def follow(reader: SpoolReader, max_frames: int) -> list[Frame]:
    """What is there to read; a spool whose writer died is closed, so that its end is read too."""
    frames = reader.read(max_frames)
    if frames or reader.closed or living(reader.folder) or recover(reader.folder) is None:
        return frames
    frames = reader.read(max_frames)
    # Nothing, though it ends with CLOSE: the reader began behind it.
    reader.closed = reader.closed or not frames
    return frames


def recover(folder: Path) -> int | None:
    """Cut a dead spool's torn tail (a copy is kept) and append CLOSE, once; returns the bytes cut.

    None, and nothing is done, while the writer lives or somebody else is at it.
    """
    try:
        fd = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _close_dead(folder)
    except BlockingIOError:
        return None
    except OSError as error:
        raise SpoolError(
            f"cannot close spool {folder}: {error.strerror}; free disk space"
        ) from error
    finally:
        os.close(fd)


def release(folder: Path, seq: int) -> None:
    """Unlink the segments that lie wholly below `seq`; the newest one stays."""
    found = segments(folder)
    for segment, following in itertools.pairwise(found):
        if int(following.stem) <= seq:
            segment.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Delete a closed spool of which everything is stored; the lock goes last but the folder."""
    for path in (*segments(folder), folder / "cursor.json", folder / "cursor.json.tmp"):
        path.unlink(missing_ok=True)
    (folder / "lock").unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError as error:
        log.warning("spool folder %s stays: %s", folder, error.strerror)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
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
    with last.open("rb") as file:
        file.seek(reader.offset)
        rest = file.read()
    if not rest or is_torn(rest, reader.next_seq):
        _cut(last, reader.offset, rest)
        _append_close(last, reader.next_seq, len(rest))
        return len(rest)
    seq = _number_behind(rest, reader.next_seq)
    _append_close(folder / f"{seq:020d}.seg", seq, 0)
    return 0


def _number_behind(rest: bytes, seq: int) -> int:
    """The number after the last intact frame behind damage; frame `seq` at least is lost."""
    at, following = 0, seq + 1
    while (found := find(rest, at, seq)) is not None:
        frame = parse(rest, found)
        assert frame
        at, following = found + frame.size, max(following, frame.seq + 1)
    return following


def _cut(segment: Path, good: int, rest: bytes) -> None:
    if not rest:
        return
    kept = segment.parent.parent / "torn" / f"{segment.parent.name}-{segment.stem}.torn"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(rest)
    os.truncate(segment, good)


def _append_close(segment: Path, seq: int, torn: int) -> None:
    meta = msgspec.json.encode({"at": time.time_ns() // 1_000_000, "recovered": True, "torn": torn})
    with segment.open("ab") as file:
        file.write(encode(seq, FrameType.CLOSE, meta)[0])
        file.flush()
        os.fsync(file.fileno())
    sync_folder(segment.parent)
    log.warning("spool %s: its writer died; %d torn bytes cut, closed", segment.parent.name, torn)
