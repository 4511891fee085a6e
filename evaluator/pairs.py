"""New rows of the lake as the monitor sees them: pairs to compare, student calls to count.

Reads only what a new Parquet file can have changed: the new files for calls, the new and the recent
ones for pairs, whose two halves may lie in different files. A pair is given once. Calls that the
client broke off, or whose proxy died, say nothing of the student and are left out.
"""

from pathlib import Path
from typing import NamedTuple

from evaluator.answer import Answer, from_choice
from evaluator.scorer import choose
from understudy.lake import Lake
from understudy.views import connect, narrow

LOOKBACK_S = 3600
"""Seconds between the files of a pair's halves, at most; both are written by one collector."""


class Pair(NamedTuple):
    """Both answers to one exchange; `at` in Unix seconds, `score` the hybrid router's, if any."""

    exchange_id: str
    workload: str
    student: str
    at: float
    teacher: Answer
    answer: Answer
    score: float | None


class Call(NamedTuple):
    """One attempt of a student; `duration_ms` is None where it failed or was not measured."""

    workload: str
    student: str
    at: float
    failed: bool
    duration_ms: float | None


class News(NamedTuple):
    """What is new since the last reading, each in the order of time."""

    pairs: list[Pair]
    calls: list[Call]


class PairReader:
    """Gives every pair and call of a lake once. Holds a connection; not thread-safe."""

    def __init__(self, lake: Lake) -> None:
        self._root = lake.root
        self._connection = connect(lake)
        self._known: set[Path] = set()
        self._seen: set[str] = set()

    def read(self) -> News:
        """What is new; an exception leaves this reader unusable, make another."""
        found = set(self._root.glob("log/*/*.parquet"))
        fresh = found - self._known
        if not fresh:
            return News([], [])
        narrow(self._connection, sorted(fresh))
        calls = [Call(*row) for row in self._connection.execute(_CALLS).fetchall()]
        recent = _recent(found, fresh)
        narrow(self._connection, sorted(recent))
        pairs = [_pair(row) for row in self._connection.execute(_PAIRS).fetchall()]
        new = [pair for pair in pairs if pair.exchange_id not in self._seen]
        # An exchange whose files are all too old to be looked at again needs not be remembered.
        self._seen = {pair.exchange_id for pair in pairs}
        self._known = found
        return News(new, calls)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


def _recent(found: set[Path], fresh: set[Path]) -> set[Path]:
    oldest = min(path.stat().st_mtime for path in fresh) - LOOKBACK_S
    return {path for path in found if path.stat().st_mtime >= oldest}


def _pair(row: tuple[str, str, str, float, dict[str, str], dict[str, str], float | None]) -> Pair:
    exchange_id, workload, student, at, teacher, answer, score = row
    return Pair(
        exchange_id, workload, student, at, from_choice(teacher), from_choice(answer), score
    )


_PAIRS = """
SELECT exchange_id, workload, student, epoch_ms(requested_at) / 1000, teacher_choices[1],
  student_choices[1], router_score
FROM pairs
WHERE workload IS NOT NULL AND student IS NOT NULL AND len(teacher_choices) > 0
  AND len(student_choices) > 0
ORDER BY requested_at, exchange_id
"""
_CALLS = """
SELECT workload, adapter, epoch_ms(requested_at) / 1000, failed,
  CASE WHEN NOT failed THEN duration_ms END
FROM (SELECT *, outcome <> 'complete' OR coalesce(status, 0) NOT BETWEEN 200 AND 299 AS failed
  FROM exchanges
  WHERE arm = 'student' AND workload IS NOT NULL AND adapter IS NOT NULL
    AND outcome NOT IN ('client_abort', 'unfinished'))
ORDER BY requested_at, attempt_id
"""


def same(scorer: str, teacher: Answer, answer: Answer) -> bool:
    """Whether two answers of one exchange say the same, by the workload's scorer.

    `auto` is decided by each teacher answer for itself, so that it never changes its mind: JSON
    objects by their value, the rest as text.
    """
    return choose(scorer, [teacher]).agree(teacher, answer)
