"""The console's pure pieces: charts, differences, steps, savings, and which files are read."""

import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.console import chart, files, numerals, stepper
from deploy.console.contents import Contents
from deploy.console.control import Audit, ControlReader, SpoolCount
from deploy.console.evidence import figures
from deploy.console.likeness import same_answer
from deploy.console.overview import records
from deploy.console.saving import Saving, measured, saving
from deploy.console.traffic import Arm, Traffic
from deploy.rollout.machine import Seen
from deploy.rollout.status import status_of
from tests.deploy import console_lake
from understudy.config import Rollout, Step
from understudy.diff import side_by_side
from understudy.documents import RolloutEvent, Verdict
from understudy.lake import Lake

NOW = 1_800_000_000.0
STEPS = (Step(shadow=0.5, min_pairs=300), Step(setWeight=5, min_pairs=100), Step(student=True))


def _events(*moves: tuple[str, str, int]) -> list[RolloutEvent]:
    """Transitions a minute apart, the last one a minute ago: (action, state, step)."""
    return [
        RolloutEvent(
            workload="w",
            n=n,
            student="s",
            state=state,  # type: ignore[arg-type]
            step=step,
            action=action,
            reason=f"{action} it",
            at=NOW - 60 * (len(moves) - n),
        )
        for n, (action, state, step) in enumerate(moves)
    ]


def _nodes(events: list[RolloutEvent], gate: str | None = "PASS") -> list[stepper.Node]:
    said = []
    if gate is not None:
        said = [
            Verdict(
                workload="w",
                student="s",
                kind="gate",
                signal="agreement",
                verdict=gate,  # type: ignore[arg-type]
                evidence={},
            )
        ]
    seen = Seen(verdicts=said, now=NOW, monitor_age_s=1.0, max_age_s=15.0)
    status = status_of("w", Rollout(steps=STEPS), events, seen)
    return stepper.nodes(status, stepper.gate_verdict(said, "s"), NOW)


START, PROMOTE = ("start", "running", 0), ("promote", "running", 1)


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([], ["done", "next", "next", "next"]),
        ([START], ["done", "now", "next", "next"]),
        ([START, PROMOTE], ["done", "done", "now", "next"]),
        ([START, PROMOTE, ("pause", "paused", 1)], ["done", "done", "paused", "next"]),
        ([START, PROMOTE, ("roll_back", "rolled_back", 1)], ["done", "done", "failed", "next"]),
        ([START, PROMOTE, ("promote", "running", 2), ("done", "done", 2)], ["done"] * 4),
        ([START, PROMOTE, ("roll_back", "rolled_back", 1), START], ["done", "now", "next", "next"]),
    ],
)
def test_the_stepper_shows_where_the_rollout_stands(
    moves: list[tuple[str, str, int]], expected: list[str]
) -> None:
    assert [node.state for node in _nodes(_events(*moves))] == expected


def test_the_current_step_says_what_the_state_machine_waits_for() -> None:
    assert _nodes(_events(START))[1].note == "no verdict on agreement since this step began"
    fallen = _nodes(_events(START, ("roll_back", "rolled_back", 0)))[1]
    assert (fallen.state, fallen.note) == ("failed", "roll_back it")


def test_an_underpowered_or_missing_gate_is_not_passed() -> None:
    assert _nodes([], "UNDERPOWERED")[0].state == "paused"
    assert _nodes([], "FAIL")[0].state == "failed"
    assert _nodes([], None)[0].state == "next"


def test_evidence_is_said_in_figures_and_never_twice() -> None:
    said = {"agreement": 0.9712, "limit": 0.05, "margin": 0.05, "n": 1412, "e_pass": 3.1,
            "loses_to": ["tf-idf", "majority"], "low": None, "reasons": ["x"]}  # fmt: skip
    verdict = Verdict(
        workload="w", student="s", kind="gate", signal="agreement", verdict="PASS", evidence=said
    )
    found = {f.name: f.value.replace("\N{NO-BREAK SPACE}", " ") for f in figures(verdict)}
    assert found == {
        "agreement": "97.1 %", "margin": "5 %", "n": "1,412", "loses to": "tf-idf, majority"
    }  # fmt: skip


