"""Anthropic's Messages API, leniently: text, thinking and tool use; whole or as a stream."""

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

# The words that OpenAI has for the same ends, so that one query covers both.
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
}
_DELTA_FIELDS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}


def read_request(body: dict[str, Any]) -> Request:
    """`system` becomes the first message."""
    system = [Message("system", text(body["system"]))] if body.get("system") is not None else []
    said = [message(m) for m in items(body.get("messages")) if isinstance(m, dict)]
    return Request(
        system + said,
        rest(body, "model", "stream", "messages", "system", "tools"),
        as_json(body.get("tools")),
    )


def read_answer(body: dict[str, Any]) -> Answer:
    """A whole message: its blocks become one choice."""
    error = body.get("error")
    return Answer(
        word(body.get("id")),
        word(body.get("model")),
        None,
        [_choice(body)] if "content" in body else None,
        _usage(mapping(body.get("usage"))),
        (word(mapping(error).get("type")) or "error") if error else None,
    )


def read_stream(events: list[Any]) -> Answer:
    """message_start, blocks and their deltas, message_delta: assembled to the whole message."""
    whole: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    for event in map(mapping, events):
        kind, index = event.get("type"), number(event.get("index")) or 0
        if kind == "message_start":
            whole = dict(mapping(event.get("message")))
        elif kind == "content_block_start":
            blocks[index] = dict(mapping(event.get("content_block")))
        elif kind == "content_block_delta":
            _grow(blocks.setdefault(index, {"type": "text"}), mapping(event.get("delta")))
        elif kind == "message_delta":
            whole |= mapping(event.get("delta"))
            whole["usage"] = mapping(whole.get("usage")) | mapping(event.get("usage"))
        elif kind == "error":
            whole["error"] = event.get("error") or {"type": "error"}
    return read_answer({**whole, "content": [blocks[key] for key in sorted(blocks)]})


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    field = _DELTA_FIELDS.get(word(delta.get("type")) or "")
    piece = delta.get(field) if field else None
    if field and isinstance(piece, str):
        block[field] = (word(block.get(field)) or "") + piece


def _choice(body: dict[str, Any]) -> Choice:
    blocks = [block for block in items(body.get("content")) if isinstance(block, dict)]
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    reason = word(body.get("stop_reason"))
    return Choice(
        role=word(body.get("role")),
        content=_joined(blocks, "text"),
        reasoning=_joined(blocks, "thinking"),
        tool_calls_json=as_json(calls or None),
        finish_reason=_FINISH.get(reason or "", reason),
    )


def _joined(blocks: list[dict[str, Any]], field: str) -> str | None:
    pieces = [b[field] for b in blocks if b.get("type") == field and isinstance(b.get(field), str)]
    return "".join(pieces) if pieces else None


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = word(block.get("partial_json")) or as_json(block.get("input")) or "{}"
    function = {"name": block.get("name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _usage(value: dict[str, Any]) -> Usage:
    # Anthropic counts cached tokens beside input_tokens; the record's prompt_tokens has them all.
    fresh, cached = number(value.get("input_tokens")), number(value.get("cache_read_input_tokens"))
    written = number(value.get("cache_creation_input_tokens")) or 0
    prompt = None if fresh is None else fresh + (cached or 0) + written
    return Usage(prompt, number(value.get("output_tokens")), cached)
