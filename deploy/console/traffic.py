"""What the log says of the last hours: counts, latency and cost by workload and arm.

One in-memory DuckDB. Parquet files never change, so each is read once, without its contents, into a
table of a day's attempts; a refresh costs what is new, however big the lake is. Thread-safe.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from deploy.console import files
from understudy.errors import LakeError
from understudy.lake import Lake
from understudy.views import connect, narrow

WINDOWS = {"15m": 900, "1h": 3_600, "6h": 21_600, "24h": 86_400}
BINS = 60
REFRESH_S = 1.0  # several open pages share what was read within it

_ATTEMPT = """workload, arm, role, served, outcome, error_type, status,
    epoch(requested_at) AS requested_s, duration_ms, ttft_ms, cost_usd"""


class Arm(NamedTuple):
    """One arm of one workload within a window. `cost_usd` is over the `priced` attempts only."""

    workload: str | None
    arm: str
    attempts: int
    served: int
    shadow: int
    fallback: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    ttft_p50_ms: float | None
    priced: int
    cost_usd: float | None
    served_cost_usd: float | None


class Cell(NamedTuple):
    """One arm of one workload in one bin of the time axis."""

    workload: str | None
    arm: str
    bin: int
    served: int
    failed: int
    p95_ms: float | None


class Failure(NamedTuple):
    """How attempts ended otherwise than complete, and how often."""

    workload: str | None
    arm: str
    outcome: str
    error_type: str | None
    attempts: int


class Window(NamedTuple):
    """All figures of one window. The time axis has BINS bins of `bin_s` that begin at `since`."""

    since: float
    now: float
    bin_s: float
    arms: list[Arm]
    cells: list[Cell]
    failures: list[Failure]
    stored_until: float | None
    problem: str | None


_FAILED = "outcome IN ('error', 'upstream_abort', 'unfinished')"
_ARMS = f"""
    SELECT workload, arm, count(*), count(*) FILTER (served),
      count(*) FILTER (role = 'shadow'), count(*) FILTER (role = 'fallback'),
      count(*) FILTER ({_FAILED}),
      quantile_cont(duration_ms, 0.5) FILTER (outcome = 'complete'),
      quantile_cont(duration_ms, 0.95) FILTER (outcome = 'complete'),
      quantile_cont(ttft_ms, 0.5) FILTER (outcome = 'complete'),
      count(cost_usd), sum(cost_usd), sum(cost_usd) FILTER (served)
    FROM attempt WHERE requested_s >= $since GROUP BY ALL ORDER BY ALL"""  # noqa: S608
_CELLS = f"""
    SELECT workload, arm, least({BINS - 1}, floor((requested_s - $since) / $bin_s)::INTEGER) AS bin,
      count(*) FILTER (served), count(*) FILTER ({_FAILED}),
      quantile_cont(duration_ms, 0.95) FILTER (outcome = 'complete')
    FROM attempt WHERE requested_s >= $since GROUP BY ALL ORDER BY ALL"""  # noqa: S608
_FAILURES = """
    SELECT workload, arm, outcome, error_type, count(*) AS n
    FROM attempt WHERE requested_s >= $since AND outcome <> 'complete' GROUP BY ALL
    ORDER BY n DESC LIMIT 50"""
_INSERT = f"""
    INSERT INTO attempt SELECT {_ATTEMPT} FROM exchanges
    WHERE requested_at >= to_timestamp($since)"""  # noqa: S608


class Traffic:
    """Reads the log's newest files again and again."""

    def __init__(self, lake: Lake, clock: Callable[[], float] = time.time) -> None:
        self._lake = lake
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._seen: set[Path] = set()
        self._read_at = float("-inf")
        self._damaged: dict[Path, str] = {}
        self._problem: str | None = None

    def window(self, seconds: int) -> Window:
        """The figures of the last `seconds`, at most a day."""
        with self._lock:
            now = self._clock()
            self._refresh(now)
            bin_s = seconds / BINS
            # The axis is aligned to its bins, so that the bars stand still between two looks.
            since = (now // bin_s + 1) * bin_s - seconds
            return Window(
                since=since,
                now=now,
                bin_s=bin_s,
                arms=[Arm(*row) for row in self._rows(_ARMS, since=since)],
                cells=[Cell(*row) for row in self._rows(_CELLS, since=since, bin_s=bin_s)],
                failures=[Failure(*row) for row in self._rows(_FAILURES, since=since)],
                stored_until=next(
                    iter(self._rows("SELECT max(requested_s) FROM attempt")), (None,)
                )[0],
                problem=self._problem,
            )

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _rows(self, query: str, **parameters: float) -> list[tuple[Any, ...]]:
        if self._connection is None:
            return []
        return self._connection.execute(query, parameters or None).fetchall()

    def _refresh(self, now: float) -> None:
        if now - self._read_at < REFRESH_S:
            return
        try:
            self._take(now - max(WINDOWS.values()))
            self._problem = next(iter(self._damaged.values()), None)
        except (duckdb.Error, LakeError, OSError) as error:
            self._problem = f"the log cannot be read: {str(error).splitlines()[0]}"
        self._read_at = self._clock()

    def _take(self, since: float) -> None:
        if self._connection is None:
            self._connection = _database(self._lake)
        present = files.written(self._lake, since)
        self._insert([path for path in present if path not in self._seen], since)
        self._seen = set(present)
        self._connection.execute("DELETE FROM attempt WHERE requested_s < $since", {"since": since})

    def _insert(self, new: list[Path], since: float) -> None:
        """Take these files' rows; a damaged file is found by halving, named, and left out."""
        if not new or self._connection is None:
            return
        try:
            narrow(self._connection, new)
            self._connection.execute(_INSERT, {"since": since})
        except duckdb.Error as error:
            if len(new) == 1:
                self._damaged[new[0]] = str(error).splitlines()[0]
                return
            half = len(new) // 2
            self._insert(new[:half], since)
            self._insert(new[half:], since)


def _database(lake: Lake) -> duckdb.DuckDBPyConnection:
    connection = connect(lake, files=())
    connection.execute("SET threads = 1")
    connection.execute(f"CREATE TABLE attempt AS SELECT {_ATTEMPT} FROM exchanges LIMIT 0")  # noqa: S608
    return connection
