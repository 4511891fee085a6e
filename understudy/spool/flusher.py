"""The group fsync: a thread that syncs what was written since, and then releases all who wait."""

import logging
import os
import threading

log = logging.getLogger(__name__)


class GroupFlusher:
    """fdatasyncs the segment in use, and closes those that are retired: no sync is missed."""

    def __init__(self) -> None:
        self.failed = False  # the disk refused: the writer begins a new segment and clears it
        self._wake, self._mutex = threading.Event(), threading.Lock()
        self._fd, self._written, self._synced, self._stopping = -1, -1, -1, False
        self._retired: list[int] = []
        self._waiting: list[tuple[int, threading.Event]] = []
        self._thread = threading.Thread(target=self._run, name="spool-fsync", daemon=True)
        self._thread.start()

    def written(self, fd: int, seq: int) -> None:
        """Frame `seq` is in `fd`'s page cache."""
        with self._mutex:
            self._fd, self._written = fd, seq
        self._wake.set()

    def retire(self, old: int, new: int) -> None:
        """The writer is done with segment `old`; it is synced with the next flush, then closed."""
        with self._mutex:
            self._retired.append(old)
            self._fd, self.failed = new, False
        self._wake.set()

    def wait_for(self, seq: int) -> threading.Event | None:
        """An event that is set when `seq` is on disk; None where it is already."""
        with self._mutex:
            if self._synced >= seq:
                return None
            event = threading.Event()
            self._waiting.append((seq, event))
        return event

    def stop(self) -> None:
        """Flush what is there and end the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not (self._stopping and self._synced >= self._written and not self._retired):
            self._wake.wait()
            self._wake.clear()
            with self._mutex:
                fd, seq, retired = self._fd, self._written, self._retired
                self._retired = []
            for old in retired:
                self._sync(old)
                os.close(old)
            if seq > self._synced:
                self._sync(fd)
            self._release(seq)

    def _sync(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError as error:
            # Those who wait are released all the same: waiting longer makes nothing safer.
            log.error("spool: fsync failed: %s; a new segment is begun", error)
            self.failed = True

    def _release(self, seq: int) -> None:
        with self._mutex:
            self._synced = max(seq, self._synced)
            ready = [event for want, event in self._waiting if want <= seq]
            self._waiting = [(want, event) for want, event in self._waiting if want > seq]
        for event in ready:
            event.set()
