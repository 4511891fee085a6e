"""Dataset building on a real lake: every selected row is in a file or in a counted drop."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.dataset.build import Built, build
from trainer.dataset.read import read_dataset
from trainer.dataset.select import Window, candidates, count
from trainer.dataset.split import SIDES, Shares
from understudy.cli import main
from understudy.errors import DatasetError
from understudy.exchange import SCHEMA
from understudy.ids import uuid7
from understudy.lake import Lake
from understudy.views import connect

DEFAULT = Shares()
START = datetime(2026, 11, 1, tzinfo=UTC)


def attempt(number: int, **changes: Any) -> dict[str, Any]:
    """A good teacher's attempt as the collector stores it."""
    answer = {"index": 0, "role": "assistant", "content": "yes", "finish_reason": "stop"}
    answer |= changes.pop("answer", {})
    asked = changes.pop("asked", f"Is it {number}?")
    return {
        "kind": "attempt",
        "exchange_id": f"e{number}",
        "attempt_id": uuid7(),
        "arm": "teacher",
        "role": "served",
        "served": True,
        "workload": "w",
        "conversation_key": f"k{number}",
        "requested_at": START + timedelta(minutes=number),
        "endpoint": "chat.completions",
        "status": 200,
        "outcome": "complete",
        "model_reported": "big-1",
        "messages": [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": asked},
        ],
        "choices": [answer],
        "prompt_tokens": 10,
        "completion_tokens": number % 7,
        "train_ok": True,
    } | changes


def write(root: Path, rows: list[dict[str, Any]]) -> Lake:
    """A lake with these rows in its log."""
    folder = root / "log" / "part=spool-x"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{len(list(folder.iterdir())):020d}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    return Lake(root)


def made(
    lake: Lake, shares: Shares = DEFAULT, since: datetime | None = None, until: Any = None
) -> Built:
    """Build workload `w` of the lake."""
    window = Window("w", since, until)
    return build(lake, window, shares, candidates(connect(lake), window))


def rows_of(built: Built) -> list[dict[str, Any]]:
    dataset = read_dataset(built.folder)
    return [row for side in SIDES for row in dataset.sides[side]]


DROPS: dict[str, dict[str, Any]] = {
    "http_error": {"status": 500},
    "incomplete": {"outcome": "client_abort"},
    "train_not_ok": {"train_ok": False},
    "truncated": {"answer": {"finish_reason": "length"}},
    "content_filter": {"answer": {"finish_reason": "content_filter"}},
    "empty": {"answer": {"content": ""}},
    "refusal": {"answer": {"content": "I'm sorry, but I can't help with that."}},
    "not_chat": {"endpoint": "embeddings"},
    "no_messages": {"messages": []},
    "bad_tool_arguments": {
        "answer": {
            "content": None,
            "tool_calls_json": json.dumps([{"function": {"name": "f", "arguments": "{oops"}}]),
        }
    },
    "invalid_json": {"response_format_json": '{"type": "json_object"}'},
}


@pytest.mark.parametrize("reason", DROPS)
def test_each_hard_rule_drops_and_counts(tmp_path: Path, reason: str) -> None:
    lake = write(tmp_path, [*map(attempt, range(20)), attempt(99, **DROPS[reason])])
    built = made(lake)
    assert built.manifest["dropped"] == {reason: 1}
    assert built.manifest["selected"] == 21
    assert "e99" not in {row["meta"]["exchange_id"] for row in rows_of(built)}


def test_an_apology_is_no_refusal(tmp_path: Path) -> None:
    said = "I'm sorry to hear that. Your parcel is on its way."
    lake = write(tmp_path, [attempt(n, answer={"content": said}) for n in range(20)])
    assert made(lake).manifest["dropped"] == {}


