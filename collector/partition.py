"""One partition on its way to Parquet: ledger, rows, files and the audit's counts.

A flush puts one file, and only then may a source forget frames. If another sink was first, or the
state in the lake is newer, `flush` says LOST_RACE and the partition has to be opened again.
"""

import logging
import time
from collections.abc import Callable, Mapping
from enum import Enum

import msgspec

from collector.chain import Chain
from collector.crash import crash_point
from collector.ledger import Attempt, Ledger, SpoolCount, Word
from collector.row import RowMaker, table
from understudy.config import Price
from understudy.lake import Lake
from understudy.spool import Frame

log = logging.getLogger(__name__)
_MAX_BYTES = 128 << 20  # of bodies in a file, before compression: bounds memory
_MAX_EMPTY_FRAMES = 10_000  # frames without a row (heartbeats) until a file notes the progress


class Flushed(Enum):
    """How a flush went."""

    NOTHING = "nothing to do"
    STORED = "stored"
    LOST_RACE = "another sink was first"


class SpoolAudit(msgspec.Struct, frozen=True, kw_only=True):
    """One spool's frames and rows in `audit/<partition>.json`."""

    spool_id: str
    offered: int
    stored: int
    attempts: int
    feedback: int
    gap: int
    lost: int
    lost_ranges: list[tuple[int, int]]
    open: int
    closed: bool


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """`audit/<partition>.json`: offered == stored + open + lost, in frames, per spool."""

    partition: str
    at: float
    next_offset: int
    lag_seconds: float  # how long the oldest row of the last file had waited for it
    refused: int  # frames that came twice or too early
    spools: list[SpoolAudit]


class Partition:
    """Takes frames in and puts files out. `first`: the first number of spools unseen so far."""

    def __init__(
        self,
        lake: Lake,
        name: str,
        prices: Mapping[str, Price],
        *,
        flush_rows: int,
        flush_s: float,
        stale_s: float,
        first: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._lake, self.name, self._now = lake, name, now
        self._flush_rows, self._flush_s, self._stale_s = flush_rows, flush_s, stale_s
        self._chain, self._rows = Chain(lake, name), RowMaker(prices)
        footer = self._chain.newest()
        self.ledger = Ledger(footer, first)
        self._start = footer.end if footer else first
        self._closed = self._closed_spools()
        self.safe_offset = self.ledger.next_offset
        self._bytes = self._refused = 0
        self._flushed_at, self._lag_s = now(), 0.0

    @property
    def next_offset(self) -> int:
        """The offset to read on from."""
        return self.ledger.next_offset

    @property
    def full(self) -> bool:
        """Whether enough rows wait for a file of their own."""
        return len(self.ledger.finished) >= self._flush_rows or self._bytes >= _MAX_BYTES

    @property
    def due(self) -> bool:
        """Whether a flush has to happen now, by rows, bytes or time."""
        return self.full or self._now() - self._flushed_at >= self._flush_s

    @property
    def complete(self) -> bool:
        """Whether every spool is closed and all of it is in files."""
        closed = all(count.closed for count in self.ledger.spools.values())
        return closed and bool(self.ledger.spools) and not self._needs_file()

    def take(self, offset: int, spool_id: str, frame: Frame) -> None:
        """Take one frame."""
        before = len(self.ledger.finished)
        self._refused += not self.ledger.take(offset, spool_id, frame)
        for finished in self.ledger.finished[before:]:
            self._bytes += finished.size if isinstance(finished, Attempt) else 0

    def skip(self, offset: int) -> None:
        """Pass over an offset that holds no frame."""
        self.ledger.next_offset = offset + 1

    def jump(self, offset: int) -> None:
        """Go on at `offset`: what lies before it is gone, and booked as lost when it shows."""
        self.ledger.jump(offset)

    def flush(self) -> Flushed:
        """Put what is finished into a file, if there is anything; then write the audit's counts.

        LakeError where the lake cannot be written: everything is kept, and may be tried again.
        """
        if self.next_offset < self._start:
            return Flushed.NOTHING  # a restart still reads again what is open
        result = Flushed.NOTHING
        self.ledger.end_stale(int((self._now() - self._stale_s) * 1000))
        if self._needs_file():
            if not self._append():
                return Flushed.LOST_RACE
            result = Flushed.STORED
        self._flushed_at = self._now()
        self._write_audit()
        return result

    def _append(self) -> bool:
        finished = self.ledger.finished
        rows = [self._rows.row(item) for item in finished]
        footer = self.ledger.footer(self._start)
        crash_point("before-file")
        if not self._chain.append(table(rows), footer):
            log.info("%s: another sink stored %d first", self.name, self._start)
            return False
        crash_point("after-file")
        self._lag_s = self._waited_s(finished)
        self._start, self.safe_offset = footer.end, footer.restart
        self._closed, self._bytes = self._closed_spools(), 0
        log.info("%s: %d rows stored, up to offset %d", self.name, len(rows), footer.end)
        self.ledger.finished = []
        return True

    def _needs_file(self) -> bool:
        return (
            bool(self.ledger.finished)
            or self.next_offset - self._start >= _MAX_EMPTY_FRAMES
            or self._closed_spools() != self._closed
        )

    def _closed_spools(self) -> int:
        """Closed spools with something to tell; one that saw no request leaves no file."""
        counts = self.ledger.spools.values()
        return sum(c.closed and bool(c.stored or c.gap or c.lost) for c in counts)

    def _waited_s(self, finished: list[Attempt | Word]) -> float:
        ends = [
            a.meta.requested_at + (a.end.duration_ms or 0 if a.end else 0)
            for a in finished
            if isinstance(a, Attempt)
        ]
        return max(0.0, self._now() - min(ends) / 1000) if ends else 0.0

    def _write_audit(self) -> None:
        audit = Audit(
            partition=self.name,
            at=self._now(),
            next_offset=self.next_offset,
            lag_seconds=round(self._lag_s, 3),
            refused=self._refused,
            spools=[self._audit(name, count) for name, count in self.ledger.spools.items()],
        )
        self._lake.put(f"audit/{self.name}.json", msgspec.json.encode(audit))

    def _audit(self, spool_id: str, count: SpoolCount) -> SpoolAudit:
        return SpoolAudit(
            spool_id=spool_id,
            offered=count.offered,
            stored=count.stored + count.other,
            attempts=count.attempts,
            feedback=count.feedback,
            gap=count.gap,
            lost=count.lost,
            lost_ranges=count.lost_ranges,
            open=self.ledger.open_frames(spool_id),
            closed=count.closed,
        )
