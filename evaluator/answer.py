"""What a model answered, in the form in which answers are compared: text and tool calls.

Read from an assistant message of the API or from a choice of the lake; both say the same. Ids of
tool calls are left out, since two models never share them.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple


class ToolCall(NamedTuple):
    """One call; `arguments` as canonical JSON, or as they came where they are none."""

    name: str
    arguments: str


class Answer(NamedTuple):
    """An assistant's turn."""

    text: str
    calls: tuple[ToolCall, ...] = ()

    def shown(self) -> str:
        """As a person reads it: the text, then each call on its own line."""
        return "\n".join([self.text, *(f"{c.name}({c.arguments})" for c in self.calls)]).strip()


def from_message(message: Mapping[str, Any]) -> Answer:
    """An assistant message of the chat API; content that is a list of parts counts by its texts."""
    calls = message.get("tool_calls") or []
    if message.get("function_call"):  # the API's older form, still sent by some
        calls = [{"function": message["function_call"]}]
    return Answer(text_of(message.get("content")), _calls(calls))


def from_choice(choice: Mapping[str, Any] | None) -> Answer:
    """A choice of the lake's `choices` column."""
    found = choice or {}
    return Answer(
        found.get("content") or "", _calls(json.loads(found.get("tool_calls_json") or "[]"))
    )


def text_of(content: Any) -> str:
    """A message's content as text: a string, or the texts of its parts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def parsed(text: str) -> Any:
    """The text as JSON, or `NotImplemented` where it is none (None is a JSON value)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return NotImplemented


def canonical(value: Any) -> str:
    """JSON with sorted keys in which 5, 5.0 and 5e0 are one number.

    >>> canonical({"b": 5.0, "a": None})
    '{"a":null,"b":5}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _calls(calls: Any) -> tuple[ToolCall, ...]:
    functions = [call.get("function") or {} for call in calls or [] if isinstance(call, dict)]
    return tuple(ToolCall(f.get("name") or "", _arguments(f.get("arguments"))) for f in functions)


def _arguments(arguments: Any) -> str:
    value = parsed(arguments) if isinstance(arguments, str) else arguments
    return str(arguments) if value is NotImplemented else canonical(value)
