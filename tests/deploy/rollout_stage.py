"""A lake with one workload, a monitor that says what a test wants, controllers on a fake clock."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from deploy.rollout import operator
from deploy.rollout.controller import Controller
from understudy import documents, state
from understudy.config_file import ConfigFile
from understudy.documents import Heartbeat, RolloutEvent, Verdict
from understudy.lake import Lake
from understudy.policy import PolicyStore, WorkloadPolicy

STEPS: list[dict[str, Any]] = [
    {"shadow": 0.5},
    {"setWeight": 1},
    {"setWeight": 25, "min_pairs": 20},
    {"student": True},
]


class RolloutStage:
    """`now` is the clock of all controllers; `policy` is what the proxies would obey."""

    def __init__(self, folder: Path, **workload: Any) -> None:
        self.path, self.now, self.pairs = folder / "understudy.yaml", 1000.0, 0
        self.workload: dict[str, Any] = {
            "student": {"base_url": "http://127.0.0.1:1/v1"},
            "rollout": {"steps": STEPS},
            **workload,
        }
        self.write()
        self.lake = Lake(folder / "lake")
        self.restart()

    def write(self) -> None:
        """Write the file anew from `workload`."""
        self.path.write_text(
            yaml.safe_dump(
                {
                    "teacher": {"base_url": "http://127.0.0.1:1/v1"},
                    "workloads": {"triage": self.workload},
                }
            )
        )

    def restart(self) -> None:
        """A new controller process, as far as memory goes."""
        self.controller = Controller(ConfigFile(self.path), lambda: self.now)

    def register(self, student: str, gate: Literal["PASS", "FAIL"] | None = "PASS") -> None:
        """Make the student known, with a gate verdict."""
        known = documents.aliases(self.lake, "triage")
        students = {**known.students, student: f"students/triage/{student}"}
        aliases = msgspec.structs.replace(known, students=students)
        documents.write_aliases(self.lake, "triage", aliases)
        if gate:
            self.say(gate, student, kind="gate", signal="agreement")

    def start(self, student: str, force: bool = False) -> RolloutEvent:
        """As `understudy rollout start` does it."""
        return self.operate("start", student=student, force=force)

    def operate(self, action: operator.Action, **rest: Any) -> RolloutEvent:
        """An operator's action; the event's time is taken from the fake clock."""
        config = ConfigFile(self.path).config
        request = operator.Request(action, "triage", **rest)
        return operator.act(config, self.lake, request, lambda: self.now)

    def say(
        self,
        word: Literal["PASS", "FAIL", "UNDERPOWERED"],
        student: str,
        kind: Literal["gate", "monitor", "guardrail"] = "monitor",
        signal: str = "agreement",
    ) -> Verdict:
        """A verdict a tenth of a second later, with the pairs counted so far."""
        self.now += 0.1
        verdict = Verdict(
            workload="triage",
            student=student,
            kind=kind,
            signal=signal,
            verdict=word,
            evidence={"pairs": self.pairs},
            at=self.now,
        )
        documents.write_verdict(self.lake, verdict)
        return verdict

    def beat(self) -> None:
        """The monitor's sign of life."""
        document = Heartbeat(name="monitor", at=self.now)
        self.lake.put("control/heartbeats/monitor.json", msgspec.json.encode(document))

    def tick(self, seconds: float = 1.0) -> list[RolloutEvent]:
        """The controller's next look."""
        self.now += seconds
        return self.controller.tick()

    def promote(self, student: str) -> list[RolloutEvent]:
        """A living monitor, 50 further pairs, a PASS and a look."""
        self.pairs += 50
        self.say("PASS", student)
        self.beat()
        return self.tick()

    @property
    def events(self) -> list[RolloutEvent]:
        """What is in the lake, read anew."""
        return documents.rollout_events(Lake(self.lake.root), "triage")

    @property
    def policy(self) -> WorkloadPolicy:
        """The policy in force for the workload."""
        found = PolicyStore(self.lake).latest()
        assert found is not None
        return found.workloads["triage"]

    def refresh(self) -> None:
        """What a proxy does when the file changed."""
        file = ConfigFile(self.path)
        state.refresh(file.config, file.hash, self.lake, "proxy", "file changed")
