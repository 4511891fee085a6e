"""Random walks of monitor, operator, file and controller over a real lake against the promises."""

import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.deploy.rollout_stage import STEPS, RolloutStage
from understudy.errors import GateError
from understudy.policy import WorkloadPolicy


def exposure(policy: WorkloadPolicy) -> float:
    """The share of the traffic that the student may serve, in percent."""
    return {"canary": policy.weight, "hybrid": 100.0, "student": 100.0}.get(policy.mode, 0.0)


def whole(walk: "Walk") -> bool:
    """Whether the file can be read: operators and new processes need it."""
    return walk.stage.path.read_text() != "teacher: ["


class Walk(RuleBasedStateMachine):
    """Each rule is something that happens; the invariants look at the policy in force."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.stage = RolloutStage(Path(self._folder.name))
        for student in ("s1", "s2"):
            self.stage.register(student)
        self.stage.tick()
        self.by_hand = False
        self.monitor_beat = -1e9
        self.before = 0.0
        self.fresh_pass: set[str] = set()  # students with a PASS since their step began
        self.failed: set[str] = set()

    def teardown(self) -> None:
        self._folder.cleanup()

    @property
    def student(self) -> str:
        events = self.stage.events
        return events[-1].student if events else "s1"

    @rule(
        word=st.sampled_from(["PASS", "FAIL", "UNDERPOWERED"]),
        pairs=st.integers(0, 60),
        student=st.sampled_from(["s1", "s2"]),
        kind=st.sampled_from(["monitor", "guardrail"]),
    )
    def verdict(self, word: Any, pairs: int, student: str, kind: Any) -> None:
        self.stage.pairs += pairs
        self.stage.say(word, student, kind)
        if word == "PASS" and kind == "monitor":
            self.fresh_pass.add(student)
        if word == "FAIL":
            self.failed.add(student)

    @rule()
    def good_monitor(self) -> None:
        self.monitor_lives()
        self.verdict("PASS", 30, self.student, "monitor")
        self.look(1.0)

    @rule()
    def monitor_lives(self) -> None:
        self.stage.beat()
        self.monitor_beat = self.stage.now

    @rule(seconds=st.sampled_from([1.0, 14.0, 20.0]))
    def look(self, seconds: float) -> None:
        before = self.stage.events
        written = self.stage.tick(seconds)
        after = self.stage.events
        assert len(after) - len(before) == len(written) <= 1, "one transition a look at most"
        grown = exposure(self.stage.policy) > self.before
        if written and written[0].action in ("promote", "done"):
            event = written[0]
            assert event.student in self.fresh_pass, "promoted without a PASS of this step"
            assert event.student not in self.failed, "promoted in spite of a FAIL"
            assert self.stage.now - self.monitor_beat <= 15, "promoted under a dead monitor"
            assert before[-1].state == "running"
            assert event.step - before[-1].step == (event.action == "promote")
            self.forget()
        elif grown:
            assert self.by_hand, "traffic moved to the student without a transition"
        if before and before[-1].state in ("running", "paused", "done"):
            fell = before[-1].student in self.failed
            assert (after[-1].state == "rolled_back") == fell, "every FAIL rolls back, nothing else"
        self.settle()

    @precondition(whole)
    @rule(action=st.sampled_from(["pause", "resume", "promote", "abort", "rollback"]))
    def steer(self, action: Any) -> None:
        before = self.stage.events
        try:
            event = self.stage.operate(action)
        except GateError:
            assert self.stage.events == before
            return
        if event.action in ("promote", "done"):
            self.forget()
        self.by_hand = True
        self.look(0.1)

    @precondition(whole)
    @rule(student=st.sampled_from(["s1", "s2"]), force=st.booleans())
    def start(self, student: str, force: bool) -> None:
        before = self.stage.events
        spent = any(e.state == "rolled_back" and e.student == student for e in before)
        busy = bool(before) and before[-1].state in ("running", "paused")
        try:
            self.stage.start(student, force)
        except GateError:
            assert busy or (spent and not force)
            return
        assert not busy
        assert not spent or (force and self.stage.events[-1].forced)
        self.forget()
        self.by_hand = True
        self.look(0.1)

    @rule(weights=st.lists(st.integers(1, 100), min_size=1, max_size=3).map(sorted))
    def edit_steps(self, weights: list[int]) -> None:
        steps = [{"shadow": 1.0}, *({"setWeight": weight} for weight in weights)]
        self.stage.workload["rollout"] = {"steps": steps}
        self.stage.write()

    @rule()
    def break_the_file(self) -> None:
        self.stage.path.write_text("teacher: [")

    @rule()
    def mend_the_file(self) -> None:
        self.stage.workload["rollout"] = {"steps": STEPS}
        self.stage.write()

    @precondition(whole)
    @rule()
    def restart(self) -> None:
        in_force = self.stage.policy
        self.stage.restart()
        self.look(0.1)
        if self.student not in self.failed:
            assert (self.stage.policy.mode, self.stage.policy.weight) == (
                in_force.mode,
                in_force.weight,
            )

    @invariant()
    def a_student_that_fell_serves_nobody(self) -> None:
        events = self.stage.events
        if events and events[-1].state == "rolled_back":
            self.stage.tick(0.0)
            assert self.stage.policy.mode == "teacher"

    @invariant()
    def events_are_numbered_without_holes(self) -> None:
        events = self.stage.events
        assert [event.n for event in events] == list(range(1, len(events) + 1))

    def forget(self) -> None:
        """A new step: earlier verdicts count no more."""
        self.fresh_pass, self.failed = set(), set()

    def settle(self) -> None:
        self.by_hand = False
        self.before = exposure(self.stage.policy)


TestWalk = pytest.mark.timeout(240)(Walk.TestCase)
TestWalk.settings = hypothesis.settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
