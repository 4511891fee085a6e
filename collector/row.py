"""Finished attempts and feedback -> rows -> the Arrow table of the record. Sans-IO.

What a provider sent can spoil a value but never a table: a value that does not fit its column
becomes null, with a log line; the exact bytes are in the row all the same.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from collector.assemble import Answer, Request, Usage, read_answer, read_request
from collector.ledger import Attempt, Word
from understudy.config import Price
from understudy.exchange import COLUMNS, SCHEMA, SCHEMA_VERSION, RequestMeta, ResponseMeta

log = logging.getLogger(__name__)
_FROM_REQUEST = tuple(c.name for c in COLUMNS if c.name in RequestMeta.__struct_fields__)
_FROM_RESPONSE = tuple(
    c.name
    for c in COLUMNS
    if c.name in ResponseMeta.__struct_fields__ and c.name not in ("attempt_id", "served")
)
_astuple = msgspec.structs.astuple
Row = dict[str, Any]


class RowMaker:
    """Makes rows; holds the price table."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = prices

    def row(self, finished: Attempt | Word) -> Row:
        """The row of an attempt or of a feedback; columns that it lacks are null."""
        if isinstance(finished, Word):
            return self._word(finished)
        row = self._attempt(finished)
        try:
            return row | self._content(finished, row)
        except Exception:  # one body that we fail to read must not stop the log
            log.exception("attempt %s: not assembled, kept raw", finished.meta.attempt_id)
            return row | {"error_type": "assembly_failed"} | self._raw(finished)

    def _word(self, word: Word) -> Row:
        row = msgspec.structs.asdict(word.feedback)
        row["requested_at"] = row.pop("at")
        return row | {
            "kind": "feedback",
            "spool_id": word.spool_id,
            "seq": word.seq,
            "frames": 1,
            "schema_version": SCHEMA_VERSION,
        }

    def _attempt(self, attempt: Attempt) -> Row:
        meta, end = attempt.meta, attempt.end
        row: Row = {name: getattr(meta, name) for name in _FROM_REQUEST}
        if end is None:
            row["outcome"] = "unfinished"
        else:
            row |= {name: getattr(end, name) for name in _FROM_RESPONSE}
            row["served"] = meta.served if end.served is None else end.served
            if end.chunks + 2 != attempt.frames:
                row["error_type"] = end.error_type or "frames_lost"
        return row | {
            "kind": "attempt",
            "redactions": 0,
            "spool_id": attempt.spool_id,
            "seq": attempt.seq,
            "frames": attempt.frames,
            "schema_version": SCHEMA_VERSION,
        }

    def _content(self, attempt: Attempt, row: Row) -> Row:
        meta, end, body = attempt.meta, attempt.end, attempt.answer
        encoding = end.content_encoding if end else None
        content_type = end.content_type if end else None
        answer = read_answer(meta.endpoint, body, encoding, content_type) if body else Answer()
        found: Row = {
            "response_id": answer.id,
            "model_reported": answer.model,
            "system_fingerprint": answer.system_fingerprint,
            "error_type": row.get("error_type") or answer.error_type,
            "prompt_tokens": answer.usage.prompt,
            "completion_tokens": answer.usage.completion,
            "cached_tokens": answer.usage.cached,
            "reasoning_tokens": answer.usage.reasoning,
            "cost_usd": cost(self._price(answer.model, meta), answer.usage, meta.endpoint),
        }
        if meta.level == "metadata":
            return found
        request = read_request(meta.endpoint, attempt.body, meta.content_encoding)
        return found | _content(request, answer) | self._raw(attempt)

    def _raw(self, attempt: Attempt) -> Row:
        if attempt.meta.level == "metadata":
            return {}
        answer = attempt.answer
        return {
            "request_raw": attempt.body,
            "response_raw": answer if answer or attempt.end else None,
        }

    def _price(self, reported: str | None, meta: RequestMeta) -> Price | None:
        names = (reported, meta.model_sent)  # not as requested: a student costs its own price
        return next((self._prices[name] for name in names if name and name in self._prices), None)


def cost(price: Price | None, usage: Usage, endpoint: str) -> float | None:
    """US dollars; None where price or tokens are unknown (embeddings have no completion)."""
    completion = 0 if endpoint == "embeddings" else usage.completion
    if price is None or usage.prompt is None or completion is None:
        return None
    cached = min(usage.cached or 0, usage.prompt)
    cached_price = price.input if price.cached is None else price.cached
    fresh = (usage.prompt - cached) * price.input
    return (fresh + cached * cached_price + completion * price.output) / 1e6


def _content(request: Request, answer: Answer) -> Row:
    return {
        "messages": request.messages and [_astuple(m) for m in request.messages],
        "choices": answer.choices and [_astuple(c) for c in answer.choices],
        "params_json": request.params_json,
        "tools_json": request.tools_json,
        "response_format_json": request.response_format_json,
    }


def table(rows: Sequence[Row]) -> pa.Table:
    """The rows as a table of the record's schema."""
    columns = [_column([row.get(c.name) for row in rows], c.name, c.type) for c in COLUMNS]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _column(values: list[Any], name: str, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return pa.chunked_array([pa.array(values, kind)])
    except (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError):
        kept = [_fitting(value, kind) for value in values]
        lost = sum(a is not None and b is None for a, b in zip(values, kept, strict=True))
        log.warning("column %s: %d values do not fit and are null", name, lost)
        return pa.chunked_array([pa.array(kept, kind)])


def _fitting(value: Any, kind: pa.DataType) -> Any:
    try:
        pa.array([value], kind)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError):
        return None
    return value
