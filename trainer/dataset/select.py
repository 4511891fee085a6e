"""Read a workload's teacher attempts and the users' corrections from the lake's views."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from trainer.dataset.rows import Candidate, from_log, opening

_QUERY = """
SELECT exchange_id, attempt_id, strftime(requested_at, '%Y-%m-%dT%H:%M:%S.%gZ') AS at_utc,
  conversation_key, coalesce(model_reported, model_sent, model_requested, '?') AS teacher,
  outcome, status, train_ok, endpoint, messages, choices, tools_json, params_json,
  response_format_json, prompt_tokens, completion_tokens
FROM exchanges
WHERE arm = 'teacher' AND workload IS NOT DISTINCT FROM $workload
  AND ($since IS NULL OR requested_at >= $since) AND ($until IS NULL OR requested_at < $until)
ORDER BY requested_at, attempt_id
"""
_CORRECTIONS = """
SELECT exchange_id, arg_max(correction, created_at) AS correction
FROM feedback WHERE correction IS NOT NULL AND exchange_id IS NOT NULL GROUP BY exchange_id
"""
_BATCH = 1000


@dataclass(frozen=True)
class Window:
    """What of the log is looked at: a workload, and the time from `since` up to before `until`."""

    workload: str
    since: datetime | None = None
    until: datetime | None = None


def count(connection: duckdb.DuckDBPyConnection, window: Window) -> int:
    """How many candidates `candidates` will yield."""
    found = connection.execute(f"SELECT count(*) FROM ({_QUERY})", _bound(window))  # noqa: S608
    rows: list[tuple[int]] = found.fetchall()
    return rows[0][0]


def candidates(connection: duckdb.DuckDBPyConnection, window: Window) -> Iterator[Candidate]:
    """Every teacher attempt of the window, in order of time, corrected where a user did so."""
    corrections = dict(connection.execute(_CORRECTIONS).fetchall())
    cursor = connection.execute(_QUERY, _bound(window))
    names = [column[0] for column in cursor.description or ()]
    while batch := cursor.fetchmany(_BATCH):
        for values in batch:
            record = dict(zip(names, values, strict=True))
            yield _candidate(record, corrections.get(record["exchange_id"]))


def _bound(window: Window) -> dict[str, Any]:
    return {"workload": window.workload, "since": window.since, "until": window.until}


def _candidate(record: dict[str, Any], correction: str | None) -> Candidate:
    messages = [from_log(message) for message in record["messages"] or ()]
    choice = (record["choices"] or [{}])[0]
    answer = from_log({**choice, "role": "assistant"})
    if correction is not None:
        answer = {"role": "assistant", "content": correction}
    return Candidate(
        exchange_id=record["exchange_id"],
        attempt_id=record["attempt_id"],
        requested_at=record["at_utc"],
        group=record["conversation_key"] or opening(messages),
        teacher=record["teacher"],
        outcome=record["outcome"] or "unfinished",
        status=record["status"] or 0,
        train_ok=record["train_ok"] is not False,
        endpoint=record["endpoint"] or "",
        messages=messages,
        answer=answer,
        finish_reason=choice.get("finish_reason"),
        refusal=choice.get("refusal"),
        tools=_json(record["tools_json"]),
        params=_json(record["params_json"]) or {},
        response_format=_json(record["response_format_json"]),
        prompt_tokens=record["prompt_tokens"],
        completion_tokens=record["completion_tokens"],
        corrected=correction is not None,
    )


def _json(text: str | None) -> Any:
    return json.loads(text) if text else None
