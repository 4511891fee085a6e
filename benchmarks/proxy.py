"""CPU microseconds per relayed request, side by side on one machine.

    python -m benchmarks.proxy [--requests N] [--connections N] [--json FILE]

Rows: the upstream asked directly, nginx (where installed), a bare ASGI + aiohttp relay without any
log (where aiohttp is installed), and Understudy with both bodies in the spool. The figure is the
relaying process's own CPU time (user + system) per request: stable where requests per second is
not. Run it on a quiet machine; `load` in the JSON says how quiet it was.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 450},
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 150, "completion_tokens": 90, "total_tokens": 240},
    }
).encode()  # fmt: skip
QUESTION = json.dumps(
    {
        "model": "gpt-4o", "temperature": 0,
        "messages": [{"role": "system", "content": "s" * 200},
                     {"role": "user", "content": "u" * 380}],
    }
).encode()  # fmt: skip
# The headers that the openai client sends.
HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip, deflate\r\n"
    "Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
    "User-Agent: OpenAI/Python 2.54.0\r\nX-Stainless-Lang: python\r\nX-Stainless-OS: Linux\r\n"
    "X-Stainless-Package-Version: 2.54.0\r\nX-Stainless-Arch: x64\r\n"
    "X-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.11.7\r\n"
    "Authorization: Bearer sk-benchmark\r\nX-Stainless-Async: false\r\n"
    "x-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n"
)
REQUEST = (HEAD + f"Content-Length: {len(QUESTION)}\r\n\r\n").encode() + QUESTION


class Row(NamedTuple):
    """One relay's figures."""

    name: str
    cpu_us: float
    requests_per_s: float
    p50_ms: float


class Upstream(asyncio.Protocol):
    """Answers every request at once with the same bytes; one request per read is enough here."""

    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(ANSWER)
    ) + ANSWER

    def connection_made(self, transport: Any) -> None:
        self.transport, self.left = transport, 0

    def data_received(self, data: bytes) -> None:
        if not self.left:
            head, _, data = data.partition(b"\r\n\r\n")
            at = head.lower().index(b"content-length:") + 15
            self.left = int(head[at:].partition(b"\r\n")[0])
        self.left -= len(data)
        if self.left <= 0:
            self.left = 0
            self.transport.write(self.answer)


class Load(asyncio.Protocol):
    """One connection that asks `left` times, each as soon as the last answer is there."""

    def __init__(self, left: int, latencies: list[float]) -> None:
        self.left, self.latencies = left, latencies
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.buffer.endswith(ANSWER[-64:]) and not self.buffer.endswith(b"\r\n0\r\n\r\n"):
            return
        assert self.buffer.startswith(b"HTTP/1.1 200"), self.buffer[:300]
        self.latencies.append(time.perf_counter() - self.asked)
        self.buffer, self.left = b"", self.left - 1
        if self.left:
            self.ask()
        else:
            self.done.set_result(None)
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"closed early: {self.buffer[:200]!r}"))


