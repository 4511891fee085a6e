"""Exchanges as text: a line of `logs tail`, the page of `logs show`."""

from collections.abc import Sequence
from typing import Any

import duckdb
import msgspec

Row = dict[str, Any]
_LINE = (
    "requested_at, exchange_id, attempt_id, workload, arm, role, status, outcome, error_type, "
    "endpoint, model_reported, model_sent, duration_ms, prompt_tokens, completion_tokens, "
    "cost_usd, coalesce(choices[1].content, choices[1].tool_calls_json, error_type) AS answer"
)
_WIDTH = 60
_FACTS = (
    *("attempt_id", "requested_at", "status", "error_type", "model_sent", "model_reported"),
    *("adapter", "provider", "response_id", "ttft_ms", "duration_ms", "overhead_us"),
    *("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost_usd"),
    *("policy_version", "route_reason", "bucket", "router_score", "train_ok"),
)


def newest(connection: duckdb.DuckDBPyConnection, count: int, seen: set[str]) -> list[Row]:
    """The newest attempts that are not in `seen`, oldest first; they are added to it."""
    query = f"SELECT {_LINE} FROM exchanges ORDER BY requested_at DESC, attempt_id DESC LIMIT ?"  # noqa: S608
    rows = [row for row in _rows(connection, query, [count]) if row["attempt_id"] not in seen]
    seen.update(row["attempt_id"] for row in rows)
    return rows[::-1]


def exchange(connection: duckdb.DuckDBPyConnection, name: str) -> Row | None:
    """All attempts and feedback of the exchange that the id belongs to; None if there is none."""
    found = _rows(
        connection,
        "SELECT exchange_id FROM exchanges WHERE exchange_id = $1 OR attempt_id = $1 "
        "OR response_id = $1 LIMIT 1",
        [name],
    )
    if not found:
        return None
    key = [found[0]["exchange_id"]]
    return {
        "exchange_id": key[0],
        "attempts": _rows(
            connection,
            "SELECT * EXCLUDE (request_raw, response_raw) FROM exchanges WHERE exchange_id = ? "
            "ORDER BY requested_at, attempt_id",
            key,
        ),
        "feedback": _rows(
            connection, "SELECT * FROM feedback WHERE exchange_id = ? ORDER BY created_at", key
        ),
    }


def line(row: Row) -> str:
    """One attempt in one line."""
    when = row["requested_at"].strftime("%m-%d %H:%M:%S") if row["requested_at"] else "-"
    took = f"{row['duration_ms']:.0f} ms" if row["duration_ms"] is not None else "-"
    tokens = f"{_or(row['prompt_tokens'])}+{_or(row['completion_tokens'])} tok"
    state = str(row["status"]) if row["outcome"] == "complete" else row["outcome"]
    answer = " ".join((row["answer"] or "").split())
    cut = answer if len(answer) <= _WIDTH else answer[: _WIDTH - 1] + "…"
    return (
        f"{when}  {row['exchange_id']}  {_or(row['workload']):<12} {_or(row['arm']):<7} "
        f"{_or(row['role']):<8} {_or(state):<12} {took:>9}  {tokens:>14}  {cut}"
    ).rstrip()


def page(found: Row) -> str:
    """The exchange in full: what was asked once, then each attempt's answer, then feedback."""
    attempts = found["attempts"]
    lines = [f"exchange {found['exchange_id']}", ""]
    lines += _asked(attempts[0])
    for attempt in attempts:
        lines += ["", *_answered(attempt)]
    for word in found["feedback"]:
        lines += ["", f"feedback {word['feedback_id']}"]
        lines += _fields(word, ("created_at", "score", "label", "comment", "correction"))
    return "\n".join(lines)


def _asked(attempt: Row) -> list[str]:
    names = ("workload", "endpoint", "path", "model_requested", "stream", "prompt_hash")
    lines = _fields(attempt, (*names, "params_json", "tools_json", "response_format_json"))
    for message in attempt["messages"] or []:
        lines += ["", f"[{_or(message['role'])}]", *_indented(message["content"])]
        lines += _indented(message["tool_calls_json"])
    return lines


def _answered(attempt: Row) -> list[str]:
    served = "served" if attempt["served"] else "not served"
    title = f"{_or(attempt['arm'])} · {_or(attempt['role'])} · {served} · {attempt['outcome']}"
    lines = [f"--- {title}"]
    lines += _fields(attempt, _FACTS)
    for choice in attempt["choices"] or []:
        lines += ["", f"[{_or(choice['role'])} {choice['index']}] {_or(choice['finish_reason'])}"]
        for name in ("reasoning", "content", "refusal", "tool_calls_json"):
            lines += _indented(choice[name])
    return lines


def _fields(row: Row, names: Sequence[str]) -> list[str]:
    return [f"{name:<18} {_text(row[name])}" for name in names if row[name] is not None]


def _indented(text: str | None) -> list[str]:
    return [f"    {part}" for part in (text or "").splitlines()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')


def _or(value: Any) -> str:
    return "-" if value is None else str(value)


def _rows(connection: duckdb.DuckDBPyConnection, query: str, values: list[Any]) -> list[Row]:
    connection.execute(query, values)
    names = [column[0] for column in connection.description or []]
    return [dict(zip(names, row, strict=True)) for row in connection.fetchall()]
