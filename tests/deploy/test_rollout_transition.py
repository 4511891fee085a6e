"""What an operator may and may not do to a rollout, and what is recorded of it."""

import pytest

from deploy.rollout import transition
from deploy.rollout.machine import Decision
from deploy.rollout.transition import Candidate
from understudy.config import Rollout
from understudy.documents import RolloutEvent
from understudy.errors import GateError

ROLLOUT = Rollout.model_validate({"steps": [{"shadow": 0.5}, {"setWeight": 5}]})
WHO = Candidate("triage", "s1", passed=True, router=False)


def start(
    events: list[RolloutEvent], who: Candidate = WHO, force: bool = False
) -> list[RolloutEvent]:
    return [*events, transition.start(ROLLOUT, events, who, force, 100.0)]


def fallen(events: list[RolloutEvent]) -> list[RolloutEvent]:
    why = Decision("roll_back", "agreement says FAIL")
    return [*events, transition.decided(ROLLOUT, events, why, 200.0)]


def test_a_student_without_a_pass_starts_by_force_only_and_that_is_recorded() -> None:
    ungated = WHO._replace(passed=False)
    with pytest.raises(GateError, match=r"gate of s1 has not passed; .*--force"):
        start([], ungated)
    event = start([], ungated, force=True)[0]
    assert event.forced
    assert "--force" in event.reason
    assert not start([])[0].forced


def test_a_student_that_was_rolled_back_has_spent_its_try() -> None:
    events = fallen(start([]))
    with pytest.raises(GateError, match="s1 was rolled back before"):
        start(events)
    assert start(events, WHO._replace(student="s2"))[-1].student == "s2"
    assert start(events, force=True)[-1].forced
    lifted = [*events, transition.aborted(events, 300.0)]
    with pytest.raises(GateError, match="s1 was rolled back before"):
        start(lifted)


def test_a_running_rollout_is_not_started_over() -> None:
    with pytest.raises(
        GateError, match=r"s1 is running at step 1 of triage; .*rollout abort triage"
    ):
        start(start([]), WHO._replace(student="s2"), force=True)


def test_a_workload_without_steps_says_how_to_write_them() -> None:
    with pytest.raises(GateError, match=r"rollout: \{steps:"):
        transition.start(Rollout(), [], WHO, True, 1.0)


def test_a_first_step_that_is_hybrid_needs_the_router() -> None:
    hybrid = Rollout.model_validate({"steps": [{"hybrid": True}]})
    with pytest.raises(GateError, match="understudy router"):
        transition.start(hybrid, [], WHO, True, 1.0)
    assert transition.start(hybrid, [], WHO._replace(router=True), False, 1.0).mode == "hybrid"


def test_the_operators_promotion_is_recorded_as_his() -> None:
    events = start([])
    event = transition.promoted(ROLLOUT, events, 200.0)
    assert (event.action, event.step, event.weight) == ("promote", 1, 5)
    assert event.evidence == {"by": "operator"}
    assert transition.promoted(ROLLOUT, [*events, event], 300.0).state == "done"


@pytest.mark.parametrize("events", [[], fallen(start([]))])
def test_nothing_that_runs_is_nothing_to_steer(events: list[RolloutEvent]) -> None:
    with pytest.raises(GateError, match="nothing to promote"):
        transition.promoted(ROLLOUT, events, 1.0)
    with pytest.raises(GateError, match="nothing to pause"):
        transition.paused(events, 1.0)
    with pytest.raises(GateError, match="nothing is paused"):
        transition.resumed(events, 1.0)


def test_pausing_twice_and_aborting_nothing_are_refused() -> None:
    events = start([])
    events.append(transition.paused(events, 200.0))
    with pytest.raises(GateError, match="paused already"):
        transition.paused(events, 300.0)
    with pytest.raises(GateError, match="no rollout to abort"):
        transition.aborted([], 300.0)
    ended = [*events, transition.aborted(events, 300.0)]
    with pytest.raises(GateError, match="no rollout to abort"):
        transition.aborted(ended, 400.0)
