"""The rows on which a student is judged, read from a dataset's folder.

A row is a JSON object, either as `understudy dataset build` writes it (`messages` whose last is the
answer, `tools`, `meta`) or as recordings have it (`request` and `answer` or `answer_message`).
A corrected row's answer is gold: what a user said the teacher should have answered.
Reads of the test set are counted beside it: every look spends a bit of it.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.answer import Answer, from_message, text_of
from understudy.errors import DatasetError
from understudy.lake import Lake

# What of a request shapes the answer; the rest (user, metadata, stream, ...) is not sent again.
_SENT = (
    *("messages", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
    *("response_format", "max_tokens", "max_completion_tokens", "stop", "logit_bias", "seed"),
)
UNKNOWN = Answer("(the dataset keeps the correction instead of the teacher's own answer)")


class Row(NamedTuple):
    """One held-out exchange. Rows of one `cluster` (conversation) are not independent."""

    id: str
    request: dict[str, Any]
    teacher: Answer
    gold: Answer | None
    cluster: str
    attempt_id: str | None = None

    @property
    def reference(self) -> Answer:
        """What counts as right: the gold answer where one was given, else the teacher's."""
        return self.gold or self.teacher

    @property
    def text(self) -> str:
        """What the request says, without the system's constant words: what baselines read."""
        said = (m for m in self.request["messages"] if m.get("role") not in ("system", "developer"))
        return "\n".join(filter(None, (text_of(message.get("content")) for message in said)))


class Reads(NamedTuple):
    """How often, and for how many different students, this test set was looked at."""

    times: int
    students: int


def load(path: Path) -> list[Row]:
    """The rows of a JSON-lines file, in order; DatasetError for a missing or bad file."""
    try:
        with path.open(encoding="utf-8") as lines:
            return list(_rows(path, lines))
    except OSError as error:
        raise DatasetError(
            f"cannot read {path}: {error.strerror}; name a folder of `understudy dataset build`, "
            "or with --test a file of rows"
        ) from error


def count_read(folder: Path, test: Path, student: str) -> Reads:
    """Enter this reading of `test` into the dataset's `reads.json`; its count with this one."""
    beside = Lake(folder)
    every = beside.get_json("reads.json") or []
    every.append({"test": str(test.resolve()), "student": student, "at": time.time()})
    beside.put_json("reads.json", every)
    reads = [read for read in every if read.get("test") == str(test.resolve())]
    return Reads(len(reads), len({read["student"] for read in reads}))


def _rows(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line), number)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{path}:{number}: no row ({type(error).__name__}: {error}); it needs `request` "
                f"and `answer`, build the dataset again"
            ) from error


def _row(data: dict[str, Any], number: int) -> Row:
    meta = data.get("meta") or {}
    given = data.get("request") or {**data, **meta, **(meta.get("params") or {})}
    request = {name: given[name] for name in _SENT if given.get(name) is not None}
    messages = list(request["messages"])
    answer = data.get("answer_message", data.get("answer"))
    answer = _answer(messages.pop() if answer is None else answer)
    gold = data.get("gold")
    return Row(
        id=str(meta.get("exchange_id") or number),
        request={**request, "messages": messages},
        teacher=UNKNOWN if meta.get("corrected") else answer,
        gold=answer if meta.get("corrected") else None if gold is None else _answer(gold),
        cluster=str(meta.get("group") or f"row {number}"),
        attempt_id=meta.get("attempt_id"),
    )


def _answer(value: Any) -> Answer:
    return Answer(value) if isinstance(value, str) else from_message(value)
