"""The errors that Understudy itself answers, in OpenAI's shape, so that SDKs map them as usual."""

from typing import NamedTuple

import msgspec


class Refusal(NamedTuple):
    """An error answer: HTTP status, message for a person, and OpenAI's type and code."""

    status: int
    message: str
    type: str
    code: str | None = None
    retry_after_s: int | None = None

    def body(self) -> bytes:
        """`{"error": {message, type, param, code}}`."""
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return msgspec.json.encode({"error": error})

    def header_block(self) -> bytes:
        """Its end-to-end header lines."""
        block = b"content-type: application/json\r\n"
        if self.retry_after_s is not None:
            block += b"retry-after: %d\r\n" % self.retry_after_s
        return block


def upstream_refusal(kind: str, message: str) -> Refusal:
    """502, or 504 where the upstream kept silent."""
    status = 504 if kind == "timeout" else 502
    return Refusal(status, f"upstream failed: {message}", "upstream_error", f"upstream_{kind}")


def too_large(limit: int) -> Refusal:
    """413."""
    message = f"request body is larger than {limit} bytes (listen.max_body_mb)"
    return Refusal(413, message, "invalid_request_error", "request_too_large")


def head_too_large(limit: int) -> Refusal:
    """431."""
    message = f"request head is larger than {limit} bytes (listen.max_header_kb)"
    return Refusal(431, message, "invalid_request_error", "request_head_too_large")


def not_http(detail: str) -> Refusal:
    """400 for what the HTTP parser refuses."""
    return Refusal(400, f"invalid HTTP request: {detail}", "invalid_request_error", "invalid_http")


SLOW_CLIENT = Refusal(
    408, "the request did not arrive in time", "invalid_request_error", "request_timeout"
)
LOG_FULL = Refusal(
    503,
    "the exchange cannot be logged (spool full), and capture.when_full is reject",
    "server_error",
    "log_full",
    retry_after_s=5,
)
INTERNAL = Refusal(500, "the proxy failed on this request", "server_error", "internal_error")