def _arm(arm: str, served: int, attempts: int, cost: float | None, seen: float) -> Arm:
    return Arm(
        workload="w", arm=arm, attempts=attempts, served=served, shadow=0, fallback=0, failed=0,
        p50_ms=None, p95_ms=None, ttft_p50_ms=None, priced=0 if cost is None else attempts,
        cost_usd=cost, served_cost_usd=seen,
    )  # fmt: skip


def test_what_was_saved_is_the_teachers_price_less_all_that_students_cost() -> None:
    # 100 answers at 2 cents avoided; 150 student calls cost 0.30, 10 unseen teacher calls 0.20.
    arms = {
        "teacher": _arm("teacher", 90, 100, 2.0, 1.8),
        "student": _arm("student", 100, 150, 0.3, 0.2),
    }
    found = saving(arms)
    assert found.avoided == pytest.approx(2.0)
    assert found.own == pytest.approx(0.5)
    assert found.net == pytest.approx(1.5)
    assert measured(arms) == pytest.approx(100 / 190)


def test_an_unknown_price_makes_no_saving_of_zero() -> None:
    teacher, unpriced = _arm("teacher", 90, 100, 2.0, 1.8), _arm("student", 100, 150, None, 0)
    assert saving({"teacher": teacher, "student": unpriced}) == Saving(pytest.approx(2.0), None)
    assert saving({"student": unpriced}).net is None
    assert numerals.usd(None) == numerals.UNKNOWN


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=80))
def test_bars_stay_in_their_box_and_add_up(bins: list[tuple[float, float]]) -> None:
    scale = chart.scale_from_zero(max(sum(values) for values in bins))
    for bar in chart.stack(bins, scale):
        assert 0 <= bar.y <= bar.y + bar.height <= chart.HEIGHT + 0.01
        assert 0 <= bar.x <= bar.x + bar.width <= chart.WIDTH + 0.01
    total = sum(bar.height for bar in chart.stack(bins, scale))
    expected = sum(sum(values) for values in bins) / scale.high * chart.HEIGHT
    assert total == pytest.approx(expected, abs=0.05 * len(bins))


def test_a_missing_number_is_a_gap_and_no_zero() -> None:
    path = chart.line([1.0, 1.0, None, 1.0], chart.Scale(0, 1))
    assert path.count("M") == 2
    assert str(chart.HEIGHT) not in path.replace("L", " ").split()


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_a_scale_holds_its_highest_value(highest: float) -> None:
    scale = chart.scale_from_zero(highest)
    assert highest <= scale.high * (1 + 1e-9) <= highest * 10.01


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_difference_loses_no_character(left: str, right: str) -> None:
    sides = side_by_side(left, right)
    assert "".join(piece.text for piece in sides.left) == left
    assert "".join(piece.text for piece in sides.right) == right
    unchanged = ["".join(p.text for p in side if not p.changed) for side in sides]
    assert unchanged[0] == unchanged[1]


def test_equal_json_is_the_same_answer_and_hostile_json_is_only_text() -> None:
    assert same_answer('{"a": [1, 2]}', '{ "a":[1,2] }')
    assert not same_answer('{"a": 1}', '{"a": 2}')
    assert not same_answer("[" * 100_000, "[" * 99_999)
    assert not same_answer(None, "")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numerals.percent(0.9712), "97.1 %"), (numerals.percent(0.05), "5 %"),
        (numerals.percent(1.0), "100 %"), (numerals.percent(0.0), "0 %"),
        (numerals.usd(-3.1), "\N{MINUS SIGN}$3.10"), (numerals.usd(0.00421), "$0.0042"),
        (numerals.usd(12345.6), "$12,346"), (numerals.milliseconds(1553.2), "1,553 ms"),
        (numerals.milliseconds(12_400), "12.4 s"), (numerals.duration(59.4), "59 s"),
        (numerals.duration(7200), "2 h"), (numerals.count(12345), "12,345"),
    ],
)  # fmt: skip
def test_numbers_read_as_people_write_them(written: str, expected: str) -> None:
    assert written.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_quoted_words_become_code_and_the_rest_is_escaped() -> None:
    assert numerals.coded("run `a<b>` & <i>") == "run <code>a&lt;b&gt;</code> &amp; &lt;i&gt;"


