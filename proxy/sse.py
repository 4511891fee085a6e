"""The little that the relay has to know of server-sent events: whether a stream has said its last.

Clients stop reading at the last event and may close before the body's end: that is no abort.
Assembling streams is the collector's work.
"""

import msgspec

_LAST = (b"data: [DONE]", b'data: {"type":"message_stop"}', b'data: {"type": "message_stop"}')


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
