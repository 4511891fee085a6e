"""A dataset's row: OpenAI messages whose last is the assistant's, with tools and lineage.

Messages stay as they are on the wire (tool arguments are JSON strings), so that an evaluator can
send them again. The log keeps content parts and tool calls as JSON text; here they become values.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A teacher's attempt as the log has it, its answer in the wire's form."""

    exchange_id: str
    attempt_id: str
    requested_at: str
    group: str
    teacher: str
    outcome: str
    status: int
    train_ok: bool
    endpoint: str
    messages: list[Message]
    answer: Message
    finish_reason: str | None
    refusal: str | None
    tools: list[dict[str, Any]] | None
    params: dict[str, Any]
    response_format: dict[str, Any] | None
    prompt_tokens: int | None
    completion_tokens: int | None
    corrected: bool = False

    def row(self) -> dict[str, Any]:
        """The line of the JSONL file."""
        meta: dict[str, Any] = {
            "exchange_id": self.exchange_id,
            "attempt_id": self.attempt_id,
            "requested_at": self.requested_at,
            "group": self.group,
            "teacher": self.teacher,
            "corrected": self.corrected,
        }
        if self.params:
            meta["params"] = self.params
        if self.response_format:
            meta["response_format"] = self.response_format
        row: dict[str, Any] = {"messages": [*self.messages, self.answer], "meta": meta}
        if self.tools:
            row["tools"] = self.tools
        return row

    def question(self) -> str:
        """Fingerprint of what was asked: messages and tools, white space and case folded."""
        return _digest([*map(_normal, self.messages), self.tools])

    def text(self) -> str:
        """Fingerprint of the conversation's words alone, whatever system prompt stood before."""
        return _digest([_normal(m) for m in self.messages if m["role"] not in _CONSTANT])


_CONSTANT = ("system", "developer")


def from_log(message: dict[str, Any]) -> Message:
    """A message of the record (`MESSAGE` of understudy/exchange.py) in the wire's form."""
    wire: Message = {"role": message["role"], "content": _content(message.get("content"))}
    if message.get("name"):
        wire["name"] = message["name"]
    if message.get("tool_calls_json"):
        wire["tool_calls"] = json.loads(message["tool_calls_json"])
    if message.get("tool_call_id"):
        wire["tool_call_id"] = message["tool_call_id"]
    return wire


def opening(messages: list[Message]) -> str:
    """The group of a row without a conversation key: everything up to the first user message."""
    first = next((i for i, m in enumerate(messages) if m["role"] == "user"), len(messages))
    return _digest([_normal(message) for message in messages[: first + 1]])


def _content(content: str | None) -> Any:
    """Text, or the parts that the log kept as JSON."""
    if not content or not content.startswith("[{"):
        return content
    try:
        parts = json.loads(content)
    except ValueError:
        return content
    typed = all(isinstance(part, dict) and "type" in part for part in parts)
    return parts if typed else content


def _normal(message: Message) -> Message:
    """The message for comparison: folded text; ids of calls say nothing about the question."""
    content = message.get("content")
    text = content if isinstance(content, str) else json.dumps(content)
    calls = [call.get("function") for call in message.get("tool_calls", [])]
    return {"role": message["role"], "content": " ".join(text.casefold().split()), "calls": calls}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
