"""The controller over a real lake: what it writes, publishes and survives."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.deploy.rollout_stage import RolloutStage
from understudy import documents
from understudy.errors import ConfigError, GateError
from understudy.lake import Lake
from understudy.policy import PolicyStore


@pytest.fixture
def stage(tmp_path: Path) -> RolloutStage:
    found = RolloutStage(tmp_path)
    found.register("s1")
    return found


def modes(stage: RolloutStage) -> tuple[str, float]:
    return stage.policy.mode, stage.policy.weight


def test_each_pass_takes_one_step_and_the_policy_follows(stage: RolloutStage) -> None:
    stage.start("s1")
    stage.tick()
    assert (modes(stage), stage.policy.shadow_sample) == (("shadow", 0), 0.5)
    seen = []
    for _ in range(3):
        stage.promote("s1")
        seen.append(modes(stage))
    assert seen == [("canary", 1), ("canary", 25), ("student", 0)]
    stage.promote("s1")
    assert stage.events[-1].state == "done"
    assert modes(stage) == ("student", 0)
    assert stage.policy.owner == "controller"
    assert [event.n for event in stage.events] == [1, 2, 3, 4, 5]


def test_one_pass_takes_one_step_however_often_the_controller_looks(stage: RolloutStage) -> None:
    stage.start("s1")
    stage.promote("s1")
    for _ in range(5):
        assert stage.tick() == []
    assert modes(stage) == ("canary", 1)


def test_the_student_of_a_finished_rollout_is_champion_until_it_falls(stage: RolloutStage) -> None:
    stage.register("s0")
    before = msgspec.structs.replace(documents.aliases(stage.lake, "triage"), champion="s0")
    documents.write_aliases(stage.lake, "triage", before)
    stage.start("s1")
    for _ in range(4):
        stage.promote("s1")
    crowned = documents.aliases(stage.lake, "triage")
    assert (crowned.champion, crowned.previous) == ("s1", "s0")
    assert crowned.students.keys() == {"s0", "s1"}
    stage.say("FAIL", "s1")
    stage.tick()
    assert stage.events[-1].state == "rolled_back"
    assert modes(stage) == ("teacher", 0)
    assert documents.aliases(stage.lake, "triage").champion == "s0"


def test_a_controller_that_died_before_saying_who_is_champion_says_it_later(
    stage: RolloutStage,
) -> None:
    stage.start("s1")
    stage.say("FAIL", "s1")
    stage.tick()
    late = msgspec.structs.replace(documents.aliases(stage.lake, "triage"), champion="s1")
    documents.write_aliases(stage.lake, "triage", late)
    stage.restart()
    stage.tick()
    assert documents.aliases(stage.lake, "triage").champion is None


def test_a_fail_is_answered_at_the_next_look_and_the_file_cannot_undo_it(
    stage: RolloutStage,
) -> None:
    stage.start("s1")
    stage.promote("s1")
    stage.say("FAIL", "s1", kind="guardrail", signal="error_rate")
    event = stage.tick()[0]
    assert (event.state, modes(stage)) == ("rolled_back", ("teacher", 0))
    stage.workload |= {"mode": "canary", "student": {"base_url": "http://x:1/v1", "model": "s1"}}
    stage.write()
    stage.tick()
    stage.refresh()
    assert modes(stage) == ("teacher", 0)
    del stage.workload["rollout"]
    stage.write()
    stage.tick()
    assert modes(stage) == ("teacher", 0)
    stage.operate("abort")
    stage.tick()
    assert (modes(stage), stage.policy.owner) == (("canary", 5), "file")


def test_a_student_that_the_file_put_on_stage_is_taken_off_when_it_fails(tmp_path: Path) -> None:
    stage = RolloutStage(
        tmp_path, mode="canary", student={"base_url": "http://x:1/v1", "model": "s1"}, rollout={}
    )
    stage.register("s1")
    stage.tick()
    assert modes(stage) == ("canary", 5)
    stage.say("FAIL", "s1")
    stage.tick()
    assert modes(stage) == ("teacher", 0)
    assert stage.events[-1].action == "roll_back"


def test_a_workload_that_the_file_leaves_with_the_teacher_is_left_alone(
    stage: RolloutStage,
) -> None:
    stage.say("FAIL", "s1")
    assert stage.tick() == []
    assert stage.events == []


def test_a_bad_file_of_another_workload_holds_up_no_rollback(
    stage: RolloutStage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.start("s1")
    stage.promote("s1")
    text = stage.path.read_text()
    other = "  other: {mode: student, student: {base_url: 'http://x:1/v1', model: unproved}}\n"
    stage.path.write_text(text + other)
    stage.tick()
    stage.tick()
    said = [r for r in caplog.records if "unproved" in r.getMessage()]
    assert len(said) == 1
    assert "other" not in PolicyStore(stage.lake).latest().workloads  # type: ignore[union-attr]
    stage.say("FAIL", "s1")
    stage.tick()
    assert modes(stage) == ("teacher", 0)
    with pytest.raises(ConfigError, match="unproved"):
        stage.refresh()


def test_a_bad_file_leaves_the_last_good_one_in_force_and_is_said_once(
    stage: RolloutStage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.tick()
    version = PolicyStore(stage.lake).version()
    stage.path.write_text("teacher: {base_url: 'http://x:1/v1'}\nworkload: {}\n")
    stage.tick()
    stage.tick()
    assert PolicyStore(stage.lake).version() == version
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(said) == 1
    assert "did you mean 'workloads'?" in said[0]
    stage.write()
    stage.start("s1")
    stage.promote("s1")
    assert modes(stage) == ("canary", 1)


def test_editing_the_steps_moves_no_traffic_before_the_next_transition(
    stage: RolloutStage,
) -> None:
    stage.start("s1")
    stage.promote("s1")
    stage.workload["rollout"] = {"steps": [{"shadow": 1}, {"setWeight": 90}, {"setWeight": 95}]}
    stage.write()
    stage.tick()
    assert modes(stage) == ("canary", 1)
    del stage.workload["rollout"]
    stage.write()
    stage.tick()
    assert modes(stage) == ("canary", 1)


def test_nothing_new_publishes_nothing(stage: RolloutStage) -> None:
    stage.start("s1")
    stage.tick()
    version = PolicyStore(stage.lake).version()
    for _ in range(3):
        stage.tick()
    stage.refresh()
    assert PolicyStore(stage.lake).version() == version


def test_a_restarted_controller_and_two_at_once_do_what_one_would(stage: RolloutStage) -> None:
    stage.start("s1")
    stage.tick()
    first = stage.controller
    stage.restart()
    stage.pairs += 50
    stage.say("PASS", "s1")
    stage.beat()
    stage.now += 1
    written = first.tick() + stage.controller.tick() + first.tick()
    assert [event.step for event in written] == [1]
    assert modes(stage) == ("canary", 1)


def test_a_damaged_event_stops_the_sign_of_life_until_it_is_gone(
    stage: RolloutStage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.start("s1")
    stage.tick()
    path = stage.lake.path("control/rollouts/triage/0000000001.json")
    whole, beat = path.read_bytes(), stage.lake.path("control/heartbeats/controller.json")
    path.write_bytes(whole[:-9])
    beat.unlink()
    stage.restart()
    stage.tick()
    stage.tick()
    assert not beat.exists()
    said = [r.getMessage() for r in caplog.records if str(path) in r.getMessage()]
    assert len(said) == 2  # the workload and the policy, each once
    path.write_bytes(whole)
    stage.tick()
    assert beat.exists()


def test_a_damaged_verdict_is_left_out_once_and_the_others_count(
    stage: RolloutStage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.start("s1")
    torn = stage.lake.path("control/verdicts/triage/0.json")
    torn.write_text('{"workload": "tri')
    stage.promote("s1")
    stage.tick()
    assert modes(stage) == ("canary", 1)
    assert len([r for r in caplog.records if str(torn) in r.getMessage()]) == 1


def test_a_damaged_policy_is_replaced_by_the_next_version(stage: RolloutStage) -> None:
    stage.tick()
    version = PolicyStore(stage.lake).version()
    stage.lake.path(f"control/policy/{version:010d}.json").write_text("{")
    stage.tick()
    found = PolicyStore(stage.lake).latest()
    assert found is not None
    assert found.version == version + 1


def test_an_operators_rollback_needs_no_rollout_and_no_second_one(tmp_path: Path) -> None:
    served = {"base_url": "http://x:1/v1", "model": "s1"}
    stage = RolloutStage(tmp_path, mode="student", student=served)
    stage.register("s1")
    stage.tick()
    assert modes(stage) == ("student", 5)
    stage.operate("rollback", reason="it is rude")
    stage.tick()
    assert (modes(stage), stage.policy.note) == (("teacher", 0), "it is rude")
    with pytest.raises(GateError, match="on the teacher already: it is rude"):
        stage.operate("rollback")


def test_the_real_command_promotes_and_stops_cleanly_on_sigterm(tmp_path: Path) -> None:
    stage = RolloutStage(tmp_path)
    stage.now = time.time() - 5
    stage.register("s1")
    stage.start("s1")
    stage.say("PASS", "s1")
    documents.beat(stage.lake, "monitor")
    process = subprocess.Popen(
        [sys.executable, "-m", "understudy", "controller", "--json", "--config", stage.path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, b"Traceback" in said) == (0, False)
    event = msgspec.json.decode(line, type=documents.RolloutEvent)
    assert (event.action, event.step) == ("promote", 1)
    assert documents.heartbeat(Lake(stage.lake.root), "controller") is not None
    assert os.listdir(stage.lake.path("control/policy"))
