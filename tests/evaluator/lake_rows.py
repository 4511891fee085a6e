"""Rows of the record written as the collector writes them, so that the real views read them."""

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from understudy.exchange import SCHEMA
from understudy.lake import Lake

STUDENT, WORKLOAD = "triage-0001", "triage"
_NUMBERS = itertools.count()


def pair(
    at: float,
    teacher: str = "yes",
    student: str = "yes",
    *,
    asked: str = "hello",
    name: str = STUDENT,
    score: float | None = None,
    role: str = "shadow",
) -> list[dict[str, Any]]:
    """The two rows of an exchange that both answered; `at` in Unix seconds."""
    exchange = f"exchange-{next(_NUMBERS):08d}"
    shared = {"exchange_id": exchange, "at": at, "asked": asked, "score": score}
    return [
        attempt(**shared, text=teacher),
        attempt(**shared, text=student, arm="student", adapter=name, role=role),
    ]


def attempt(
    at: float,
    text: str | None = "yes",
    *,
    exchange_id: str = "alone",
    arm: str = "teacher",
    adapter: str | None = None,
    role: str = "served",
    outcome: str = "complete",
    status: int | None = 200,
    duration_ms: float | None = 100.0,
    asked: str = "hello",
    score: float | None = None,
) -> dict[str, Any]:
    """One row; what is not named is null."""
    number = next(_NUMBERS)
    return dict.fromkeys(SCHEMA.names) | {
        "kind": "attempt",
        "exchange_id": exchange_id if exchange_id != "alone" else f"alone-{number}",
        "attempt_id": f"attempt-{number:08d}",
        "arm": arm,
        "role": role,
        "served": role == "served",
        "workload": WORKLOAD,
        "requested_at": datetime.fromtimestamp(at, UTC),
        "endpoint": "chat.completions",
        "outcome": outcome,
        "status": status,
        "duration_ms": duration_ms,
        "adapter": adapter,
        "router_score": score,
        "messages": [
            _message("system", "Be brief."),
            _message("user", asked),
        ],
        "choices": [_choice(text)],
    }


def write(lake: Lake, rows: Iterable[dict[str, Any]], name: str | None = None) -> None:
    """One more Parquet file of the log."""
    folder = lake.path("log/part=spool-a")
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{name or f'{next(_NUMBERS):020d}'}.parquet"
    tmp = final.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), tmp)
    tmp.rename(final)


def _message(role: str, content: str) -> dict[str, Any]:
    rest = ("name", "tool_calls_json", "tool_call_id", "extra_json")
    return {"role": role, "content": content} | dict.fromkeys(rest)


def _choice(text: str | None) -> dict[str, Any]:
    rest = ("reasoning", "refusal", "tool_calls_json", "logprobs_json")
    said = {"index": 0, "role": "assistant", "content": text, "finish_reason": "stop"}
    return said | dict.fromkeys(rest)
