"""Control documents: written once, read once, and what happens to damaged ones."""

import logging
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from understudy import documents
from understudy.documents import Aliases, RolloutEvent, Verdict
from understudy.errors import LakeError
from understudy.lake import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def judge(
    lake: Lake,
    student: str,
    word: Literal["PASS", "FAIL", "UNDERPOWERED"],
    kind: Literal["gate", "monitor", "guardrail"] = "gate",
) -> Verdict:
    verdict = Verdict(
        workload="w", student=student, kind=kind, signal="agreement", verdict=word, evidence={}
    )
    documents.write_verdict(lake, verdict)
    return verdict


def event(n: int, **changes: Any) -> RolloutEvent:
    values: dict[str, Any] = {
        "workload": "w",
        "student": "s",
        "state": "running",
        "step": 0,
        "action": "start",
        "reason": "",
        "at": 1.0,
    }
    return RolloutEvent(n=n, **(values | changes))


def test_verdicts_come_oldest_first_and_only_the_later_ones_on_request(lake: Lake) -> None:
    written = [judge(lake, f"s{n}", "PASS") for n in range(4)]
    assert sorted(documents.verdicts(lake, "w"), key=lambda v: v.id) == documents.verdicts(
        lake, "w"
    )
    assert {v.id for v in documents.verdicts(Lake(lake.root), "w")} == {v.id for v in written}
    ids = sorted(v.id for v in written)
    assert [v.id for v in documents.verdicts(lake, "w", after=ids[1])] == ids[2:]
    assert documents.verdicts(lake, "other") == []


def test_a_verdict_is_never_changed(lake: Lake) -> None:
    first = judge(lake, "s", "PASS")
    documents.write_verdict(lake, msgspec.structs.replace(first, verdict="FAIL"))
    assert documents.verdicts(Lake(lake.root), "w") == [first]


def test_the_newest_gate_verdict_counts_and_nothing_but_gates(lake: Lake) -> None:
    assert not documents.gate_passed(lake, "w", "s")
    for word, passed in (("PASS", True), ("UNDERPOWERED", False), ("PASS", True), ("FAIL", False)):
        time_apart(lake)
        judge(lake, "s", word)  # type: ignore[arg-type]
        assert documents.gate_passed(lake, "w", "s") is passed
    time_apart(lake)
    judge(lake, "s", "PASS", kind="monitor")
    judge(lake, "t", "PASS")
    assert not documents.gate_passed(lake, "w", "s")
    assert documents.passed_students(lake, "w") == {"t"}


def test_verdicts_that_were_seen_are_not_read_again(lake: Lake) -> None:
    found = judge(lake, "s", "PASS")
    documents.verdicts(lake, "w")
    lake.path(f"control/verdicts/w/{found.id}.json").write_text("gone bad")
    assert documents.verdicts(lake, "w") == [found]


def test_a_damaged_verdict_is_left_out_with_one_warning(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    good = judge(lake, "s", "PASS")
    lake.put("control/verdicts/w/a.json", b'{"workload": 1}')
    lake.put("control/verdicts/w/b.json", b"")
    for _ in range(3):
        assert documents.verdicts(lake, "w") == [good]
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 2
    assert all("no Verdict" in message and "remove it" in message for message in warned)


def test_a_heartbeat_is_the_newest_or_none_and_a_damaged_one_is_none(lake: Lake) -> None:
    assert documents.heartbeat(lake, "monitor") is None
    documents.beat(lake, "monitor", pairs=3)
    documents.beat(lake, "monitor", pairs=4)
    found = documents.heartbeat(lake, "monitor")
    assert found is not None
    assert found.detail == {"pairs": 4}
    for damage in (b"", b"{", b'{"name": "monitor"}'):
        lake.put("control/heartbeats/monitor.json", damage)
        assert documents.heartbeat(lake, "monitor") is None


def test_of_two_events_with_one_number_the_first_stands(lake: Lake) -> None:
    assert documents.add_rollout_event(lake, event(1))
    assert not documents.add_rollout_event(lake, event(1, state="aborted"))
    assert documents.add_rollout_event(lake, event(2, step=1, mode="canary", weight=5.0))
    assert documents.rollout_events(lake, "w") == [
        event(1),
        event(2, step=1, mode="canary", weight=5.0),
    ]


def test_a_damaged_event_is_an_error_that_names_it(lake: Lake) -> None:
    lake.put("control/rollouts/w/0000000001.json", b"{}")
    for _ in range(2):
        with pytest.raises(LakeError, match=r"0000000001\.json: no RolloutEvent: .*; remove it"):
            documents.rollout_events(lake, "w")


def test_events_of_older_versions_demand_what_the_file_says(lake: Lake) -> None:
    old = {"workload": "w", "n": 1, "student": "s", "state": "running", "step": 1,
           "action": "promote", "reason": "", "at": 1.0}  # fmt: skip
    lake.put_json("control/rollouts/w/0000000001.json", old)
    assert documents.rollout_events(lake, "w")[0].mode is None


def test_aliases_are_replaced_and_damaged_ones_are_an_error(lake: Lake) -> None:
    assert documents.aliases(lake, "w") == Aliases()
    value = Aliases(champion="a", students={"a": "students/w/a"})
    documents.write_aliases(lake, "w", value)
    assert documents.aliases(lake, "w") == value
    lake.put("control/students/w.json", b"")
    with pytest.raises(LakeError, match="no Aliases"):
        documents.aliases(lake, "w")


def time_apart(lake: Lake) -> None:
    """Verdict ids sort by their millisecond: wait for the next one."""
    newest = judge(lake, "clock", "UNDERPOWERED").id[:13]
    while judge(lake, "clock", "UNDERPOWERED").id[:13] == newest:
        pass
