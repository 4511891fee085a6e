"""The sink without Kafka: follows every spool below the root and puts its frames into the lake.

Spools of dead writers are closed; a segment is unlinked when all of it is stored, a folder when the
spool is closed and all of it is stored. Two of these on one spool are harmless: one loses the race
for each file and reads again from what is stored.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from collector.chain import remove_torn
from collector.crash import crash_point
from collector.partition import Flushed, Partition
from understudy.config import Config
from understudy.errors import LakeError, SpoolError
from understudy.lake import Lake
from understudy.spool import Cursor, SpoolReader, follow, living, release, remove, spools

log = logging.getLogger(__name__)
_IDLE_S = 0.1
_RETRY_S = 2.0
_FRAMES_AT_ONCE = 2000
_LAST_LOOK_S = 5.0
_HALF_MADE_AGE_S = 60


class Follower:
    """One spool folder and its partition."""

    def __init__(self, folder: Path, open_partition: Callable[[str, int], Partition]) -> None:
        self.folder, self._open = folder, open_partition
        self.reopen()

    def reopen(self) -> None:
        """Begin from what the lake has; frames that were taken and not stored are read again."""
        first = Cursor.load(self.folder).seq
        self.partition = self._open(f"spool-{self.folder.name}", first)
        self._reader = SpoolReader(self.folder, self.partition.next_offset)

    def read(self) -> int:
        """Take what is there, up to a full file; returns how many frames that were."""
        if self.partition.full:
            return 0
        frames = follow(self._reader, _FRAMES_AT_ONCE)
        for frame in frames:
            self.partition.take(frame.seq, self.folder.name, frame)
        return len(frames)

    def flush(self) -> None:
        """Store what is finished and forget the segments that this makes safe."""
        result = self.partition.flush()
        if result is Flushed.LOST_RACE:
            self.reopen()
        elif result is Flushed.STORED:
            Cursor(self.partition.safe_offset, "lake").save(self.folder)
            crash_point("after-cursor")
            release(self.folder, self.partition.safe_offset)

    @property
    def closed(self) -> bool:
        """Whether CLOSE was read, now or by a sink before us: nothing is worth waiting for."""
        return self._reader.closed or self.partition.complete

    def finish(self) -> bool:
        """Remove the folder if its spool is closed and stored; True if it is gone."""
        nothing_new = self._reader.closed and not self.partition.ledger.spools
        if not (self.partition.complete or nothing_new):
            return False
        crash_point("before-remove")
        remove(self.folder)
        return True


class Embedded:
    """All spools of this host. `stop` ends `run`, which flushes before it returns."""

    def __init__(self, config: Config, lake: Lake, *, flush_s: float | None = None) -> None:
        self._root, self._lake, self._config = config.spool.path, lake, config
        self._flush_s = config.collector.flush_s if flush_s is None else flush_s
        self._followers: dict[Path, Follower] = {}
        self._stop = threading.Event()
        self._retry_at, self._failing = 0.0, False

    def stop(self) -> None:
        """Ask `run` to flush and return; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Follow the spools until `stop`."""
        self._clean()
        log.info("collecting %s into %s", self._root, self._lake.root)
        while not self._stop.is_set():
            taken = self._step()
            self._flush(lambda follower: follower.partition.due)
            if not taken:
                self._stop.wait(_IDLE_S)
        self._finish()

    def run_once(self) -> None:
        """Store what is there and return; LakeError where that is impossible."""
        self._clean()
        while self._step(strict=True):
            for follower in list(self._followers.values()):
                if follower.partition.full:
                    follower.flush()
        for follower in list(self._followers.values()):
            follower.flush()
            self._drop_if_finished(follower)

    def _finish(self) -> None:
        """Store what is there now; a busy writer's newest frames may stay for the next start."""
        self._retry_at = 0.0
        deadline = time.monotonic() + _LAST_LOOK_S
        while self._step() and time.monotonic() < deadline:
            self._flush(lambda follower: follower.partition.full)
        self._flush(lambda _: True)

    def _clean(self) -> None:
        remove_torn(self._lake)
        remove_half_made(self._root)

    def _step(self, *, strict: bool = False) -> int:
        """Read every spool once; returns the frames taken. A failing one is only told of."""
        folders = spools(self._root)
        for gone in self._followers.keys() - set(folders):
            del self._followers[gone]  # another collector has stored and removed it
        taken = 0
        for folder in folders:
            try:
                taken += self._follower(folder).read()
            except (SpoolError, LakeError) as error:
                if strict:
                    raise
                self._complain(error)
        return taken

    def _follower(self, folder: Path) -> Follower:
        if folder not in self._followers:
            self._followers[folder] = Follower(folder, self._open)
        return self._followers[folder]

    def _open(self, name: str, first: int) -> Partition:
        settings = self._config.collector
        return Partition(
            self._lake,
            name,
            self._config.prices,
            flush_rows=settings.flush_rows,
            flush_s=self._flush_s,
            stale_s=settings.stream_timeout_s,
            first=first,
        )

    def _flush(self, wanted: Callable[[Follower], bool]) -> None:
        """Flush the followers that want it; what fails stays in the spool and is tried again."""
        if time.monotonic() < self._retry_at:
            return
        for follower in list(self._followers.values()):
            closed = follower.closed
            if not (wanted(follower) or closed):
                continue
            try:
                follower.flush()
                self._drop_if_finished(follower)
                self._failing = False
            except (SpoolError, LakeError) as error:
                self._complain(error)
                self._retry_at = time.monotonic() + _RETRY_S
                return

    def _drop_if_finished(self, follower: Follower) -> None:
        if follower.finish():
            del self._followers[follower.folder]

    def _complain(self, error: Exception) -> None:
        if not self._failing:  # once per outage
            log.error("%s; nothing is lost, the spool keeps it; trying on", error)
        self._failing = True


def remove_half_made(root: Path) -> None:
    """Delete spools whose writer died before they got their name: they hold no frame."""
    for lock in root.glob("*.new/lock"):
        old = time.time() - lock.stat().st_mtime > _HALF_MADE_AGE_S
        if old and not living(lock.parent):
            shutil.rmtree(lock.parent, ignore_errors=True)
