"""What a dialect makes of a body: messages, choices, usage, typed as the record's columns are."""

from typing import Any

import msgspec

_MAX_INT = (1 << 63) - 1


class Message(msgspec.Struct, omit_defaults=False):
    """One message of a request. Content that is no string is its JSON."""

    role: str | None = None
    content: str | None = None
    name: str | None = None
    tool_calls_json: str | None = None
    tool_call_id: str | None = None
    extra_json: str | None = None


class Choice(msgspec.Struct):
    """One alternative of an answer."""

    index: int = 0
    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls_json: str | None = None
    finish_reason: str | None = None
    logprobs_json: str | None = None


class Usage(msgspec.Struct):
    """Tokens as the provider reported them; None is unknown. cached is part of prompt."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    reasoning: int | None = None


class Request(msgspec.Struct):
    """A request's content; everything None where the body could not be read."""

    messages: list[Message] | None = None
    params_json: str | None = None
    tools_json: str | None = None
    response_format_json: str | None = None


class Answer(msgspec.Struct):
    """An answer's content; `error_type` is an error that the body reports inside a 200."""

    id: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    choices: list[Choice] | None = None
    usage: Usage = msgspec.field(default_factory=Usage)
    error_type: str | None = None


def text(value: Any) -> str | None:
    """A string as it is, None as None, anything else as its JSON."""
    return value if value is None or isinstance(value, str) else as_json(value)


def word(value: Any) -> str | None:
    """A string, else None."""
    return value if isinstance(value, str) else None


def number(value: Any) -> int | None:
    """A count that fits 64 bits, else None."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT
    return value if fits else None


def mapping(value: Any) -> dict[str, Any]:
    """An object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """An array, else an empty one."""
    return value if isinstance(value, list) else []


def as_json(value: Any) -> str | None:
    """Compact JSON; None for None."""
    return None if value is None else msgspec.json.encode(value).decode()


def rest(value: dict[str, Any], *known: str) -> str | None:
    """The fields that have no column, as JSON; None where there are none."""
    other = {key: item for key, item in value.items() if key not in known}
    return as_json(other) if other else None
