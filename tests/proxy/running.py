"""The real proxy in a thread of its own, on a real port, with a real spool; and raw HTTP to it."""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import uvloop
import yaml

from proxy.site import Site
from proxy.worker import Server, serve
from understudy.lake import Lake
from understudy.spool import Frame, FrameType, SpoolReader, decode_body, spools


class Attempt(NamedTuple):
    """One attempt as its frames tell it."""

    request: dict[str, Any]
    request_body: bytes
    response: dict[str, Any] | None
    response_body: bytes
    end: FrameType | None


class Proxy:
    """`with Proxy(tmp_path, teacher=origin.url) as proxy`: started, and stopped in good order."""

    def __init__(self, folder: Path, *, teacher: str | dict[str, Any], **config: Any) -> None:
        self.folder = folder
        self.path = folder / "understudy.yaml"
        teacher = {"base_url": teacher} if isinstance(teacher, str) else teacher
        listen = {"drain_s": 2, **config.pop("listen", {})}
        self.config: dict[str, Any] = {"teacher": teacher, "listen": listen, **config}
        self.configure()
        self._sock = socket.create_server(("127.0.0.1", 0))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)  # as in Origin
        self._sock.setblocking(False)
        self.port = self._sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def lake(self) -> Lake:
        return Lake(self.folder / "lake")

    def configure(self, **changes: Any) -> None:
        """Write the file, with changes."""
        self.config.update(changes)
        self.path.write_text(yaml.safe_dump(self.config))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20), self._error
        wait_for(lambda: self.server.started or self._error is not None)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Drain and end."""
        self.server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        def ready(server: Server, site: Site) -> None:
            self.server, self.site = server, site
            self._ready.set()

        try:
            uvloop.run(serve(self.path, self._sock, ready))
        except BaseException as error:
            self._error = error
            self._ready.set()

    # The spool

    def frames(self) -> list[Frame]:
        """All frames so far."""
        found: list[Frame] = []
        for folder in spools(self.folder / "spool"):
            reader = SpoolReader(folder)
            while some := reader.read():
                found += some
        return found

    def spool_bytes(self) -> bytes:
        return b"".join(p.read_bytes() for p in sorted((self.folder / "spool").glob("*/*.seg")))

    def attempts(self) -> list[Attempt]:
        """The attempts in the order of their REQUEST frames."""
        found: dict[str, Attempt] = {}
        for frame in self.frames():
            if frame.type.name not in ("REQUEST", "CHUNK", "RESPONSE", "ABORT"):
                continue
            meta_bytes, payload = decode_body(frame.body)
            meta = json.loads(meta_bytes)
            name = meta["attempt_id"]
            if frame.type is FrameType.REQUEST:
                assert name not in found
                found[name] = Attempt(meta, payload, None, b"", None)
                continue
            had = found[name]
            assert had.end is None, "a frame after the attempt's end"
            found[name] = had._replace(response_body=had.response_body + payload)
            if frame.type is not FrameType.CHUNK:
                found[name] = found[name]._replace(response=meta, end=frame.type)
        return list(found.values())

    def ended(self, count: int = 1) -> list[Attempt]:
        """The attempts once `count` of them have ended."""
        wait_for(lambda: sum(a.end is not None for a in self.attempts()) >= count)
        return self.attempts()


def wait_for(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    """Poll until the condition holds; fails loudly after `within_s`."""
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, "condition did not come true"
        time.sleep(0.01)


class Reply(NamedTuple):
    """An answer as raw HTTP."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A raw client connection with a read buffer."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)  # as in Origin
        self.sock.settimeout(timeout_s)
        self.sock.connect(("127.0.0.1", port))
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self, method: str = "POST") -> Reply:
        """The next answer, by its framing."""
        return self._finish(self.head(), method)

    def head(self) -> bytes:
        """The next head, and nothing (what follows stays in the buffer)."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        return self._take(self._buffer.index(b"\r\n\r\n"), 4)

    def _finish(self, head: bytes, method: str) -> Reply:
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = [(n, v.strip()) for n, _, v in (one.partition(":") for one in rest)]
        reply = Reply(int(line.split(" ")[1]), headers, b"", head)
        if method == "HEAD" or reply.status in (204, 304) or reply.status < 200:
            return reply
        return reply._replace(body=self._body(reply))

    def _body(self, reply: Reply) -> bytes:
        length = reply.header("content-length")
        if length is not None:
            return self.exactly(int(length))
        if reply.header("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.line(), 16):
                body += self.exactly(size)
                assert self.line() == b""
            assert self.line() == b""
            return body
        return self.rest()

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        return self._take(size)

    def line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        return self._take(self._buffer.index(b"\r\n"), 2)

    def rest(self) -> bytes:
        """Everything until the other side closes; a reset ends it too."""
        with suppress(EOFError, ConnectionResetError):
            while True:
                self._more()
        return self._take(len(self._buffer))

    def _take(self, size: int, separator: int = 0) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[: size + separator]
        return data

    def _more(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise EOFError(f"closed after {self._buffer[-200:]!r}")
        self._buffer += data


def post(
    body: bytes,
    path: str = "/v1/chat/completions",
    *headers: str,
    method: str = "POST",
    version: str = "1.1",
) -> bytes:
    """A request with a length."""
    lines = [f"{method} {path} HTTP/{version}", "Host: proxy", "Content-Type: application/json"]
    lines += [*headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chat(text: str = "hi", **fields: Any) -> bytes:
    """The body of a chat request."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return json.dumps({"model": "gpt-4o", "messages": messages, **fields}).encode()


def ask(port: int, request: bytes, method: str = "POST") -> Reply:
    """One request on a connection of its own."""
    with Client(port) as client:
        client.send(request)
        return client.reply(method)
