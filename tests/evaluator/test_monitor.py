"""The monitor over a real lake: what it says, when it says it, and when it has to look dead."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluator.monitor import Monitor, Watch
from tests.evaluator.lake_rows import STUDENT, WORKLOAD, attempt, pair, write
from understudy import documents
from understudy.config import Config, parse
from understudy.config_file import ConfigFile
from understudy.documents import RolloutEvent, Verdict
from understudy.lake import Lake
from understudy.policy import Policy, PolicyStore, WorkloadPolicy

YAML = """
teacher: {base_url: "http://localhost:1/v1"}
lake: lake
workloads:
  triage:
    student: {base_url: "http://localhost:2/v1", model: triage-0001}
    gate: {margin: 0.05}
    hybrid: {target_quality: 0.95}
    rollout:
      steps: [{shadow: 1.0, min_pairs: 100}, {setWeight: 10}, {hybrid: true}]
      guardrails: {error_rate: 0.05, latency_p95_ms: 1000}
"""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    (tmp_path / "lake").mkdir()
    return Lake(tmp_path / "lake")


@pytest.fixture
def config() -> Config:
    return parse(YAML)


@pytest.fixture
def monitor(lake: Lake) -> Iterator[Monitor]:
    made = Monitor(lake, clock=_seconds())
    yield made
    made.close()


def _seconds() -> "itertools.count[float].__next__":  # type: ignore[name-defined]
    return itertools.count(10_000.0).__next__


def words(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.signal: verdict.verdict for verdict in verdicts}


def good(count: int, since: float) -> list[dict[str, object]]:
    return [row for i in range(count) for row in pair(since + i)]


def bad(count: int, since: float) -> list[dict[str, object]]:
    return [row for i in range(count) for row in pair(since + i, student="no")]


def began(lake: Lake, n: int, at: float, step: int, action: str = "promote", **more: str) -> None:
    state = more.get("state", "running")
    event = RolloutEvent(
        workload=WORKLOAD, n=n, student=STUDENT, state=state, step=step, action=action,
        reason="", at=at,
    )  # type: ignore[arg-type]  # fmt: skip
    assert documents.add_rollout_event(lake, event)


def test_agreement_passes_with_its_evidence(lake: Lake, config: Config, monitor: Monitor) -> None:
    write(lake, good(200, since=1000))
    verdicts = monitor.tick(config)
    assert words(verdicts) == dict.fromkeys(("agreement", "error_rate", "latency_p95"), "PASS")
    found = next(v for v in verdicts if v.signal == "agreement")
    assert found.kind == "monitor"
    assert found.student == STUDENT
    assert {"n", "agreement", "low", "high", "e_pass", "e_fail", "margin", "alpha"} <= set(
        found.evidence
    )
    assert (found.evidence["n"], found.evidence["pairs"]) == (200, 200)
    assert (found.evidence["first_at"], found.evidence["last_at"]) == (1000, 1199)
    assert documents.verdicts(lake, WORKLOAD) == sorted(verdicts, key=lambda v: v.id)


def test_few_pairs_say_nothing(lake: Lake, config: Config, monitor: Monitor) -> None:
    write(lake, good(5, since=1000))
    assert set(words(monitor.tick(config)).values()) == {"UNDERPOWERED"}


def test_a_late_regression_fails_within_a_few_dozen_pairs_of_a_long_good_run(
    lake: Lake, config: Config, monitor: Monitor
) -> None:
    write(lake, good(3000, since=1000))
    assert words(monitor.tick(config))["agreement"] == "PASS"
    write(lake, bad(24, since=5000))
    assert words(monitor.tick(config))["agreement"] == "FAIL"


def test_json_answers_agree_by_value(lake: Lake, config: Config, monitor: Monitor) -> None:
    rows = [
        pair(1000 + i, teacher='{"a":1,"b":null}', student='{"b": null, "a": 1.0}')
        for i in range(200)
    ]
    write(lake, itertools.chain(*rows))
    assert words(monitor.tick(config))["agreement"] == "PASS"


def test_halves_of_a_pair_in_two_files_count_once(
    lake: Lake, config: Config, monitor: Monitor
) -> None:
    rows = good(100, since=1000)
    write(lake, [row for row in rows if row["arm"] == "teacher"])
    assert monitor.tick(config) == []
    write(lake, [row for row in rows if row["arm"] == "student"])
    found = [v for v in monitor.tick(config) if v.signal == "agreement"]
    assert found[0].evidence["n"] == 100
    write(lake, good(100, since=2000))
    found = [v for v in monitor.tick(config) if v.signal == "agreement"]
    assert found[0].evidence["n"] == 200


def test_verdicts_are_written_when_they_change(
    lake: Lake, config: Config, monitor: Monitor
) -> None:
    write(lake, good(200, since=1000))
    assert monitor.tick(config)
    write(lake, good(20, since=2000))
    assert monitor.tick(config) == []
    write(lake, good(200, since=3000))
    assert words(monitor.tick(config)) == dict.fromkeys(
        ("agreement", "error_rate", "latency_p95"), "PASS"
    )


def test_a_step_is_judged_by_its_own_pairs(lake: Lake, config: Config, monitor: Monitor) -> None:
    began(lake, 0, at=900, step=0, action="start")
    write(lake, good(200, since=1000))
    assert words(monitor.tick(config))["agreement"] == "PASS"
    began(lake, 1, at=10_000.5, step=1)
    write(lake, good(10, since=20_000))
    found = next(v for v in monitor.tick(config) if v.signal == "agreement")
    assert (found.verdict, found.evidence["n"], found.evidence["step"]) == ("UNDERPOWERED", 10, 1)
    assert found.evidence["pairs"] == 210
    assert found.at > 10_000.5


def test_a_pause_begins_nothing(lake: Lake, config: Config, monitor: Monitor) -> None:
    began(lake, 0, at=900, step=0, action="start")
    write(lake, good(100, since=1000))
    monitor.tick(config)
    began(lake, 1, at=1500, step=0, action="pause", state="paused")
    began(lake, 2, at=1600, step=0, action="resume")
    write(lake, good(100, since=2000))
    found = next(v for v in monitor.tick(config) if v.signal == "agreement")
    assert found.evidence["n"] == 200


def test_a_new_rollout_forgets_the_old_one(lake: Lake, config: Config, monitor: Monitor) -> None:
    began(lake, 0, at=900, step=0, action="start")
    write(lake, bad(50, since=1000))
    assert words(monitor.tick(config))["agreement"] == "FAIL"
    began(lake, 1, at=2000, step=0, action="roll_back", state="rolled_back")
    began(lake, 2, at=3000, step=0, action="start")
    write(lake, good(200, since=4000))
    assert words(monitor.tick(config))["agreement"] == "PASS"


def test_a_restart_says_the_same_and_nothing_twice(lake: Lake, config: Config) -> None:
    write(lake, good(150, since=1000))
    write(lake, bad(30, since=2000))
    for expected in ("FAIL", None):
        monitor = Monitor(lake, clock=_seconds())
        assert words(monitor.tick(config)).get("agreement") == expected
        monitor.close()
    points = lake.get_json(f"control/monitor/{WORKLOAD}.json")
    assert [p["at"] for p in points] == sorted({p["at"] for p in points})


def test_failed_calls_and_slow_answers_break_their_guardrails(
    lake: Lake, config: Config, monitor: Monitor
) -> None:
    rows = [
        attempt(
            1000 + i, arm="student", adapter=STUDENT, role="shadow", status=500, outcome="error"
        )
        for i in range(20)
    ]
    rows += [
        attempt(2000 + i, arm="student", adapter=STUDENT, duration_ms=5000.0) for i in range(50)
    ]
    write(lake, rows)
    verdicts = monitor.tick(config)
    assert words(verdicts) == {"error_rate": "FAIL", "latency_p95": "FAIL"}
    assert {v.kind for v in verdicts} == {"guardrail"}
    slow = next(v for v in verdicts if v.signal == "latency_p95")
    assert (slow.evidence["p95_ms"], slow.evidence["limit_ms"]) == (5000, 1000)


def test_what_the_client_broke_off_says_nothing_of_the_student(
    lake: Lake, config: Config, monitor: Monitor
) -> None:
    rows = [
        attempt(1000 + i, arm="student", adapter=STUDENT, outcome=outcome, status=None)
        for i, outcome in enumerate(["client_abort", "unfinished"] * 50)
    ]
    write(lake, rows)
    assert monitor.tick(config) == []


def test_in_hybrid_mode_only_the_students_share_counts(
    lake: Lake, config: Config, monitor: Monitor
) -> None:
    policy = Policy(workloads={WORKLOAD: WorkloadPolicy(mode="hybrid", router_threshold=0.6)})
    assert PolicyStore(lake).publish(policy, over=0, author="test", reason="")
    rows = [pair(1000 + i, score=0.9) for i in range(200)]
    rows += [pair(2000 + i, student="no", score=0.3) for i in range(200)]
    write(lake, itertools.chain(*rows))
    found = next(v for v in monitor.tick(config) if v.signal == "agreement")
    assert (found.verdict, found.evidence["n"]) == ("PASS", 200)
    assert found.evidence["router_threshold"] == 0.6


def test_points_for_the_console_show_the_fall(lake: Lake, config: Config, monitor: Monitor) -> None:
    write(lake, good(300, since=1000))
    monitor.tick(config)
    write(lake, bad(60, since=2000))
    monitor.tick(config)
    points = lake.get_json(f"control/monitor/{WORKLOAD}.json")
    assert {"at", "n", "agreement", "low", "high", "recent"} <= set(points[-1])
    assert all(p["low"] <= p["agreement"] <= p["high"] for p in points)
    assert (points[-1]["n"], points[-1]["recent"]) == (360, 0)


def test_every_look_ends_with_a_heartbeat(lake: Lake, config: Config, monitor: Monitor) -> None:
    monitor.tick(config)
    assert documents.heartbeat(lake, "monitor") is not None


def test_a_monitor_that_cannot_see_looks_dead_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "understudy.yaml"
    path.write_text(YAML)
    watch = Watch(ConfigFile(path))
    lake = Lake(tmp_path / "lake")
    assert watch.look() == []  # no lake yet
    assert not lake.root.exists()
    write(lake, good(200, since=1000))
    torn = lake.path("log/part=spool-a/torn.parquet")
    torn.write_bytes(b"PAR1 no parquet")
    assert watch.look() == []
    assert documents.heartbeat(lake, "monitor") is None
    torn.unlink()
    assert words(watch.look())["agreement"] == "PASS"
    assert documents.heartbeat(lake, "monitor") is not None
