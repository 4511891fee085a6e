"""The audit: what the writers offered against what the lake holds, counted independently.

Offered comes from the spools' own numbers, stored from the rows in Parquet. Per spool, in frames:
offered == stored + open + waiting + lost. `lost` above 0, a chain with a hole, a row that is there
twice or a number that nobody accounts for is an alarm.
"""

import itertools
import time
from pathlib import Path

import duckdb
import msgspec

from collector.chain import files, partitions, read_footer
from collector.ledger import Footer, SpoolCount
from understudy import views
from understudy.errors import SpoolError
from understudy.lake import Lake
from understudy.spool import SpoolReader, living, segments, spools


class SpoolLine(msgspec.Struct, kw_only=True):
    """One spool in the audit. Frames, but `attempts`, `feedback` (rows) and `gap` (exchanges)."""

    spool_id: str
    state: str  # writing, dead, closed
    partition: str | None = None
    offered: int = 0
    stored: int = 0
    open: int = 0
    waiting: int = 0
    lost: int = 0
    gap: int = 0
    attempts: int = 0
    feedback: int = 0


class Report(msgspec.Struct, kw_only=True):
    """The audit as a whole; `alarms` is empty if nothing is wrong."""

    spools: list[SpoolLine]
    alarms: list[str]
    lag_seconds: float | None  # what the oldest row of the last files had waited
    audited_seconds_ago: float | None

    @property
    def lost(self) -> int:
        """Frames that are lost, over all spools."""
        return sum(line.lost for line in self.spools)


class _Stored(msgspec.Struct):
    attempts: int = 0
    feedback: int = 0
    frames: int = 0
    repeated: int = 0


def audit(lake: Lake, spool_root: Path) -> Report:
    """Count everything anew; reads columns of all rows and the newest segment of each spool."""
    lines: dict[str, SpoolLine] = {}
    alarms: list[str] = []
    connection = views.connect(lake)
    for partition in partitions(lake):
        paths = files(lake, partition)
        footers = [read_footer(path) for path in paths]
        stored = _stored_rows(connection, paths) if paths else {}
        alarms += _holes(partition, footers)
        for spool_id, count in footers[-1].spools.items() if footers else ():
            lines[spool_id] = _line(partition, spool_id, count, footers[-1])
            rows = stored.get(spool_id, _Stored())
            alarms += _disagreements(spool_id, count, rows, lines[spool_id])
    for folder in spools(spool_root):
        _add_waiting(folder, lines, alarms)
    lag, ago = _lag(lake)
    ordered = [lines[name] for name in sorted(lines)]
    return Report(spools=ordered, alarms=alarms, lag_seconds=lag, audited_seconds_ago=ago)


def _stored_rows(connection: duckdb.DuckDBPyConnection, paths: list[Path]) -> dict[str, _Stored]:
    found = connection.execute(
        "SELECT spool_id, count(*) FILTER (kind = 'attempt'), "
        "count(*) FILTER (kind = 'feedback'), sum(frames), "
        "count(*) - count(DISTINCT (kind, seq)) FROM read_parquet(?) GROUP BY 1",
        [[str(path) for path in paths]],
    )
    return {row[0]: _Stored(*map(int, row[1:])) for row in found.fetchall()}


def _line(partition: str, spool_id: str, count: SpoolCount, footer: Footer) -> SpoolLine:
    return SpoolLine(
        spool_id=spool_id,
        state="closed" if count.closed else "open",
        partition=partition,
        offered=count.offered,
        stored=count.stored + count.other,
        open=sum(attempt.frames for attempt in footer.open if attempt.spool_id == spool_id),
        lost=count.lost,
        gap=count.gap,
        attempts=count.attempts,
        feedback=count.feedback,
    )


def _holes(partition: str, footers: list[Footer]) -> list[str]:
    return [
        f"{partition}: no file holds offsets {one.end}-{other.start - 1}"
        for one, other in itertools.pairwise(footers)
        if one.end != other.start
    ]


def _disagreements(spool_id: str, count: SpoolCount, rows: _Stored, line: SpoolLine) -> list[str]:
    found = [f"spool {spool_id}: frames {a}-{b} are lost" for a, b in count.lost_ranges]
    if rows.repeated:
        found.append(f"spool {spool_id}: {rows.repeated} rows are stored twice")
    counted = (count.attempts, count.feedback, count.stored)
    if counted != (rows.attempts, rows.feedback, rows.frames):
        found.append(
            f"spool {spool_id}: footers say {counted} attempts, feedback, frames; the rows are "
            f"{(rows.attempts, rows.feedback, rows.frames)}"
        )
    unaccounted = line.offered - line.stored - line.open - line.lost
    if unaccounted:
        found.append(f"spool {spool_id}: {unaccounted} frames are unaccounted for")
    return found


def _add_waiting(folder: Path, lines: dict[str, SpoolLine], alarms: list[str]) -> None:
    newest = segments(folder)
    if not newest:
        return
    line = lines.setdefault(folder.name, SpoolLine(spool_id=folder.name, state=""))
    reader = SpoolReader(folder, int(newest[-1].stem))
    try:
        while reader.read():
            pass
    except SpoolError as error:
        alarms.append(str(error))
    line.state = "closed" if reader.closed else "writing" if living(folder) else "dead"
    line.waiting = max(0, reader.next_seq - line.offered)
    line.offered = max(line.offered, reader.next_seq)


def _lag(lake: Lake) -> tuple[float | None, float | None]:
    documents = [lake.get_json(key) for key in lake.keys("audit", ".json")]
    documents.sort(key=lambda document: float(document["at"]))
    if not documents:
        return None, None
    return documents[-1]["lag_seconds"], round(time.time() - documents[-1]["at"], 1)
