"""What an operator reads of a rollout, and the command's own words."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.rollout import status
from deploy.rollout.controller import observe
from tests.deploy.rollout_stage import RolloutStage
from understudy.config_file import ConfigFile
from understudy.policy import PolicyStore


@pytest.fixture
def stage(tmp_path: Path) -> RolloutStage:
    found = RolloutStage(tmp_path)
    found.register("s1")
    return found


def look(stage: RolloutStage) -> status.Status:
    config = ConfigFile(stage.path).config
    seen = observe(config, stage.lake, "triage", stage.events, stage.now)
    return status.status_of("triage", config.workloads["triage"].rollout, stage.events, seen)


def words(found: status.Status) -> list[tuple[str, str]]:
    return [(step.step, step.state) for step in found.steps]


def test_before_a_start_it_says_how_to(stage: RolloutStage) -> None:
    found = look(stage)
    assert (found.state, found.student) == ("none", None)
    assert found.next == "`understudy rollout start triage --student NAME`"
    assert words(found)[0] == ("shadow 50 %", "to come")
    del stage.workload["rollout"]
    stage.write()
    assert "has no steps" in look(stage).next


def test_each_step_says_since_when_and_why_it_was_left(stage: RolloutStage) -> None:
    stage.start("s1")
    stage.promote("s1")
    found = look(stage)
    assert words(found) == [
        ("shadow 50 %", "passed"),
        ("canary 1 %", "now"),
        ("canary 25 %", "to come"),
        ("student", "to come"),
    ]
    assert found.steps[0].reason == "agreement PASS on 50 pairs of step 1/4"
    assert found.steps[1].since == stage.now
    assert found.next == "no verdict on agreement since this step began"
    stage.say("UNDERPOWERED", "s1")
    text = status.table(look(stage), stage.now)
    assert "monitor agreement: UNDERPOWERED on 50 pairs" in text
    assert "triage: running, s1" in text


def test_what_the_controller_will_do_next_is_said_before_it_does_it(stage: RolloutStage) -> None:
    stage.start("s1")
    stage.pairs = 12
    stage.say("PASS", "s1")
    stage.beat()
    assert look(stage).next.startswith(
        "promote at the controller's next look: agreement PASS on 12"
    )
    stage.say("FAIL", "s1")
    assert look(stage).next.startswith("roll_back at the controller's next look: monitor on")


def test_a_rollback_shows_where_it_fell_and_what_lifts_it(stage: RolloutStage) -> None:
    stage.start("s1")
    stage.promote("s1")
    stage.say("FAIL", "s1", kind="guardrail", signal="error_rate")
    stage.tick()
    found = look(stage)
    assert words(found)[:2] == [("shadow 50 %", "passed"), ("canary 1 %", "rolled back")]
    assert found.reason == "guardrail on error_rate says FAIL; the teacher answers"
    assert "until `understudy rollout abort triage` or a new start" in found.next
    stage.start("s1", force=True)
    assert [state for _, state in words(look(stage))] == ["now", "to come", "to come", "to come"]


def run(stage: RolloutStage, *given: str, code: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "rollout", *given, "--config", stage.path, "--json"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def test_the_command_steers_a_rollout_and_publishes_by_itself(stage: RolloutStage) -> None:
    assert run(stage, "start", "triage", "--student", "s1")["state"] == "running"
    assert stage.policy.mode == "shadow"
    assert run(stage, "promote", "triage")["steps"][1]["state"] == "now"
    assert (stage.policy.mode, stage.policy.weight) == ("canary", 1)
    assert run(stage, "pause", "triage")["state"] == "paused"
    assert run(stage, "resume", "triage")["state"] == "running"
    assert run(stage, "rollback", "triage", "--reason", "too slow")["reason"] == "too slow"
    assert stage.policy.mode == "teacher"
    assert run(stage, "abort", "triage")["next"] == "the file's mode is in force"
    found = PolicyStore(stage.lake).latest()
    assert found is not None
    assert found.author == "operator"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["status", "nope"], "no workload 'nope' in the file (known: triage)"),
        (["pause", "nope"], "no workload 'nope' in the file (known: triage)"),
        (["pause", "triage"], "no rollout runs (none was started): nothing to pause"),
        (
            ["start", "triage", "--student", "s9"],
            "workload triage has no student 's9' (known: s1); register it",
        ),
        (
            ["start", "triage", "--student", "candidate"],
            "workload triage has no student 'candidate' (known: s1)",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_with_the_remedy(
    stage: RolloutStage, given: list[str], message: str
) -> None:
    said = run(stage, *given, code=1)
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


def test_a_student_with_a_failed_gate_needs_force(stage: RolloutStage) -> None:
    stage.register("s2", gate="FAIL")
    assert "the gate of s2 has not passed" in run(
        stage, "start", "triage", "--student", "s2", code=1
    )
    assert "by --force" in run(stage, "start", "triage", "--student", "s2", "--force")["reason"]
