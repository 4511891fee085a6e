"""The little that the relay has to know of server-sent events: whether a stream has said its last.

Clients stop reading at the last event and may close before the body's end: that is no abort.
Assembling streams is the collector's work.
"""

import re
from typing import Any, Literal

import msgspec

_BLANK = re.compile(rb"\r?\n\r?\n")
_LONGEST_OPENING = 64 * 1024
_SAYING = ("content", "tool_calls", "function_call", "refusal", "reasoning", "reasoning_content")
_LAST = (b"data: [DONE]", b'data: {"type":"message_stop"}', b'data: {"type": "message_stop"}')


def opening(data: bytes) -> Literal["wait", "answer", "error"]:
    """Whether a stream's beginning says something already, or that it failed (status 200 or not).

    Servers send the role first and learn of a failure later: until a word of the answer is there
    the stream can still be replaced unseen. What cannot be read counts as an answer.
    """
    *events, rest = _BLANK.split(data)
    for event in events:
        lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
        try:
            found: Any = msgspec.json.decode(b"\n".join(lines)) if lines else {}
        except msgspec.DecodeError:
            return "answer"
        if not isinstance(found, dict):
            return "answer"
        if found.get("error"):
            return "error"
        if lines and not _is_prelude(found):
            return "answer"
    return "answer" if len(rest) > _LONGEST_OPENING else "wait"


def _is_prelude(event: dict[str, Any]) -> bool:
    """A chunk of a chat completion that names the role and says nothing yet."""
    if event.get("object") != "chat.completion.chunk":
        return False
    choices = event.get("choices")
    if not isinstance(choices, list):
        return False
    for choice in choices:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict) or choice.get("finish_reason"):
            return False
        if any(delta.get(key) for key in _SAYING):
            return False
    return True


def is_final(tail: bytes) -> bool:
    """Whether the stream's end is its protocol's own last event."""
    return tail.endswith((b"\n", b"\r")) and tail.rstrip().endswith(_LAST)


def error_event(tail: bytes, message: str) -> bytes:
    """An error event for a stream that broke off; empty where it broke off inside an event.

    Half an event followed by ours would be parsed as one; then the cut connection has to say it.
    """
    if not tail.endswith((b"\n\n", b"\r\n\r\n")):
        return b""
    error = {"message": message, "type": "upstream_error", "param": None, "code": "upstream_abort"}
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"
