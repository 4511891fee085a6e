"""OpenAI's Responses API: items in, items out, typed events in between."""

from typing import Any

from collector.assemble.chat import message
from collector.assemble.message import (
    Answer,
    Choice,
    Message,
    Request,
    Usage,
    as_json,
    items,
    mapping,
    number,
    rest,
    text,
    word,
)

_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}
_ENDS = ("response.completed", "response.incomplete", "response.failed")


def read_request(body: dict[str, Any]) -> Request:
    """`instructions` is the system message; a string input is the user's; items are messages."""
    messages = []
    if body.get("instructions") is not None:
        messages.append(Message("system", text(body["instructions"])))
    given = body.get("input")
    if isinstance(given, list):
        messages += [message(item) for item in given if isinstance(item, dict)]
    elif given is not None:
        messages.append(Message("user", text(given)))
    return Request(
        messages,
        rest(body, "model", "stream", "input", "instructions", "tools"),
        as_json(body.get("tools")),
        as_json(mapping(body.get("text")).get("format")),
    )


def read_answer(body: dict[str, Any]) -> Answer:
    """A `response` object: its output items become one choice."""
    output = [item for item in items(body.get("output")) if isinstance(item, dict)]
    error = body.get("error")
    return Answer(
        word(body.get("id")),
        word(body.get("model")),
        None,
        [_choice(output, body)] if "output" in body else None,
        _usage(mapping(body.get("usage"))),
        (word(mapping(error).get("code")) or "error") if error else None,
    )


def read_stream(events: list[Any]) -> Answer:
    """The last event holds the whole response; of a cut stream the deltas tell what arrived."""
    started: dict[str, Any] = {}
    output: dict[int, dict[str, Any]] = {}
    for event in events:
        kind = word(mapping(event).get("type")) or ""
        if kind in _ENDS:
            return read_answer(mapping(event.get("response")))
        if kind == "error":
            started["error"] = {"code": event.get("code") or "error"}
        elif kind == "response.created":
            started = dict(mapping(event.get("response")))
        elif kind.startswith("response."):
            _apply(output, kind, event)
    return read_answer({**started, "output": [output[key] for key in sorted(output)]})


def _apply(output: dict[int, dict[str, Any]], kind: str, event: dict[str, Any]) -> None:
    index = number(event.get("output_index"))
    if index is None:
        return
    if kind in ("response.output_item.added", "response.output_item.done"):
        output[index] = dict(mapping(event.get("item")))
        return
    item, delta = output.setdefault(index, {"type": "message"}), event.get("delta")
    if not isinstance(delta, str):
        return
    if kind == "response.function_call_arguments.delta":
        item["arguments"] = (word(item.get("arguments")) or "") + delta
    elif kind in _DELTAS:
        field, part_type, text_key = _DELTAS[kind]
        _grow(item, field, number(event.get(f"{field}_index")) or 0, part_type, text_key, delta)


# Event -> the item's list that grows, the type of its parts, and the part's field with the text.
_DELTAS = {
    "response.output_text.delta": ("content", "output_text", "text"),
    "response.refusal.delta": ("content", "refusal", "refusal"),
    "response.reasoning_text.delta": ("content", "reasoning_text", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_text", "text"),
}


def _grow(
    item: dict[str, Any], field: str, at: int, part_type: str, text_key: str, delta: str
) -> None:
    parts = item.setdefault(field, [])
    if not isinstance(parts, list) or at > len(parts) + 64:  # a far index is nonsense
        return
    while len(parts) <= at:
        parts.append({"type": part_type})
    part = mapping(parts[at])
    part[text_key] = (word(part.get(text_key)) or "") + delta


def _choice(output: list[dict[str, Any]], body: dict[str, Any]) -> Choice:
    said: dict[str, list[str]] = {}
    calls: list[Any] = []
    logprobs: list[Any] = []
    for item in output:
        kind = item.get("type")
        if isinstance(kind, str) and kind.endswith("_call"):
            calls.append(item)
        for part in (*items(item.get("content")), *items(item.get("summary"))):
            _collect(said, logprobs, mapping(part))
    joined = {key: "".join(pieces) for key, pieces in said.items()}
    return Choice(
        0,
        "assistant",
        joined.get("output_text"),
        joined.get("reasoning_text", joined.get("summary_text")),
        joined.get("refusal"),
        as_json(calls or None),
        _finish(body, bool(calls)),
        as_json({"content": logprobs} if logprobs else None),
    )


def _collect(said: dict[str, list[str]], logprobs: list[Any], part: dict[str, Any]) -> None:
    kind = word(part.get("type")) or ""
    piece = part.get("refusal") if kind == "refusal" else part.get("text")
    if isinstance(piece, str):
        said.setdefault(kind, []).append(piece)
    logprobs += items(part.get("logprobs"))


def _finish(body: dict[str, Any], called: bool) -> str | None:
    status = word(body.get("status"))
    if status == "completed":
        return "tool_calls" if called else "stop"
    if status == "incomplete":
        reason = word(mapping(body.get("incomplete_details")).get("reason"))
        return _FINISH.get(reason or "", reason)
    return None if status in ("in_progress", "queued") else status


def _usage(value: dict[str, Any]) -> Usage:
    return Usage(
        number(value.get("input_tokens")),
        number(value.get("output_tokens")),
        number(mapping(value.get("input_tokens_details")).get("cached_tokens")),
        number(mapping(value.get("output_tokens_details")).get("reasoning_tokens")),
    )
