"""The rollout's decisions: only a PASS of this step promotes, FAIL rolls back, the rest waits."""

from typing import Any, Literal

import msgspec
import pytest

from deploy.rollout import transition
from deploy.rollout.machine import Decision, Seen, decide, pairs_of, watch
from deploy.rollout.transition import Candidate
from understudy.config import Rollout
from understudy.documents import RolloutEvent, Verdict

STEPS: list[dict[str, Any]] = [
    {"shadow": 0.5, "min_pairs": 10},
    {"setWeight": 5, "pause_s": 60},
    {"student": True},
]
ROLLOUT = Rollout.model_validate({"steps": STEPS})
WHO = Candidate("triage", "s1", passed=True, router=False, champion="s0")


def said(
    word: Literal["PASS", "FAIL", "UNDERPOWERED"],
    at: float,
    pairs: int = 0,
    kind: Literal["gate", "monitor", "guardrail"] = "monitor",
    signal: str = "agreement",
    student: str = "s1",
) -> Verdict:
    return Verdict(
        workload="triage",
        student=student,
        kind=kind,
        signal=signal,
        verdict=word,
        evidence={"pairs": pairs},
        at=at,
    )


def walked(*actions: str, rollout: Rollout = ROLLOUT) -> list[RolloutEvent]:
    """Events of a rollout that began at 100 s; each further action is 100 s later."""
    events = [transition.start(rollout, [], WHO, False, 100.0)]
    for number, action in enumerate(actions, 2):
        now = number * 100.0
        if action == "promote":
            event = transition.promoted(rollout, events, now)
        elif action == "pause":
            event = transition.paused(events, now)
        elif action == "resume":
            event = transition.resumed(events, now)
        else:
            event = transition.aborted(events, now)
        events.append(event)
    return events


def seen(*verdicts: Verdict, now: float = 1000.0, age: float | None = 1.0) -> Seen:
    return Seen(verdicts, now, age, 15.0)


def test_a_pass_on_enough_pairs_of_this_step_promotes() -> None:
    found = decide(ROLLOUT, walked(), seen(said("PASS", 150, pairs=12)))
    assert found.action == "promote"
    assert found.evidence["pairs_in_step"] == 12
    assert "12 pairs of step 1/3" in found.reason


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ([], "no verdict"),
        ([said("UNDERPOWERED", 150, 500)], "UNDERPOWERED after 500 pairs"),
        ([said("PASS", 150, 9)], "9 of 10 pairs"),
        ([said("PASS", 99, 500)], "no verdict"),
        ([said("PASS", 150, 500, student="s2")], "no verdict"),
        ([said("PASS", 150, 500, kind="gate")], "no verdict"),
        ([said("PASS", 150, 500, kind="guardrail")], "no verdict"),
        ([said("PASS", 150, 500, signal="latency")], "no verdict"),
        ([said("PASS", 150, 500), said("UNDERPOWERED", 160, 510)], "UNDERPOWERED"),
    ],
)
def test_without_a_pass_of_this_step_it_waits(verdicts: list[Verdict], reason: str) -> None:
    found = decide(ROLLOUT, walked(), seen(*verdicts))
    assert found.action == "wait"
    assert reason in found.reason


def test_pairs_of_earlier_steps_do_not_count() -> None:
    rollout = Rollout.model_validate({"steps": [*STEPS[:1], {"setWeight": 5, "min_pairs": 50}]})
    events = walked("promote", rollout=rollout)
    before = said("PASS", 150, 400)
    assert decide(rollout, events, seen(before, said("PASS", 250, 449))).action == "wait"
    assert decide(rollout, events, seen(before, said("PASS", 250, 450))).action == "done"


def test_a_count_that_fell_means_that_the_monitor_began_anew() -> None:
    assert pairs_of([said("PASS", 50, 400), said("PASS", 150, 30)], since=100) == 30


def test_a_step_lasts_at_least_its_pause() -> None:
    events = walked("promote")
    verdict = said("PASS", 205, 500)
    assert "55 of 60 s" in decide(ROLLOUT, events, seen(verdict, now=255.0)).reason
    assert decide(ROLLOUT, events, seen(verdict, now=260.0)).action == "promote"


@pytest.mark.parametrize("age", [None, 15.1])
def test_a_dead_monitor_promotes_nobody_whatever_it_said(age: float | None) -> None:
    found = decide(ROLLOUT, walked(), seen(said("PASS", 150, 500), age=age))
    assert found.action == "wait"
    assert "monitor is dead" in found.reason


