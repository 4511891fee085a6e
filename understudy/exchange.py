"""The record: one row per attempt, declared once.

`COLUMNS` is the single declaration; the Arrow schema, the DuckDB view and the data dictionary are
rendered from it. `RequestMeta`, `ResponseMeta` and `Feedback` are what the proxy writes into spool
frames; the collector joins them into a row. New columns get defaults, and `SCHEMA_VERSION` rises.
"""

from typing import Literal, NamedTuple

import msgspec
import pyarrow as pa

SCHEMA_VERSION = 1

Arm = Literal["teacher", "student"]
Role = Literal["served", "shadow", "fallback", "escalation", "holdout"]
Outcome = Literal["complete", "client_abort", "upstream_abort", "error", "unfinished"]


class RequestMeta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Meta of a REQUEST frame: what is known before the upstream is called. Times are Unix ms."""

    exchange_id: str
    attempt_id: str
    arm: Arm
    role: Role
    served: bool
    requested_at: int
    endpoint: str
    method: str = "POST"
    path: str = ""
    workload: str | None = None
    tenant: str | None = None
    conversation_key: str | None = None
    user_hash: str | None = None
    key_hash: str | None = None
    stream: bool = False
    model_requested: str | None = None
    model_sent: str | None = None
    adapter: str | None = None
    provider: str | None = None
    policy_version: int = 0
    route_reason: str = ""
    bucket: float | None = None
    router_score: float | None = None
    prompt_hash: str | None = None
    store: bool | None = None
    train_ok: bool = True
    level: Literal["metadata", "redacted", "full"] = "full"
    content_type: str | None = None
    content_encoding: str | None = None
    config_hash: str | None = None


class ResponseMeta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Meta of a RESPONSE or ABORT frame: how the attempt ended. Durations from `requested_at`."""

    attempt_id: str
    outcome: Outcome
    status: int | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None
    overhead_us: float | None = None
    client_left_at_event: int | None = None
    error_type: str | None = None
    served: bool | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    upstream_request_id: str | None = None
    chunks: int = 0


