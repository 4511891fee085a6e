"""Rows: cost, levels, damaged values; a table is made whatever came in."""

import msgspec
import pytest

from collector.assemble import Usage
from collector.ledger import Attempt, Word
from collector.row import RowMaker, cost, table
from tests.collector.traffic import answer_body
from understudy.config import Price
from understudy.exchange import SCHEMA, Feedback, RequestMeta, ResponseMeta

PRICE = Price(input=1, output=10, cached=0.5)


def attempt(body: bytes = b"{}", answer: bytes | None = None, **fields: object) -> Attempt:
    """An attempt of one request and one answer."""
    meta = RequestMeta(
        exchange_id="x",
        attempt_id="a",
        arm="teacher",
        role="served",
        served=True,
        requested_at=1,
        endpoint="chat.completions",
        model_sent="gpt",
        **fields,  # type: ignore[arg-type]
    )
    made = Attempt("spool", 0, 0, meta, body)
    if answer is not None:
        made.add(answer)
        made.end = ResponseMeta(attempt_id="a", outcome="complete", status=200)
    return made


@pytest.mark.parametrize(
    ("usage", "endpoint", "wanted"),
    [
        (Usage(1_000_000, 100_000), "chat.completions", 2.0),
        (Usage(1_000_000, 0, cached=400_000), "chat.completions", 0.8),
        (Usage(1_000_000, 0, cached=9_000_000), "chat.completions", 0.5),
        (Usage(1_000_000, None), "chat.completions", None),
        (Usage(1_000_000, None), "embeddings", 1.0),
        (Usage(None, 5), "chat.completions", None),
    ],
)
def test_cost_is_by_the_price_table_or_unknown(
    usage: Usage, endpoint: str, wanted: float | None
) -> None:
    found = cost(PRICE, usage, endpoint)
    assert found == (None if wanted is None else pytest.approx(wanted))
    assert cost(None, usage, endpoint) is None


def test_a_price_is_found_by_the_model_that_answered() -> None:
    row = RowMaker({"gpt": PRICE}).row(attempt(answer=answer_body("hi")))
    assert row["cost_usd"] == pytest.approx((10 * 1 + 5 * 10) / 1e6)
    student = attempt(answer=answer_body("hi").replace(b'"gpt"', b'"s-1"'), model_requested="gpt")
    student.meta.model_sent = "s-1"
    assert RowMaker({"gpt": PRICE}).row(student)["cost_usd"] is None


def test_raw_bodies_are_the_exact_bytes() -> None:
    row = RowMaker({}).row(attempt(b'{ "model" :1e999}\xff', b"\x00\xfe"))
    made = table([row]).to_pylist()[0]
    assert (made["request_raw"], made["response_raw"]) == (b'{ "model" :1e999}\xff', b"\x00\xfe")
    assert (made["messages"], made["choices"]) == (None, None)


def test_metadata_has_no_contents_but_counts() -> None:
    row = RowMaker({}).row(
        attempt(b'{"messages":[{"content":"secret"}]}', answer_body("secret"), level="metadata")
    )
    made = table([row]).to_pylist()[0]
    assert made["completion_tokens"] == 5
    contents = ("messages", "choices", "params_json", "tools_json", "request_raw", "response_raw")
    assert [made[name] for name in contents] == [None] * len(contents)
    assert b"secret" not in msgspec.json.encode(made)


def test_a_missing_chunk_is_told() -> None:
    made = attempt(answer=answer_body("hi"))
    assert made.end
    made.end.chunks = 3
    assert RowMaker({}).row(made)["error_type"] == "frames_lost"


def test_an_unfinished_stream_shows_what_arrived() -> None:
    made = attempt(stream=True)
    made.add(b'data: {"choices":[{"index":0,"delta":{"content":"so far"}}]}\n\ndata: {"cho')
    row = RowMaker({}).row(made)
    assert row["outcome"] == "unfinished"
    assert "status" not in row
    assert table([row]).to_pylist()[0]["choices"][0]["content"] == "so far"


def test_a_value_that_does_not_fit_is_null_and_spoils_no_other() -> None:
    rows = [RowMaker({}).row(attempt(answer=answer_body("hi"))) for _ in range(3)]
    rows[1]["status"], rows[1]["bucket"], rows[1]["provider"] = 1 << 40, "wide", "\ud800"
    made = table(rows).to_pylist()
    assert [row["status"] for row in made] == [200, None, 200]
    assert [(row["bucket"], row["provider"]) for row in made] == [(None, None)] * 3
    assert [row["choices"][0]["content"] for row in made] == ["hi"] * 3


def test_feedback_is_a_row_of_its_kind() -> None:
    word = Word("spool", 4, Feedback(feedback_id="f", at=5, exchange_id="x", score=0.5))
    (made,) = table([RowMaker({}).row(word)]).to_pylist()
    assert (made["kind"], made["feedback_id"], made["score"], made["seq"]) == (
        "feedback",
        "f",
        0.5,
        4,
    )
    assert made["requested_at"].timestamp() == 0.005


def test_no_rows_make_an_empty_table_of_the_schema() -> None:
    assert table([]).schema == SCHEMA