@pytest.mark.parametrize("actions", [(), ("promote",), ("pause",), ("promote",) * 3])
@pytest.mark.parametrize("kind", ["monitor", "guardrail"])
@pytest.mark.parametrize("age", [None, 1.0])
def test_a_fail_rolls_back_from_every_state_even_after_the_monitor_died(
    actions: tuple[str, ...], kind: Literal["monitor", "guardrail"], age: float | None
) -> None:
    events = walked(*actions)
    verdicts = [said("PASS", 900, 500), said("FAIL", 901, kind=kind, signal="error_rate")]
    found = decide(ROLLOUT, events, seen(*verdicts, age=age))
    assert found.action == "roll_back"
    event = transition.decided(ROLLOUT, events, found, 1000.0)
    assert (event.state, event.verdict_id) == ("rolled_back", verdicts[1].id)
    assert event.previous_champion == "s0"


def test_fails_count_up_to_the_limit_and_an_earlier_step_is_forgiven() -> None:
    rollout = ROLLOUT.model_copy(update={"failure_limit": 2})
    events = walked("promote")
    old, one, two = said("FAIL", 150), said("FAIL", 210), said("FAIL", 220)
    assert decide(rollout, events, seen(old, one)).action == "wait"
    assert decide(rollout, events, seen(one, two)).action == "roll_back"


def test_under_the_limit_a_signal_that_fails_still_holds_the_step() -> None:
    rollout = ROLLOUT.model_copy(update={"failure_limit": 2})
    failing = said("FAIL", 120, kind="guardrail", signal="latency")
    found = decide(rollout, walked(), seen(failing, said("PASS", 150, 500)))
    assert (found.action, found.reason) == ("wait", "latency says FAIL")
    well = said("PASS", 160, kind="guardrail", signal="latency")
    assert (
        decide(rollout, walked(), seen(failing, said("PASS", 150, 500), well)).action == "promote"
    )


def test_the_fail_of_another_student_or_of_a_gate_rolls_nobody_back() -> None:
    others = [said("FAIL", 150, student="s2"), said("FAIL", 150, kind="gate")]
    assert decide(ROLLOUT, walked(), seen(*others)).action == "wait"


def test_paused_waits_whatever_passed_and_resuming_does_not_begin_the_step_anew() -> None:
    events = walked("pause")
    assert decide(ROLLOUT, events, seen(said("PASS", 150, 50))).action == "wait"
    assert (
        decide(ROLLOUT, walked("pause", "resume"), seen(said("PASS", 150, 50))).action == "promote"
    )


def test_the_last_step_passed_is_done_and_the_student_stays_in_its_mode() -> None:
    events = walked("promote", "promote")
    found = decide(ROLLOUT, events, seen(said("PASS", 350, 50)))
    assert found.action == "done"
    event = transition.decided(ROLLOUT, events, found, 1000.0)
    assert (event.state, event.mode, event.step) == ("done", "student", 2)


def test_a_hybrid_step_is_not_entered_without_the_students_own_router() -> None:
    rollout = Rollout.model_validate({"steps": [{"shadow": 1}, {"hybrid": True}]})
    events = walked(rollout=rollout)
    blind = seen(said("PASS", 150, 50))
    assert "no router for s1" in decide(rollout, events, blind).reason
    assert decide(rollout, events, blind._replace(router=True)).action == "promote"


def test_a_file_that_lost_the_step_waits_and_says_so() -> None:
    shorter = ROLLOUT.model_copy(update={"steps": ROLLOUT.steps[:1]})
    found = decide(shorter, walked("promote"), seen(said("PASS", 250, 50)))
    assert (found.action, "no such step" in found.reason) == ("wait", True)


@pytest.mark.parametrize("events", [[], walked("abort")])
def test_without_a_rollout_there_is_nothing_to_decide(events: list[RolloutEvent]) -> None:
    assert decide(ROLLOUT, events, seen(said("FAIL", 999), said("PASS", 999, 99))).action == "wait"


def test_a_student_that_the_file_put_on_stage_is_taken_off_by_a_newest_fail() -> None:
    fail, well = said("FAIL", 300), said("PASS", 310)
    assert watch("s1", [], [fail]).action == "roll_back"
    assert watch("s1", [], [fail, well]).action == "wait"
    assert watch("s2", [], [fail]).action == "wait"
    cleared = [msgspec.structs.replace(walked("abort")[-1], at=305.0)]
    assert watch("s1", cleared, [fail]).action == "wait"


def test_every_event_of_a_start_says_what_it_demands() -> None:
    events = walked("promote", "promote")
    assert [(e.mode, e.weight, e.shadow_sample) for e in events] == [
        ("shadow", 0.0, 0.5),
        ("canary", 5.0, None),
        ("student", 0.0, None),
    ]
    assert [event.n for event in events] == [1, 2, 3]


def test_a_decision_knows_its_evidence() -> None:
    verdict = said("PASS", 150, 77)
    found = decide(ROLLOUT, walked(), seen(verdict))
    assert found == Decision(
        "promote",
        "agreement PASS on 77 pairs of step 1/3",
        {"signal": "agreement", "verdict": "PASS", "pairs": 77, "pairs_in_step": 77},
        verdict.id,
    )
