"""`understudy up` with the real commands: whatever is killed comes back, and nothing is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.deploy.command import Command
from understudy import documents
from understudy.ids import uuid7
from understudy.lake import Lake
from understudy.views import connect

_CONFIG = """\
teacher: {{base_url: {teacher}/v1}}
listen: {{port: {port}, drain_s: 5}}
collector: {{flush_s: 0.5}}
"""
_WORKLOADS = "workloads: {all: {}}\n"


class Up(NamedTuple):
    """A running `understudy up`; `said` grows with the lines on its stderr."""

    process: subprocess.Popen[str]
    processes: dict[str, dict[str, Any]]
    lake: Lake
    said: list[str]

    @property
    def url(self) -> str:
        """The proxy's address."""
        return str(self.processes["proxy"]["address"])

    def pid(self, name: str) -> int:
        """As it was first started."""
        return int(self.processes[name]["pid"])


@contextmanager
def running(folder: Path, more: str = "", workloads: str = _WORKLOADS) -> Iterator[Up]:
    """`understudy up` with a stand-in teacher, and the rest of the file's text."""
    with Command("teacher", "--port", 0, log=folder / "teacher.log") as teacher:
        file = folder / "understudy.yaml"
        file.write_text(
            _CONFIG.format(teacher=teacher.started().url, port=_free_port()) + more + workloads
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "understudy", "up", "--config", file, "--json",
             "--console-port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        said: list[str] = []
        reader = threading.Thread(target=_collect, args=(process, said))
        reader.start()
        try:
            line = process.stdout.readline()
            assert line, said
            yield Up(process, json.loads(line)["processes"], Lake(folder / "lake"), said)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(90)
            reader.join()
            process.stdout.close()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with running(tmp_path) as found:
        yield found


def test_whatever_is_killed_comes_back_and_every_answer_is_in_the_lake(up: Up) -> None:
    sent = {ask(up) for _ in range(20)}
    for name in ("collect", "monitor", "controller", "console", "proxy"):
        os.kill(up.pid(name), signal.SIGKILL)
        sent |= {ask(up) for _ in range(10)}
        until(lambda name=name: any(f"{name} was killed by SIGKILL" in x for x in up.said))
    sent |= {ask(up) for _ in range(20)}
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(90) == 0, up.said
    assert len(sent) == 90
    assert sent <= served(up.lake)


def test_it_stops_the_proxy_first_and_says_nothing_alarming(up: Up) -> None:
    ask(up)
    until(lambda: documents.heartbeat(up.lake, "controller"))
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(90) == 0
    alarming = ("Traceback", "ERROR", "again in", "did not stop")
    assert [line for line in up.said if any(word in line for word in alarming)] == []
    assert all(not Path(f"/proc/{one['pid']}").exists() for one in up.processes.values())


def test_killing_the_supervisor_leaves_no_process_and_no_record_behind(up: Up) -> None:
    sent = {ask(up) for _ in range(5)}
    up.process.kill()
    up.process.wait()
    until(lambda: all(_gone(one["pid"]) for one in up.processes.values()))
    again = subprocess.run(
        [sys.executable, "-m", "understudy", "collect", "--once", "--config",
         up.lake.root.parent / "understudy.yaml"],
        check=False, capture_output=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert sent == served(up.lake)


def test_with_kafka_the_shipper_runs_too_and_the_same_rows_arrive(
    tmp_path: Path, kafka_bootstrap: str
) -> None:
    kafka = f"kafka: {{bootstrap_servers: '{kafka_bootstrap}', topic: t-{uuid7()}}}\n"
    with running(tmp_path, kafka) as up:
        assert set(up.processes) == {
            "proxy", "ship", "collect", "monitor", "controller", "console",
        }  # fmt: skip
        sent = {ask(up) for _ in range(10)}
        os.kill(up.pid("ship"), signal.SIGKILL)
        os.kill(up.pid("collect"), signal.SIGKILL)
        sent |= {ask(up) for _ in range(10)}
        until(lambda: sent <= served(up.lake))
    assert len(sent) == 20


def test_a_bad_file_or_name_is_refused_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "understudy.yaml"
    file.write_text("teacher: {base_url: 'http://127.0.0.1:1/v1'}\nworklaods: {}\n")
    assert refused(file) == f"error: {file}:2: unknown key 'worklaods'; did you mean 'workloads'?\n"
    file.write_text("teacher: {base_url: 'http://127.0.0.1:1/v1'}\n")
    assert "no such process (here: proxy, collect," in refused(file, "--without", "proxi")


def test_a_proxy_that_cannot_start_ends_it_all_with_its_own_words(tmp_path: Path) -> None:
    file = tmp_path / "understudy.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(_CONFIG.format(teacher="http://127.0.0.1:1", port=port))
        words = ["--without", "monitor", "--without", "console", "--without", "collect"]
        said = refused(file, *words)
    assert "proxy ended with status 1 5 times" in said
    assert f"Its last line: error: cannot listen on 127.0.0.1:{port}" in said


def refused(file: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "up", "--config", file, *words],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr


def ask(up: Up) -> str:
    """One answered request; again while the proxy is being restarted. Its exchange id."""
    body = {"model": "m", "messages": [{"role": "user", "content": "My lamp is broken."}]}
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = httpx.post(f"{up.url}/v1/chat/completions", json=body, timeout=30)
        except httpx.TransportError:
            assert time.monotonic() < deadline, up.said
            time.sleep(0.1)
            continue
        assert answer.status_code == 200, answer.text
        return answer.headers["x-understudy-exchange-id"]


def served(lake: Lake) -> set[str]:
    """The exchanges of the lake whose answer a client got; none may stand twice."""
    rows = connect(lake).sql("select exchange_id from exchanges where served").fetchall()
    found = {row[0] for row in rows}
    assert len(rows) == len(found), "a row stands twice"
    return found


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _collect(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stderr is not None
    with process.stderr as lines:
        said.extend(lines)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
