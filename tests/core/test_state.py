"""The policy in force is what file and lake demand together, whoever publishes it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from understudy import documents, state
from understudy.config import Config, parse
from understudy.documents import RolloutEvent, Verdict
from understudy.errors import ConfigError, LakeError
from understudy.lake import Lake
from understudy.policy import Policy, PolicyStore, WorkloadPolicy
from understudy.state import RouterRef

TEACHER = "teacher: {base_url: 'http://t:1/v1'}\n"
STUDENT = "student: {base_url: 'http://s:1/v1', model: s1}"
STEPS = "rollout: {steps: [{shadow: 0.9}, {setWeight: 5}, {hybrid: true}, {student: true}]}"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def file(**workloads: str) -> Config:
    lines = [f"  {name}: {{{body}}}" for name, body in workloads.items()]
    return parse(TEACHER + "workloads:\n" + "\n".join(lines) + "\n")


def happen(lake: Lake, n: int, event_state: str, step: int = 0, **changes: Any) -> None:
    event = RolloutEvent(
        workload="w", n=n, student="s1", state=event_state, step=step,  # type: ignore[arg-type]
        action="x", reason="because", at=1.0, **changes,
    )  # fmt: skip
    assert documents.add_rollout_event(lake, event)


def passes(lake: Lake, workload: str = "w", word: str = "PASS") -> None:
    documents.write_verdict(
        lake,
        Verdict(workload=workload, student="s1", kind="gate", signal="agreement",
                verdict=word, evidence={}),  # type: ignore[arg-type]
    )  # fmt: skip


def route(lake: Lake, student: str) -> None:
    ref = RouterRef(key="control/routers/w/x.json", threshold=0.8, student=student)
    lake.put("control/routers/w/current.json", msgspec.json.encode(ref))


def publish(lake: Lake, config: Config, config_hash: str = "h") -> Policy:
    return state.refresh(config, config_hash, lake, "test", "")


def in_force(lake: Lake) -> WorkloadPolicy:
    found = PolicyStore(lake).latest()
    assert found is not None
    return found.workloads["w"]


@pytest.mark.parametrize(
    ("step", "mode", "weight", "sample"),
    [(0, "shadow", 0, 0.9), (1, "canary", 5, 0.3), (3, "student", 0, 0.3), (9, "student", 0, 0.3)],
)
def test_an_event_that_demands_nothing_itself_is_read_from_the_files_step(
    lake: Lake, step: int, mode: str, weight: float, sample: float
) -> None:
    happen(lake, 1, "running", step)
    publish(lake, file(w=f"{STUDENT}, {STEPS}, shadow: {{sample: 0.3}}"))
    found = in_force(lake)
    assert (found.mode, found.weight, found.shadow_sample) == (mode, weight, sample)
    assert found.note == f"rollout step {step + 1}/4: because"


def test_an_event_that_demands_something_gets_it_whatever_the_steps_are_now(lake: Lake) -> None:
    happen(lake, 1, "paused", 1, mode="canary", weight=2.5)
    for steps in (STEPS, "rollout: {}"):
        publish(lake, file(w=f"{STUDENT}, {steps}"))
        assert (in_force(lake).mode, in_force(lake).weight) == ("canary", 2.5)


def test_rolled_back_means_teacher_until_it_is_lifted(lake: Lake) -> None:
    passes(lake)
    happen(lake, 1, "rolled_back", 1)
    for steps in (STEPS, "rollout: {}"):
        publish(lake, file(w=f"mode: student, {STUDENT}, {steps}"))
        assert (in_force(lake).mode, in_force(lake).owner) == ("teacher", "controller")
    happen(lake, 2, "aborted")
    publish(lake, file(w=f"mode: student, {STUDENT}, {STEPS}"))
    assert (in_force(lake).mode, in_force(lake).owner) == ("student", "file")


def test_a_router_of_another_student_is_no_router(lake: Lake) -> None:
    passes(lake)
    route(lake, "s2")
    config = file(w=f"mode: hybrid, {STUDENT}")
    with pytest.raises(ConfigError, match="no router for s1"):
        publish(lake, config)
    route(lake, "s1")
    publish(lake, config)
    assert in_force(lake).router_threshold == 0.8


def test_a_damaged_router_or_alias_is_named(lake: Lake) -> None:
    lake.put("control/routers/w/current.json", b"{")
    with pytest.raises(LakeError, match=r"no router: .*; fit it again"):
        publish(lake, file(w=STUDENT))


def test_publishing_the_same_says_nothing_new(lake: Lake) -> None:
    first = publish(lake, file(w=STUDENT))
    assert publish(lake, file(w=STUDENT)) == first
    assert publish(lake, file(w=STUDENT), "other hash").version == 2


def test_many_who_publish_at_once_write_one_version(lake: Lake) -> None:
    config = file(w=f"mode: shadow, {STUDENT}")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: publish(Lake(lake.root), config), range(16)))
    assert {policy.version for policy in found} == {1}


def test_a_first_file_that_cannot_be_obeyed_publishes_nothing(lake: Lake) -> None:
    with pytest.raises(ConfigError, match="gate has not passed"):
        publish(lake, file(w=f"mode: canary, {STUDENT}"))
    assert PolicyStore(lake).version() == 0


def test_a_bad_file_changes_nothing_but_what_rollouts_demand(lake: Lake) -> None:
    good = file(w=f"{STUDENT}, {STEPS}", other="mode: teacher")
    happen(lake, 1, "running", 1, mode="canary", weight=5)
    before = publish(lake, good, "good")
    bad = file(w=f"{STUDENT}, {STEPS}, holdout: 0.5", other=f"mode: student, {STUDENT}")
    happen(lake, 2, "rolled_back", 1)
    with pytest.raises(ConfigError, match="workload other"):
        publish(lake, bad, "bad")
    found = PolicyStore(lake).latest()
    assert found is not None
    assert found.workloads["w"].mode == "teacher"
    assert found.workloads["other"] == before.workloads["other"]
    assert (found.config_hash, found.version) == ("good", 2)
    with pytest.raises(ConfigError, match="workload other"):
        publish(lake, bad, "bad")
    assert PolicyStore(lake).version() == 2


def test_a_gate_that_fails_later_is_refused_and_said(lake: Lake) -> None:
    passes(lake)
    config = file(w=f"mode: canary, {STUDENT}")
    publish(lake, config)
    gate = documents.verdicts(lake, "w")[0]
    later = msgspec.structs.replace(gate, id="f" + gate.id[1:], verdict="FAIL")
    documents.write_verdict(lake, later)
    with pytest.raises(ConfigError, match="gate has not passed"):
        publish(lake, config)


def test_a_damaged_policy_in_force_is_replaced(lake: Lake) -> None:
    publish(lake, file(w=STUDENT))
    lake.path("control/policy/0000000001.json").write_text("{")
    assert publish(lake, file(w=STUDENT)).version == 2
