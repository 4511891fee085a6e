"""Requests and answers themselves: the newest disagreements, and one exchange by its id.

Read on demand only, and only from the files that can hold them: an id is a UUIDv7, so it says when
its exchange happened. Thread-safe; texts come back as they are and must be escaped where shown.
"""

import threading
from typing import Any, NamedTuple
from uuid import UUID

import duckdb

from deploy.console import files
from deploy.console.likeness import same_answer
from understudy.diff import SideBySide, side_by_side
from understudy.errors import LakeError
from understudy.lake import Lake
from understudy.views import connect, narrow

LOOKED_AT = 2_000  # newest pairs that are searched for disagreements
SHOWN = 20
_SPANS_S = (300.0, 1_800.0, 10_800.0)  # looked through one after the other, until it is enough
_LATE_S = 7_200.0  # an exchange's rows are normally written within this time


class Disagreement(NamedTuple):
    """A pair whose answers differ. Times in Unix seconds."""

    exchange_id: str
    at: float
    question: str
    sides: SideBySide
    served_arm: str
    student: str | None


class Disagreements(NamedTuple):
    """The newest pairs that differ, of how many that were looked at."""

    shown: list[Disagreement]
    pairs: int
    differing: int


class Exchange(NamedTuple):
    """All that is logged of one exchange: its attempts (served first) and feedback, by column."""

    exchange_id: str
    attempts: list[dict[str, Any]]
    feedback: list[dict[str, Any]]


_NEWEST = """
    SELECT count(*), min(requested_s) FROM (
      SELECT epoch(requested_at) AS requested_s FROM pairs
      WHERE workload = $workload AND requested_at >= to_timestamp($since)
      ORDER BY requested_s DESC LIMIT $limit)"""
_DIFFERING = """
    SELECT exchange_id, epoch(requested_at), messages, teacher_text, student_text, served_arm,
      student, teacher_choices[1].tool_calls_json, student_choices[1].tool_calls_json
    FROM pairs
    WHERE workload = $workload AND requested_at >= to_timestamp($since)
      AND (teacher_text IS DISTINCT FROM student_text OR
        teacher_choices[1].tool_calls_json IS DISTINCT FROM student_choices[1].tool_calls_json)
    ORDER BY requested_at DESC"""
_ATTEMPTS = """
    SELECT * EXCLUDE (request_raw, response_raw), epoch(requested_at) AS requested_s
    FROM exchanges WHERE exchange_id = $id ORDER BY served DESC, requested_at, attempt_id"""
_FEEDBACK = "SELECT *, epoch(created_at) AS created_s FROM feedback WHERE exchange_id = $id"


class Contents:
    """Looks into the log's Parquet files."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def disagreements(self, workload: str, now: float, seconds: float) -> Disagreements:
        """The newest pairs of the last `seconds` that differ; LakeError if it is unreadable."""
        pairs, oldest = 0, now
        for span in (*(span for span in _SPANS_S if span < seconds), seconds):
            values = {"workload": workload, "since": now - span, "limit": LOOKED_AT}
            pairs, oldest = self._ask(now - span, _NEWEST, values)[0]
            if pairs == LOOKED_AT:
                break
        if not pairs:
            return Disagreements([], 0, 0)
        rows = self._ask(oldest, _DIFFERING, {"workload": workload, "since": oldest})
        differing = [row for row in rows if not _alike(row)]
        return Disagreements([_shown(row) for row in differing[:SHOWN]], pairs, len(differing))

    def exchange(self, exchange_id: str) -> Exchange | None:
        """Everything about one exchange, or None if the log has no such id."""
        at = _time_of(exchange_id)
        for until in (at + _LATE_S, float("inf")) if at else (float("inf"),):
            attempts = self._table(at, until, _ATTEMPTS, exchange_id)
            if attempts:
                feedback = self._table(at, float("inf"), _FEEDBACK, exchange_id)
                return Exchange(exchange_id, attempts, feedback)
        return None

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _table(self, since: float, until: float, query: str, id_: str) -> list[dict[str, Any]]:
        with self._lock:
            answer = self._execute(since, until, query, {"id": id_})
            names = [column[0] for column in answer.description or ()]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def _ask(self, since: float, query: str, parameters: dict[str, Any]) -> list[Any]:
        with self._lock:
            return self._execute(since, float("inf"), query, parameters).fetchall()

    def _execute(
        self, since: float, until: float, query: str, parameters: dict[str, Any]
    ) -> duckdb.DuckDBPyConnection:
        try:
            if self._connection is None:
                self._connection = connect(self._lake, files=())
                self._connection.execute("SET threads = 1")
            narrow(self._connection, files.written(self._lake, since, until))
            return self._connection.execute(query, parameters)
        except duckdb.Error as error:
            first = str(error).splitlines()[0]
            raise LakeError(
                f"the log cannot be read: {first}; see `understudy logs audit`"
            ) from error


def _alike(row: tuple[Any, ...]) -> bool:
    _, _, _, teacher, student, _, _, teacher_calls, student_calls = row
    return same_answer(teacher, student) and same_answer(teacher_calls, student_calls)


def _shown(row: tuple[Any, ...]) -> Disagreement:
    id_, at, messages, teacher, student, served_arm, name, teacher_calls, student_calls = row
    sides = side_by_side(_answer(teacher, teacher_calls), _answer(student, student_calls))
    return Disagreement(id_, at, _question(messages), sides, served_arm, name)


def _answer(text: str | None, calls: str | None) -> str:
    return "\n".join(part for part in (text, calls) if part)


def _question(messages: list[dict[str, Any]] | None) -> str:
    """What the user said last."""
    said = [m["content"] or "" for m in messages or [] if m["role"] == "user"]
    return said[-1] if said else ""


def _time_of(exchange_id: str) -> float:
    """Unix seconds of a UUIDv7; 0 for any other id."""
    try:
        value = UUID(exchange_id)
    except ValueError:
        return 0.0
    return (value.int >> 80) / 1000 if value.version == 7 else 0.0