class Feedback(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A user's word on an answer, joined by exchange id or by the answer's own `id`."""

    feedback_id: str
    at: int
    exchange_id: str | None = None
    response_id: str | None = None
    score: float | None = None
    label: str | None = None
    comment: str | None = None
    correction: str | None = None


class Column(NamedTuple):
    """One column of the record: name, Arrow type, and the sentence of the data dictionary."""

    name: str
    type: pa.DataType
    about: str


MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("name", pa.string()),
        ("tool_calls_json", pa.string()),
        ("tool_call_id", pa.string()),
        ("extra_json", pa.string()),
    ]
)
CHOICE = pa.struct(
    [
        ("index", pa.int32()),
        ("role", pa.string()),
        ("content", pa.string()),
        ("reasoning", pa.string()),
        ("refusal", pa.string()),
        ("tool_calls_json", pa.string()),
        ("finish_reason", pa.string()),
        ("logprobs_json", pa.string()),
    ]
)
_TIME = pa.timestamp("ms", tz="UTC")

COLUMNS: tuple[Column, ...] = (
    Column("kind", pa.string(), "attempt or feedback: which table the row belongs to"),
    Column("exchange_id", pa.string(), "one logical client request (UUIDv7)"),
    Column("attempt_id", pa.string(), "one upstream call made for it (UUIDv7)"),
    Column("arm", pa.string(), "teacher or student"),
    Column("role", pa.string(), "served, shadow, fallback, escalation or holdout"),
    Column("served", pa.bool_(), "whether the client received this attempt's answer"),
    Column("workload", pa.string(), "named slice of the traffic; null where none matched"),
    Column("tenant", pa.string(), "tenant of the virtual key"),
    Column("conversation_key", pa.string(), "keyed hash of the conversation's beginning"),
    Column("user_hash", pa.string(), "keyed hash of the request's user"),
    Column("key_hash", pa.string(), "keyed hash of the caller's credential"),
    Column("requested_at", _TIME, "when the request was complete at the proxy"),
    Column("ttft_ms", pa.float64(), "milliseconds to the first byte of the answer's body"),
    Column("duration_ms", pa.float64(), "milliseconds to its last byte"),
    Column("overhead_us", pa.float64(), "the proxy's own time on this request, microseconds"),
    Column("client_left_at_event", pa.int32(), "body chunk at which the client left; else null"),
    Column("endpoint", pa.string(), "chat.completions, completions, embeddings, responses, ..."),
    Column("method", pa.string(), "HTTP method"),
    Column("path", pa.string(), "path without its query"),
    Column("stream", pa.bool_(), "whether a stream was asked for"),
    Column("status", pa.int32(), "HTTP status of the upstream; null if it never answered"),
    Column("outcome", pa.string(), "complete, client_abort, upstream_abort, error, unfinished"),
    Column("error_type", pa.string(), "what failed: connect, timeout, http_500, ..."),
    Column("model_requested", pa.string(), "model as the client named it"),
    Column("model_sent", pa.string(), "model as it was sent upstream"),
    Column("model_reported", pa.string(), "model as the upstream named itself"),
    Column("system_fingerprint", pa.string(), "as reported by the provider"),
    Column("provider", pa.string(), "upstream host, or LiteLLM's provider"),
    Column("adapter", pa.string(), "student name; null for the teacher"),
    Column("response_id", pa.string(), "the answer's own id"),
    Column("upstream_request_id", pa.string(), "x-request-id of the upstream"),
    Column("policy_version", pa.int64(), "policy that decided"),
    Column("route_reason", pa.string(), "why this arm was taken"),
    Column("bucket", pa.float64(), "sticky position in [0, 100)"),
    Column("router_score", pa.float64(), "hybrid router's score in [0, 1]"),
    Column("messages", pa.list_(MESSAGE), "the request's messages"),
    Column("choices", pa.list_(CHOICE), "the answer's choices, streams assembled"),
    Column("params_json", pa.string(), "the request's other fields, as JSON"),
    Column("tools_json", pa.string(), "tools offered, as JSON"),
    Column("response_format_json", pa.string(), "response_format, as JSON"),
    Column("prompt_hash", pa.string(), "hash of the constant part: system messages and tools"),
    Column("request_raw", pa.binary(), "request body: exact bytes, as on the wire"),
    Column("response_raw", pa.binary(), "response body: exact bytes, as on the wire"),
    Column("prompt_tokens", pa.int64(), "as reported by the provider"),
    Column("completion_tokens", pa.int64(), "as reported by the provider"),
    Column("cached_tokens", pa.int64(), "part of prompt_tokens read from the provider's cache"),
    Column("reasoning_tokens", pa.int64(), "part of completion_tokens spent on reasoning"),
    Column("cost_usd", pa.float64(), "by the price table; unknown is null, never 0"),
    Column("store", pa.bool_(), "OpenAI's store flag, if the request had one"),
    Column("train_ok", pa.bool_(), "whether a dataset may use the row"),
    Column("redactions", pa.int32(), "how many spans were redacted"),
    Column("feedback_id", pa.string(), "feedback: its id"),
    Column("score", pa.float64(), "feedback: a number"),
    Column("label", pa.string(), "feedback: a word"),
    Column("comment", pa.string(), "feedback: a sentence"),
    Column("correction", pa.string(), "feedback: what the answer should have been"),
    Column("spool_id", pa.string(), "writer process that logged the row"),
    Column("seq", pa.int64(), "sequence number of its first frame"),
    Column("frames", pa.int32(), "how many spool frames the row was assembled from"),
    Column("schema_version", pa.int32(), "version of this record"),
    Column("config_hash", pa.string(), "configuration in force at the proxy"),
)

SCHEMA = pa.schema([pa.field(c.name, c.type) for c in COLUMNS])
FEEDBACK_COLUMNS = (
    "feedback_id",
    "exchange_id",
    "response_id",
    "requested_at",
    "score",
    "label",
    "comment",
    "correction",
)


def data_dictionary() -> str:
    """The record as a Markdown table, for `docs/data-dictionary.md`."""
    rows = [f"| `{c.name}` | `{c.type}` | {c.about} |" for c in COLUMNS]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows]) + "\n"
