"""What a stand-in teacher is asked and what it answers, and how its text falls into tokens.

A token here is a word or a sign with the space before it: pieces join to exactly the text, so that
streams, usage and `max_tokens` agree with one another. Pure; knows no endpoint.
"""

import re
from typing import Any, Literal, NamedTuple, Protocol

Json = dict[str, Any]
Finish = Literal["stop", "length", "tool_calls"]

_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])|\s+$")


class ToolCall(NamedTuple):
    """One call of a tool; `arguments` is the JSON text as it goes over the wire."""

    id: str
    name: str
    arguments: str

    def as_json(self) -> Json:
        """The call as chat messages have it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class Answer(NamedTuple):
    """An assistant's turn: text, or calls of tools, or both."""

    content: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish = "stop"

    def tokens(self) -> int:
        """Completion tokens: the text's and those of each call's name and arguments."""
        calls = sum(1 + len(pieces(call.arguments)) for call in self.tool_calls)
        return len(pieces(self.content or "")) + calls

    def as_message(self) -> Json:
        """The turn as an assistant's chat message."""
        message: Json = {"role": "assistant", "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.as_json() for call in self.tool_calls]
        return message


class Question(NamedTuple):
    """What every endpoint's request comes down to."""

    messages: list[Json]
    tools: list[Json] | None = None
    tool_choice: Any = None
    response_format: Json | None = None


class Teacher(Protocol):
    """Answers a question, or raises an ApiError that says why it cannot."""

    def answer(self, question: Question) -> Answer: ...


def pieces(text: str) -> list[str]:
    """The tokens of a text; they join to the text."""
    return _PIECE.findall(text)


def limited(answer: Answer, stop: list[str], max_tokens: int | None) -> Answer:
    """The answer cut at the first stop sequence, then at `max_tokens` (finish `length`)."""
    if answer.tool_calls:
        return answer._replace(finish="tool_calls")
    text = answer.content or ""
    ends = [at for mark in stop if mark and (at := text.find(mark)) >= 0]
    text = text[: min(ends)] if ends else text
    parts = pieces(text)
    if max_tokens is not None and len(parts) > max_tokens:
        return answer._replace(content="".join(parts[:max_tokens]), finish="length")
    return answer._replace(content=text)


def text_of(content: Any) -> str:
    """The text of a message's content, whether a string, parts or nothing."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def prompt_tokens(question: Question) -> int:
    """Prompt tokens of the messages; four for each message's frame, as chat formats cost."""
    return sum(4 + len(pieces(text_of(m.get("content")))) for m in question.messages)