def test_nothing_is_lost_without_a_count(tmp_path: Path) -> None:
    bad = [attempt(100 + at, **DROPS[name]) for at, name in enumerate(DROPS)]
    twice = [attempt(n, exchange_id=f"again{n}") for n in range(5)]
    lake = write(tmp_path, [*map(attempt, range(40)), *bad, *twice])
    manifest = made(lake).manifest
    kept, dropped = sum(manifest["rows"].values()), sum(manifest["dropped"].values())
    assert manifest["selected"] == kept + dropped == 40 + len(DROPS) + 5


def test_a_row_ends_with_the_teachers_answer(tmp_path: Path) -> None:
    first = rows_of(made(write(tmp_path, list(map(attempt, range(20))))))[0]
    assert [message["role"] for message in first["messages"]] == ["system", "user", "assistant"]
    assert first["messages"][-1]["content"] == "yes"
    assert first["meta"]["teacher"] == "big-1"
    assert first["meta"]["requested_at"].startswith("2026-11-01T00:")


def test_students_and_other_workloads_are_never_learnt_from(tmp_path: Path) -> None:
    others = [attempt(50, arm="student"), attempt(51, workload="x"), attempt(52, workload=None)]
    assert made(write(tmp_path, [*map(attempt, range(20)), *others])).manifest["selected"] == 20


def test_the_window_is_half_open(tmp_path: Path) -> None:
    lake = write(tmp_path, list(map(attempt, range(30))))
    window = (START + timedelta(minutes=5), START + timedelta(minutes=15))
    built = made(lake, Shares(0, 0), *window)
    assert {row["meta"]["exchange_id"] for row in rows_of(built)} == {f"e{n}" for n in range(5, 15)}
    assert count(connect(lake), Window("w", *window)) == 10


def test_equal_questions_are_one_row_and_tools_make_them_differ(tmp_path: Path) -> None:
    rows = [
        attempt(1, asked="Is it ME?"),
        attempt(2, asked="is  it me?"),
        attempt(3, asked="is it me?", tools_json='[{"type": "function"}]', conversation_key="k1"),
    ]
    built = made(write(tmp_path, rows), Shares(0, 0))
    assert built.manifest["dropped"] == {"duplicate": 1}
    assert [row["meta"]["exchange_id"] for row in rows_of(built)] == ["e1", "e3"]


def test_a_correction_overrides_the_answer(tmp_path: Path) -> None:
    rows = [attempt(n) for n in range(10)]
    rows += [attempt(11, status=500, outcome="error", answer={"content": None})]
    for at, (exchange, text) in enumerate([("e3", "first"), ("e3", "no"), ("e11", "saved")]):
        rows.append(
            {
                "kind": "feedback",
                "feedback_id": f"f{at}",
                "exchange_id": exchange,
                "requested_at": START + timedelta(days=1 + at),
                "correction": text,
            }
        )
    built = made(write(tmp_path, rows), Shares(0, 0))
    answers = {r["meta"]["exchange_id"]: r["messages"][-1]["content"] for r in rows_of(built)}
    assert (answers["e3"], answers["e11"], answers["e4"]) == ("no", "saved", "yes")
    assert built.manifest["corrected"] == 2


def test_a_corrected_duplicate_wins(tmp_path: Path) -> None:
    rows = [attempt(1, asked="same"), attempt(2, asked="same")]
    feedback = {"kind": "feedback", "feedback_id": "f", "exchange_id": "e2", "correction": "no"}
    rows.append(feedback | {"requested_at": START})
    kept = rows_of(made(write(tmp_path, rows), Shares(0, 0)))
    assert [row["messages"][-1]["content"] for row in kept] == ["no"]


def test_a_conversation_stays_on_one_side(tmp_path: Path) -> None:
    rows = [attempt(n, conversation_key=f"k{n % 6}") for n in range(120)]
    dataset = read_dataset(made(write(tmp_path, rows), Shares(0.3, 0.3)).folder)
    groups = [{row["meta"]["group"] for row in dataset.sides[side]} for side in SIDES]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 6


