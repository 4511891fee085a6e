"""`understudy proxy` as a process: its first line, its refusals, its drain, its workers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proxy.origin import CHAT, DONE, SSE_HEAD, Line, Origin, Received, chunk_event, chunked
from tests.proxy.running import Client, ask, chat, post, wait_for
from understudy.spool import FrameType, SpoolReader, decode_body, spools


def configure(folder: Path, text: str) -> Path:
    path = folder / "understudy.yaml"
    path.write_text(text)
    return path


@contextmanager
def command(path: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port."""
    arguments = [sys.executable, "-m", "understudy", "proxy", "--config", str(path), *words]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://"), process.communicate()
        yield process, int(line.rsplit(":", 1)[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def frame_types(folder: Path) -> list[FrameType]:
    found = []
    for spool in spools(folder / "spool"):
        reader = SpoolReader(spool)
        while frames := reader.read():
            found += [f.type for f in frames]
    return found


def test_sigterm_finishes_running_answers_and_closes_the_spool(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(SSE_HEAD)
        for _ in range(10):
            await line.send(chunked(chunk_event("x")), pause_s=0.1)
        await line.send(chunked(DONE) + b"0\r\n\r\n")

    with Origin(answer) as origin:
        path = configure(tmp_path, f"teacher: {{base_url: {origin.url!r}}}")
        with command(path, "--listen", "127.0.0.1:0") as (process, port):
            clients = [Client(port) for _ in range(5)]
            idle = Client(port)
            for client in clients:
                client.send(post(chat(stream=True)))
                client.head()
            process.send_signal(signal.SIGTERM)
            for client in clients:
                while not client._buffer.endswith(b"0\r\n\r\n"):
                    client._more()
                client.sock.close()
            assert idle.rest() == b""
            idle.sock.close()
            assert process.wait(20) == 0
    types = frame_types(tmp_path)
    assert types == [FrameType.REQUEST] * 5 + [FrameType.RESPONSE] * 5 + [FrameType.CLOSE]


def test_what_outlasts_the_drain_is_broken_off_and_recorded(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(SSE_HEAD)
        while True:
            await line.send(chunked(chunk_event("x")), pause_s=0.05)

    with Origin(answer) as origin:
        text = f"teacher: {{base_url: {origin.url!r}}}\nlisten: {{drain_s: 1, port: 0}}"
        with command(configure(tmp_path, text)) as (process, port):
            with Client(port) as client:
                client.send(post(chat(stream=True)))
                client.head()
                process.send_signal(signal.SIGTERM)
                assert not client.rest().endswith(b"0\r\n\r\n")
            assert process.wait(20) == 0
    assert frame_types(tmp_path) == [FrameType.REQUEST, FrameType.ABORT, FrameType.CLOSE]


def test_killed_proxy_has_every_acknowledged_record_in_its_spool(tmp_path: Path) -> None:
    with Origin() as origin:
        path = configure(tmp_path, f"teacher: {{base_url: {origin.url!r}}}")
        with command(path, "--listen", "127.0.0.1:0") as (process, port):
            with Client(port) as client:
                for i in range(50):
                    client.send(post(chat(str(i))))
                    assert client.reply().body == CHAT
            process.send_signal(signal.SIGKILL)
            process.wait(10)
    assert frame_types(tmp_path).count(FrameType.RESPONSE) == 50


def test_workers_share_the_port_and_each_writes_its_own_spool(tmp_path: Path) -> None:
    with Origin() as origin:
        text = f"teacher: {{base_url: {origin.url!r}}}\nlisten: {{port: 0, workers: 2}}"
        with command(configure(tmp_path, text)) as (process, port):
            wait_for(lambda: len(spools(tmp_path / "spool")) == 2)
            for i in range(40):
                assert ask(port, post(chat(str(i), user="one"))).body == CHAT
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    types = frame_types(tmp_path)
    assert types.count(FrameType.RESPONSE) == 40
    assert types.count(FrameType.CLOSE) == 2
    hashes = set()
    for spool in spools(tmp_path / "spool"):
        for frame in SpoolReader(spool).read():
            if frame.type is FrameType.REQUEST:
                hashes.add(json.loads(decode_body(frame.body)[0])["user_hash"])
    assert len(hashes) == 1  # the salt is shared


def test_a_worker_that_dies_is_replaced_and_the_port_stays_open(tmp_path: Path) -> None:
    with Origin() as origin:
        text = f"teacher: {{base_url: {origin.url!r}}}\nlisten: {{port: 0, workers: 2}}"
        with command(configure(tmp_path, text)) as (process, port):
            wait_for(lambda: len(spools(tmp_path / "spool")) == 2)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
            for i in range(20):  # those that meet the dead worker's socket wait for its successor
                assert ask(port, post(chat(str(i)))).body == CHAT
            wait_for(lambda: len(spools(tmp_path / "spool")) == 3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert frame_types(tmp_path).count(FrameType.RESPONSE) == 20


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("teacher: {base_url: 'http://t/v1'}", ["--listen", "0.0.0.0:0"], "--allow-open"),
        ("teacher: {base_url: 'http://t/v1'}\nlisten: {host: 0.0.0.0}", [], "--allow-open"),
        ("teacher: {base_url: 'http://t/v1'}", ["--listen", "nonsense"], "127.0.0.1:8080"),
        ("teacher: {base_url: 'http://t/v1'}\nlissen: {}", [], "did you mean 'listen'"),
        (
            "teacher: {base_url: 'http://t/v1'}\nspool: {path: /proc/nowhere}",
            ["--listen", "127.0.0.1:0"],
            "spool.path",
        ),
    ],
)
def test_unsafe_or_wrong_settings_are_one_line_and_status_1(
    tmp_path: Path, text: str, words: list[str], said: str
) -> None:
    path = configure(tmp_path, text)
    arguments = [sys.executable, "-m", "understudy", "proxy", "--config", str(path), *words]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_proxy_imports_nothing_heavy() -> None:
    code = (
        "import sys, proxy.worker, proxy.commands.proxy; "
        "print([m for m in ('torch','litellm','mlflow','duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_https_proxy_of_the_environment_is_used_by_connect(tmp_path: Path) -> None:
    async def forward(request: Received, line: Line) -> None:
        if request.line.startswith(b"CONNECT"):
            await line.send(b"HTTP/1.1 200 OK\r\n\r\n")
        else:  # inside the tunnel: we play the teacher ourselves
            from tests.proxy.origin import sized

            await line.send(sized(CHAT))

    with Origin(forward) as gateway:
        environment = {
            **os.environ, "http_proxy": f"http://u:p@127.0.0.1:{gateway.port}", "no_proxy": "",
        }  # fmt: skip
        path = configure(tmp_path, "teacher: {base_url: 'http://teacher.invalid/v1'}")
        arguments = [
            sys.executable,
            "-m",
            "understudy",
            "proxy",
            "--config",
            str(path),
            "--listen",
            "127.0.0.1:0",
        ]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            assert ask(port, post(chat())).body == CHAT
        finally:
            process.terminate()
            process.communicate(timeout=20)
    connect, inside = gateway.requests
    assert connect.line == b"CONNECT teacher.invalid:80 HTTP/1.1"
    assert connect.header("proxy-authorization") == b"Basic dTpw"
    assert inside.line == b"POST /v1/chat/completions HTTP/1.1"
