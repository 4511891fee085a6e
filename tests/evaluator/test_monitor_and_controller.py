"""Monitor and controller on one lake: verdicts move a rollout forward, and take it back."""

import itertools
import time
from pathlib import Path

from deploy.rollout.controller import Controller
from evaluator.monitor import Watch
from tests.evaluator.lake_rows import STUDENT, WORKLOAD, pair, write
from understudy.config_file import ConfigFile
from understudy.documents import RolloutEvent, add_rollout_event, rollout_events
from understudy.lake import Lake

YAML = """
teacher: {base_url: "http://localhost:1/v1"}
lake: lake
workloads:
  triage:
    student: {base_url: "http://localhost:2/v1", model: triage-0001}
    gate: {margin: 0.05, required: false}
    rollout:
      steps: [{shadow: 1.0, min_pairs: 100}, {setWeight: 10, min_pairs: 60}, {student: true}]
      guardrails: {error_rate: 0.05}
"""


def pairs_of_now(lake: Lake, count: int, student: str = "yes") -> None:
    rows = [pair(time.time() + i / 1e4, student=student) for i in range(count)]
    write(lake, itertools.chain(*rows))


def test_each_step_needs_pairs_of_its_own_and_a_regression_rolls_back(tmp_path: Path) -> None:
    path, lake = tmp_path / "understudy.yaml", Lake(tmp_path / "lake")
    path.write_text(YAML)
    watch, controller = Watch(ConfigFile(path)), Controller(ConfigFile(path))

    def look() -> list[str]:
        watch.tick()
        return [event.action for event in controller.tick()]

    start = RolloutEvent(
        workload=WORKLOAD, n=1, student=STUDENT, state="running", step=0, action="start",
        reason="", at=time.time(),
    )  # fmt: skip
    assert add_rollout_event(lake, start)
    pairs_of_now(lake, 80)
    assert look() == []  # 100 are asked for
    pairs_of_now(lake, 80)
    assert look() == ["promote"]
    assert look() == []  # the last step's pairs do not count again
    pairs_of_now(lake, 40)
    assert look() == []
    pairs_of_now(lake, 80)
    assert look() == ["promote"]
    pairs_of_now(lake, 120)
    assert look() == ["done"]
    pairs_of_now(lake, 24, student="no")
    assert look() == ["roll_back"]
    assert rollout_events(lake, WORKLOAD)[-1].state == "rolled_back"
    assert look() == []