async def load(port: int, connections: int, requests: int) -> list[float]:
    """Ask `requests` times over `connections`; seconds per answer."""
    loop, latencies = asyncio.get_running_loop(), []
    each = max(1, requests // connections)
    made = [
        (await loop.create_connection(lambda: Load(each, latencies), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(one.done for one in made))
    return latencies


def measure(name: str, port: int, pid: int, connections: int, requests: int) -> Row:
    """Warm up, then measure one relay."""
    uvloop.run(load(port, connections, requests // 10))
    cpu, began = cpu_s(pid), time.perf_counter()
    latencies = sorted(uvloop.run(load(port, connections, requests)))
    took, count = time.perf_counter() - began, len(latencies)
    used = (cpu_s(pid) - cpu) / count * 1e6
    return Row(name, round(used, 1), round(count / took), round(latencies[count // 2] * 1e3, 3))


def cpu_s(pid: int) -> float:
    """User and system seconds of a process and its children that are processes of nginx."""
    total = 0.0
    for one in [pid, *children(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> list[int]:
    """Child processes (nginx's workers)."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def process(port: int, *arguments: str, **options: Any) -> Iterator[int]:
    """Start a server and wait until its port accepts; gives its pid."""
    running = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    try:
        until = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert running.poll() is None, f"{arguments[0]} ended with {running.returncode}"
            assert time.monotonic() < until, f"{arguments[0]} does not listen"
            time.sleep(0.05)
        yield running.pid
    finally:
        running.terminate()
        running.wait(40)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rows(folder: Path, connections: int, requests: int) -> Iterator[Row]:
    """Measure whatever is installed."""
    upstream = free_port()
    role = (sys.executable, "-m", "benchmarks.proxy", "--role")
    with process(upstream, *role, "upstream", str(upstream)) as pid:
        yield measure("direct", upstream, pid, connections, requests)
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        port = free_port()
        if nginx:
            (folder / "nginx.conf").write_text(nginx_conf(folder, port, upstream))
            with process(port, nginx, "-c", str(folder / "nginx.conf")) as pid:
                yield measure("nginx, no log", port, pid, connections, requests)
        if importlib.util.find_spec("aiohttp"):
            port = free_port()
            with process(port, *role, "asgi", str(port), str(upstream)) as pid:
                yield measure("ASGI + aiohttp, no log", port, pid, connections, requests)
        port = free_port()
        (folder / "understudy.yaml").write_text(
            f"teacher: {{base_url: 'http://127.0.0.1:{upstream}/v1'}}\nlisten: {{port: {port}}}\n"
        )
        config = str(folder / "understudy.yaml")
        command = (sys.executable, "-m", "understudy", "proxy", "--config", config)
        with process(port, *command) as pid:
            yield measure("Understudy, both bodies logged", port, pid, connections, requests)


def nginx_conf(folder: Path, port: int, upstream: int) -> str:
    """nginx as a plain reverse proxy with keep-alive on both sides."""
    temporary = "".join(
        f"{kind}_temp_path {folder / kind}; "
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; {temporary} keepalive_requests 100000000;\n"
        f" upstream u {{ server 127.0.0.1:{upstream}; keepalive 256;"
        " keepalive_requests 100000000; }\n"
        f" server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u;"
        ' proxy_http_version 1.1; proxy_set_header Connection ""; } } }\n'
    )


def serve_upstream(port: int) -> None:
    """The upstream's process."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Upstream, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(run())


def serve_asgi(port: int, upstream: int) -> None:
    """A bare ASGI relay on uvicorn with aiohttp as its client, tuned, logging nothing."""
    import aiohttp
    import uvicorn

    session: aiohttp.ClientSession | None = None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal session
        if session is None:
            session = aiohttp.ClientSession(
                auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
            )
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        skip = (b"host", b"connection", b"content-length")
        headers = [(n.decode(), v.decode()) for n, v in scope["headers"] if n not in skip]
        url = f"http://127.0.0.1:{upstream}{scope['path']}"
        async with session.post(url, data=body, headers=headers) as answer:
            data = await answer.read()
            out = [(n.lower(), v) for n, v in answer.raw_headers]
            await send({"type": "http.response.start", "status": answer.status, "headers": out})
            await send({"type": "http.response.body", "body": data})

    uvicorn.run(
        app, port=port, http="httptools", loop="uvloop", lifespan="off", access_log=False,
        log_level="critical", server_header=False, date_header=False,
    )  # fmt: skip


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        role, *ports = given.role
        (serve_upstream if role == "upstream" else serve_asgi)(*map(int, ports))
        return
    print(f"{'relay':<34}{'CPU us/request':>16}{'requests/s':>12}{'p50 ms':>9}")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder), given.connections, given.requests):
            found.append(row)
            print(f"{row.name:<34}{row.cpu_us:>16}{row.requests_per_s:>12}{row.p50_ms:>9}")
    if given.json:
        document = {
            "requests": given.requests, "connections": given.connections,
            "request_bytes": len(QUESTION), "answer_bytes": len(ANSWER),
            "load": os.getloadavg(), "rows": [row._asdict() for row in found],
        }  # fmt: skip
        given.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