def test_a_growing_log_moves_no_row(tmp_path: Path) -> None:
    lake = write(tmp_path, list(map(attempt, range(60))))
    before = read_dataset(made(lake).folder)
    write(tmp_path, list(map(attempt, range(60, 120))))
    after = read_dataset(made(lake).folder)
    for side in SIDES:
        kept = {row["meta"]["exchange_id"] for row in after.sides[side]}
        assert {row["meta"]["exchange_id"] for row in before.sides[side]} <= kept


def test_no_text_is_on_two_sides(tmp_path: Path) -> None:
    """The same words under another system prompt are no duplicate, but they would leak."""
    rows = [attempt(n, asked=f"Is it {n // 2}?") for n in range(200)]
    for row in rows[1::2]:
        row["messages"][0]["content"] = "Answer otherwise."
    built = made(write(tmp_path, rows), Shares(0.2, 0.2))
    dataset = read_dataset(built.folder)
    asked = [{row["messages"][1]["content"] for row in dataset.sides[side]} for side in SIDES]
    assert sum(map(len, asked)) == len(set.union(*asked))
    assert built.manifest["dropped"]["contamination"] > 0


def test_where_answers_are_json_a_broken_one_is_dropped(tmp_path: Path) -> None:
    rows = [attempt(n, answer={"content": '{"a": 1}'}) for n in range(30)]
    built = made(write(tmp_path, [*rows, attempt(31, answer={"content": '{"a": '})]))
    assert built.manifest["dropped"] == {"invalid_json": 1}


def test_the_same_log_gives_the_same_dataset(tmp_path: Path) -> None:
    lake = write(tmp_path, list(map(attempt, range(30))))
    first = made(lake)
    stamp = (first.folder / "manifest.json").stat().st_mtime_ns
    assert made(lake).folder == first.folder
    assert (first.folder / "manifest.json").stat().st_mtime_ns == stamp
    assert made(lake, Shares(0.1, 0.3)).folder != first.folder


def test_the_manifest_tells_where_it_comes_from(tmp_path: Path) -> None:
    manifest = made(write(tmp_path, list(map(attempt, range(30))))).manifest
    assert manifest["teachers"] == {"big-1": 30}
    assert manifest["window"]["first"] < manifest["window"]["last"]
    assert manifest["tokens"]["prompt"]["total"] == 300
    assert manifest["recipe"]["workload"] == "w"


def test_tool_calls_stay_as_on_the_wire(tmp_path: Path) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    answer = {"content": None, "tool_calls_json": json.dumps(calls), "finish_reason": "tool_calls"}
    tools = [{"type": "function", "function": {"name": "f"}}]
    row = attempt(1, answer=answer, tools_json=json.dumps(tools))
    kept = rows_of(made(write(tmp_path, [row]), Shares(0, 0)))
    assert kept[0]["messages"][-1]["tool_calls"] == calls
    assert kept[0]["tools"] == tools


def test_an_empty_window_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    lake = write(tmp_path, list(map(attempt, range(3))))
    with pytest.raises(DatasetError, match=r"no teacher answers for workload 'w'.*check"):
        made(lake, Shares(), START - timedelta(days=2), START - timedelta(days=1))


def test_a_window_of_bad_rows_only_is_an_error_with_counts(tmp_path: Path) -> None:
    lake = write(tmp_path, [attempt(n, status=500) for n in range(3)])
    with pytest.raises(DatasetError, match=r"no training rows are left of 3.*http_error 3"):
        made(lake)


def test_the_command_prints_a_table_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [*map(attempt, range(20)), attempt(99, status=500)])
    words = ["dataset", "build", "--workload", "w", "--lake", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["dropped"] == {"http_error": 1}
    assert main(words) == 0
    assert "dropped: http_error" in (table := capsys.readouterr().out)
    assert printed["path"] in table.replace("\n", "")


def test_the_command_tells_an_unknown_workload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [attempt(1)])
    assert main(["dataset", "build", "--workload", "nobody", "--lake", str(tmp_path)]) == 1
    assert "'nobody'" in capsys.readouterr().err
