"""A rollout under real traffic: proxy, collector, monitor and controller agree on what happens.

The student is a second stand-in teacher, so it answers as the teacher does until it is replaced.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.deploy.command import Command
from tests.deploy.test_up import running, until
from understudy import documents
from understudy.documents import RolloutEvent
from understudy.lake import Lake
from understudy.triage import request, ticket

_STUDENT = """\
heartbeat_max_age_s: 10
workloads:
  triage:
    student: {{base_url: "{student}/v1", model: s1}}
    holdout: 0.5
    gate: {{margin: 0.1, required: false}}
    rollout: {{steps: [{{shadow: 1}}, {{setWeight: 50, min_pairs: 20}}, {{student: true}}]}}
"""


def test_a_good_student_takes_over_by_itself_and_is_taken_off_when_it_fails(
    tmp_path: Path,
) -> None:
    with Command("teacher", "--port", 0, log=tmp_path / "student.log") as student:
        workloads = _STUDENT.format(student=student.started().url)
        with running(tmp_path, workloads, "") as up, traffic(up.url) as arms:
            steer(tmp_path, "start", "triage", "--student", "s1")
            until(lambda: state_of(up.lake) == "done", 200)
            walked = [(event.step, event.action) for event in events(up.lake)]
            assert walked == [(0, "start"), (1, "promote"), (2, "promote"), (2, "done")]
            until(lambda: "student" in arms[-20:])
            student.stop()
            until(lambda: state_of(up.lake) == "rolled_back", 200)
            arms.clear()
            until(lambda: arms[-30:].count("teacher") == 30)
            assert documents.aliases(up.lake, "triage").champion is None
    assert {event.student for event in events(up.lake)} == {"s1"}


def steer(folder: Path, *words: str) -> None:
    with Command("rollout", *words, "--config", folder / "understudy.yaml",
                 log=folder / "rollout.log") as command:  # fmt: skip
        assert command.ended() == 0, (folder / "rollout.log").read_text()


def events(lake: Lake) -> list[RolloutEvent]:
    return documents.rollout_events(lake, "triage")


def state_of(lake: Lake) -> str | None:
    found = events(lake)
    return found[-1].state if found else None


@contextmanager
def traffic(url: str) -> Iterator[list[str]]:
    """Clients that go on asking, each for another user; the arms that answered, newest last."""
    arms: list[str] = []
    stop = threading.Event()

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=url, timeout=30) as client:
            while not stop.wait(0.02):
                body = request(ticket(rng), "m") | {"user": f"u{rng.randrange(1000)}"}
                answer = client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200, answer.text
                arms.append(answer.headers["x-understudy-arm"])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield arms
    finally:
        stop.set()
        for thread in threads:
            thread.join()
