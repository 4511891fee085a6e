"""New rows of the lake as the monitor sees them: pairs to compare, student calls to count.

Reads only what a new Parquet file can have changed: the new files for calls, the new and the recent
ones for pairs, whose two halves may lie in different files. A pair is given once. Calls that the
client broke off, or whose proxy died, say nothing of the student and are left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from evaluator.answer import Answer, from_choice
from evaluator.scorer import choose
from understudy.lake import Lake
from understudy.views import connect, narrow

LOOKBACK_S = 600
"""Seconds between the files of a pair's halves, at most: a pair further apart is not seen.

One collector writes both, seconds apart; a longer look back would read the same rows more often.
"""
_BATCH = 2000


class Pair(NamedTuple):
    """Two answers to one exchange; `at` in Unix seconds, `score` the hybrid router's, if any."""

    workload: str
    student: str
    at: float
    agreed: bool
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

    def read(self, scorers: Mapping[str, str]) -> News:
        """What is new of the workloads in `scorers` (workload -> the gate's scorer).

        An exception leaves this reader unusable: make another.
        """
        found = set(self._root.glob("log/*/*.parquet"))
        fresh = found - self._known
        if not fresh:
            return News([], [])
        narrow(self._connection, sorted(fresh))
        calls = [Call(*row) for row in self._connection.execute(_CALLS).fetchall()]
        narrow(self._connection, sorted(_recent(found, fresh)))
        pairs = self._pairs(scorers)
        self._known = found
        return News(pairs, [call for call in calls if call.workload in scorers])

    def _pairs(self, scorers: Mapping[str, str]) -> list[Pair]:
        """Answers are compared as they come, so that a long history is never held as text."""
        new, looked_at = [], set()
        rows = self._connection.execute(_PAIRS)
        while batch := rows.fetchmany(_BATCH):
            for exchange_id, workload, student, at, teacher, answer, score in batch:
                looked_at.add(exchange_id)
                if workload in scorers and exchange_id not in self._seen:
                    agreed = same(scorers[workload], from_choice(teacher), from_choice(answer))
                    new.append(Pair(workload, student, at, agreed, score))
        # An exchange whose files are all too old to be looked at again needs not be remembered.
        self._seen = looked_at
        return new

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


def _recent(found: set[Path], fresh: set[Path]) -> set[Path]:
    oldest = min(path.stat().st_mtime for path in fresh) - LOOKBACK_S
    return {path for path in found if path.stat().st_mtime >= oldest}


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
