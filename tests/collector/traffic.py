"""Spools as the proxy writes them, of invented exchanges, and what the lake then holds of them."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import msgspec

from understudy.exchange import Feedback, RequestMeta, ResponseMeta
from understudy.ids import uuid7
from understudy.spool import FrameType, SpoolWriter
from understudy.views import connect

ALL_FLUSHED = ("before-file", "after-file", "after-cursor", "before-remove")
_numbers = itertools.count()


def spool(root: Path, **options: Any) -> SpoolWriter:
    """A writer that does not look at the machine's free space."""
    return SpoolWriter(root, min_free_bytes=0, **options)


def config_file(folder: Path, more: str = "", flush_rows: int = 5000) -> Path:
    """A configuration whose spool and lake lie in `folder`."""
    path = folder / "understudy.yaml"
    path.write_text(
        "teacher: {base_url: http://127.0.0.1:9/v1}\n"
        "spool: {path: spool, min_free_gb: 0}\n"
        f"collector: {{flush_rows: {flush_rows}, flush_s: 0.3}}\n"
        f"prices: {{gpt: {{input: 1, output: 2, cached: 0.5}}}}\n{more}"
    )
    return path


def begin(writer: SpoolWriter, **fields: Any) -> RequestMeta:
    """Log a request for a chat completion; returns its meta."""
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "exchange_id": uuid7(),
        "attempt_id": uuid7(),
        "arm": "teacher",
        "role": "served",
        "served": True,
        "requested_at": time.time_ns() // 1_000_000,
        "endpoint": "chat.completions",
        "path": "/v1/chat/completions",
        "model_requested": "gpt",
        "model_sent": "gpt",
    }
    meta = RequestMeta(**defaults | {k: v for k, v in fields.items() if k != "body"})
    body = {"model": "gpt", "messages": [{"role": "user", "content": f"question {number}"}]}
    payload = fields.get("body", json.dumps(body).encode())
    writer.append(FrameType.REQUEST, msgspec.json.encode(meta), payload)
    return meta


def answer_body(text: str, response_id: str = "chatcmpl-1") -> bytes:
    """A chat completion as a provider sends it."""
    return json.dumps(
        {
            "id": response_id,
            "model": "gpt",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        }
    ).encode()


def end(writer: SpoolWriter, meta: RequestMeta, body: bytes | None = None, **fields: Any) -> None:
    """Log the answer of a request."""
    defaults: dict[str, Any] = {
        "attempt_id": meta.attempt_id,
        "outcome": "complete",
        "status": 200,
        "duration_ms": 12.5,
        "content_type": "application/json",
    }
    payload = answer_body("fine", f"r-{meta.attempt_id}") if body is None else body
    frame = msgspec.json.encode(ResponseMeta(**defaults | fields))
    writer.append(FrameType.RESPONSE, frame, payload)


def exchanges(writer: SpoolWriter, count: int, **fields: Any) -> list[str]:
    """Log whole exchanges; returns their attempt ids."""
    metas = [begin(writer, **fields) for _ in range(count)]
    for meta in metas:
        end(writer, meta)
    return [meta.attempt_id for meta in metas]


def feedback(writer: SpoolWriter, **fields: Any) -> str:
    """Log a feedback; returns its id."""
    word = Feedback(feedback_id=uuid7(), at=time.time_ns() // 1_000_000, **fields)
    writer.append(FrameType.FEEDBACK, msgspec.json.encode(word))
    return word.feedback_id


def rows(lake: Path, query: str) -> list[Any]:
    """A query over the lake's views."""
    return connect(lake).execute(query).fetchall()


def attempt_ids(lake: Path) -> list[str]:
    """Every stored attempt, repetitions included."""
    return [row[0] for row in rows(lake, "SELECT attempt_id FROM exchanges ORDER BY spool_id, seq")]
