"""The replaying teacher: answers recorded requests from a JSON-lines file, and no others.

A row is `{"request": {...}, "answer": "text"}` or has `answer_message`, an assistant's message.
Requests meet by their canonical messages and tools; sampling fields and the model do not count.
Of rows with one request the first wins and the rest are counted. The answers are held in memory.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from deploy.openai_api import ApiError
from deploy.teacher.answer import Answer, Json, Question, ToolCall, text_of
from understudy.errors import ServingError


class _Row(msgspec.Struct):
    request: Json
    answer: str | None = None
    answer_message: Json | None = None


class ReplayTeacher:
    """Looks the answer up; a question that was not recorded is a 404 that says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = self.duplicates = 0
        self._answers: dict[bytes, Answer] = {}
        for row in _rows(path):
            key = _key(Question(_messages(row.request), row.request.get("tools")))
            self.rows += 1
            self.duplicates += key in self._answers
            self._answers.setdefault(key, _answer(row))

    def answer(self, question: Question) -> Answer:
        """The recorded answer."""
        found = self._answers.get(_key(question))
        if found is None:
            raise ApiError(
                404,
                f"this request is not in the replayed file {self.path.name} "
                f"({len(self._answers)} distinct requests are; messages and tools must be equal)",
                code="not_recorded",
            )
        return found


def _rows(path: Path) -> list[_Row]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ServingError(f"cannot read --replay {path}: {error.strerror}") from error
    decoder = msgspec.json.Decoder(_Row)
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ServingError(f"{path}:{number}: not a recorded row: {error}") from error
        if row.answer is None and row.answer_message is None:
            raise ServingError(f"{path}:{number}: the row has neither answer nor answer_message")
        rows.append(row)
    if not rows:
        raise ServingError(f"--replay {path} has no rows; give it recorded requests")
    return rows


def _messages(request: Json) -> list[Json]:
    if "messages" in request:
        return list(request["messages"])
    return [{"role": "user", "content": str(request.get("prompt", ""))}]


def _key(question: Question) -> bytes:
    """A hash of what was asked: absent and null are one, parts of pure text are their text."""
    canonical = [[_canonical(m) for m in question.messages], question.tools or []]
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).digest()


def _canonical(message: Json) -> Json:
    kept = {name: value for name, value in message.items() if value is not None}
    content: Any = kept.get("content")
    if isinstance(content, list) and all("text" in part for part in content):
        kept["content"] = text_of(content)
    return kept


def _answer(row: _Row) -> Answer:
    message = row.answer_message or {"content": row.answer}
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    )
    return Answer(message.get("content"), calls)
