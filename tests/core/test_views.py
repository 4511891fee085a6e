"""The views: typed when the lake is empty, pairs of both arms, feedback by either id, old files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy import documents, views
from understudy.errors import LakeError
from understudy.exchange import COLUMNS, SCHEMA
from understudy.lake import Lake

VIEWS = ("exchanges", "pairs", "feedback", "verdicts", "rollouts", "audit")


def write(lake: Path, name: str, rows: list[dict[str, object]], schema: pa.Schema = SCHEMA) -> None:
    """A file of the log."""
    path = lake / "log" / "part=test" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def attempt(exchange: str, arm: str, **fields: object) -> dict[str, object]:
    """A complete attempt that answered its arm's name."""
    return {
        "kind": "attempt",
        "exchange_id": exchange,
        "attempt_id": f"{exchange}-{arm}",
        "arm": arm,
        "role": "served" if arm == "teacher" else "shadow",
        "served": arm == "teacher",
        "outcome": "complete",
        "status": 200,
        "requested_at": 1_795_000_000_000,
        "choices": [{"index": 0, "content": arm}],
        "response_id": f"r-{exchange}-{arm}",
        **fields,
    }


@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_lake_has_typed_and_empty_views(tmp_path: Path, view: str) -> None:
    found = views.connect(tmp_path).execute(f"FROM {view}")
    assert found.fetchall() == []
    assert len(found.description) > 5


def test_files_that_appear_later_are_seen(tmp_path: Path) -> None:
    connection = views.connect(Lake(tmp_path))
    write(tmp_path, "1", [attempt("x", "teacher")])
    documents.beat(Lake(tmp_path), "monitor")
    verdict = documents.Verdict(
        workload="w", student="s", kind="gate", signal="label", verdict="PASS", evidence={"n": [1]}
    )
    documents.write_verdict(Lake(tmp_path), verdict)
    assert connection.execute("SELECT count(*) FROM exchanges").fetchall() == [(1,)]
    found = connection.execute(
        "SELECT id, evidence->>'$.n[0]', created_at > '2020-01-01'::timestamptz FROM verdicts"
    )
    assert found.fetchall() == [(verdict.id, "1", True)]


def test_exchanges_has_the_columns_of_the_record(tmp_path: Path) -> None:
    write(tmp_path, "1", [attempt("x", "teacher")])
    names = [column[0] for column in views.connect(tmp_path).execute("FROM exchanges").description]
    feedback = {"kind", "feedback_id", "score", "label", "comment", "correction"}
    assert names == [column.name for column in COLUMNS if column.name not in feedback]


def test_pairs_join_both_arms_where_both_answered(tmp_path: Path) -> None:
    rows = [
        attempt("one", "teacher"),
        attempt("one", "student", adapter="s-1"),
        attempt("two", "student", served=True),
        attempt("two", "teacher", served=False, role="holdout"),
        attempt("failed", "teacher"),
        attempt("failed", "student", status=500, outcome="error"),
        attempt("left", "teacher", outcome="client_abort"),
        attempt("left", "student"),
        attempt("alone", "teacher"),
    ]
    write(tmp_path, "1", rows)
    found = views.connect(tmp_path).execute(
        "SELECT exchange_id, teacher_text, student_text, student, served_arm "
        "FROM pairs ORDER BY exchange_id"
    )
    assert found.fetchall() == [
        ("one", "teacher", "student", "s-1", "teacher"),
        ("two", "teacher", "student", None, "student"),
    ]


def test_feedback_finds_its_exchange_by_either_id(tmp_path: Path) -> None:
    word = {"kind": "feedback", "requested_at": 1_795_000_000_000}
    rows = [
        attempt("x", "teacher"),
        {**word, "feedback_id": "f1", "exchange_id": "x", "score": 0.5},
        {**word, "feedback_id": "f2", "response_id": "r-x-teacher", "correction": "better"},
        {**word, "feedback_id": "f3", "response_id": "unknown"},
    ]
    write(tmp_path, "1", rows)
    found = views.connect(tmp_path).execute(
        "SELECT feedback_id, exchange_id, correction FROM feedback ORDER BY feedback_id"
    )
    assert found.fetchall() == [("f1", "x", None), ("f2", "x", "better"), ("f3", None, None)]


def test_files_of_an_older_and_a_newer_schema_are_read_together(tmp_path: Path) -> None:
    old = pa.schema([field for field in SCHEMA if field.name not in ("cost_usd", "choices")])
    row = attempt("old", "teacher")
    del row["choices"]
    write(tmp_path, "1", [row], old)
    newer = pa.schema([*SCHEMA, pa.field("invented_later", pa.int64())])
    write(tmp_path, "2", [attempt("new", "teacher", cost_usd=0.5, invented_later=1)], newer)
    found = views.connect(tmp_path).execute(
        "SELECT exchange_id, cost_usd, choices[1].content FROM exchanges ORDER BY exchange_id"
    )
    assert found.fetchall() == [("new", 0.5, "teacher"), ("old", None, None)]


def test_a_temporary_file_breaks_no_query(tmp_path: Path) -> None:
    write(tmp_path, "1", [attempt("x", "teacher")])
    (tmp_path / "log" / "part=test" / "2.parquet.tmp-00").write_bytes(b"torn")
    assert views.connect(tmp_path).execute("SELECT count(*) FROM pairs").fetchall() == [(0,)]


def test_a_missing_lake_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="start the collector"):
        views.connect(tmp_path / "nowhere")


def test_a_quote_in_the_folders_name_does_no_harm(tmp_path: Path) -> None:
    lake = tmp_path / "it's"
    write(lake, "1", [attempt("x", "teacher")])
    assert views.connect(lake).execute("SELECT count(*) FROM exchanges").fetchall() == [(1,)]