def test_only_files_that_can_hold_the_span_are_read(tmp_path: Path) -> None:
    lake, start = Lake(tmp_path), time.time() - 5000
    for index in range(6):
        console_lake.write_rows(lake, f"spool-a/{index}", [])
        path = lake.path(f"log/part=spool-a/{index:020d}.parquet")
        os.utime(path, (start + index * 1000, start + index * 1000))
    names = [path.name for path in files.written(lake, start + 3500, start + 4500)]
    assert names == [f"{4:020d}.parquet"]
    assert len(files.written(lake, start + 2500)) == 3
    assert files.written(Lake(tmp_path / "none"), 0) == []


def test_each_file_is_read_once_and_a_day_is_kept(tmp_path: Path) -> None:
    lake, now = Lake(tmp_path), time.time()
    clock = [now]
    traffic = Traffic(lake, lambda: clock[0])
    console_lake.write_rows(lake, "spool-a/0", [console_lake.row("e-1", now - 5, "teacher")])
    assert [arm.attempts for arm in traffic.window(900).arms] == [1]
    clock[0] += 2
    console_lake.write_rows(lake, "spool-a/1", [console_lake.row("e-2", now, "teacher")])
    assert [arm.attempts for arm in traffic.window(900).arms] == [2]
    assert [arm.attempts for arm in traffic.window(3600).arms] == [2]
    clock[0] += 90_000
    assert traffic.window(86_400).arms == []
    traffic.close()


def test_the_time_axis_holds_every_served_answer_once(tmp_path: Path) -> None:
    lake = console_lake.seed(tmp_path / "lake", time.time(), exchanges=200)
    traffic = Traffic(lake)
    for seconds in (900, 3600, 21_600, 86_400):
        window = traffic.window(seconds)
        assert sum(c.served for c in window.cells) == sum(arm.served for arm in window.arms)
        assert all(0 <= cell.bin < 60 for cell in window.cells)
    traffic.close()


def test_an_id_that_is_no_uuid_is_found_too(tmp_path: Path) -> None:
    lake, now = Lake(tmp_path), time.time()
    old = console_lake.uuid7(random.Random(1), now - 5)
    rows = [console_lake.row(id_, now, "teacher") for id_ in ("request-17", old)]
    console_lake.write_rows(lake, "spool-a/0", rows)
    contents = Contents(lake)
    for id_ in ("request-17", old):
        found = contents.exchange(id_)
        assert found is not None
        assert [row["attempt_id"] for row in found.attempts] == [f"{id_}-teacher"]
    assert contents.exchange("' OR 1=1 --") is None
    contents.close()


def test_documents_are_read_once_and_a_stray_file_is_no_workload_of_reports(tmp_path: Path) -> None:
    lake = console_lake.seed(tmp_path / "lake", time.time(), exchanges=10)
    (lake.root / "reports/stray.txt").write_text("not a folder")
    (lake.root / "reports/triage/stray.txt").write_text("no folder either")
    reader = ControlReader(lake)
    first = reader.read()
    second = reader.read()
    assert len(first.problems) == 1
    assert "stray.txt: Not a directory" in first.problems[0]
    assert first.workloads["triage"].events[0] is second.workloads["triage"].events[0]
    assert [r.run for r in first.workloads["triage"].reports] == ["triage-0004-20261120T0954"]
    assert [p.version for p in first.policies] == [4, 3, 2, 1]
    assert json.dumps(first.audits[0].spools[0].offered) == "4310"


def test_the_lag_of_a_writer_that_is_gone_says_nothing_of_now() -> None:
    gone = SpoolCount(spool_id="a", offered=9, stored=9, closed=True)
    here = SpoolCount(spool_id="b", offered=5, stored=4, open=1)
    audits = [
        Audit(partition="spool-a", at=NOW - 9000, lag_seconds=500.0, spools=[gone]),
        Audit(partition="spool-b", at=NOW, lag_seconds=2.0, spools=[here]),
    ]
    found = records(audits)
    assert found is not None
    assert (found.lag_s, found.offered, found.stored, found.open) == (2.0, 14, 13, 1)
    assert records([]) is None
