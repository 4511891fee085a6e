"""An upstream that can send any bytes: a raw asyncio server in a thread, driven by a function.

The function gets each request whole (or, with `lazy`, as soon as its head is there) and writes what
it likes. Nothing checks that it is HTTP.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Self

CHAT = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-2024",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"hello"},'
    b'"finish_reason":"stop","logprobs":null}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4},"x_odd":{"kept":true}}'
)


def chunk_event(text: str) -> bytes:
    """One event of a chat stream."""
    return (
        b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-2024",'
        b'"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
    ) % text.encode()


DONE = b"data: [DONE]\n\n"
STREAM = b"".join(chunk_event(word) for word in ("Hel", "lo", " you")) + DONE
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def sized(body: bytes, status: str = "200 OK", extra: bytes = b"") -> bytes:
    """An answer with a length."""
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
    return head % (status.encode(), extra, len(body)) + body


def chunked(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Received(NamedTuple):
    """A request as it arrived."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    connection: int

    def header(self, name: str) -> bytes | None:
        return next((v for n, v in self.headers if n.lower() == name.lower().encode()), None)


class Line:
    """The origin's end of a connection, for the function that answers."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: "Origin"
    ) -> None:
        self.reader, self.writer, self.origin = reader, writer, origin

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Write pieces, each flushed by itself."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if pause_s:
                await asyncio.sleep(pause_s)

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


Answer = Callable[[Received, Line], Awaitable[None]]


async def answer_chat(request: Received, line: Line) -> None:
    """What a well-behaved upstream does."""
    if b'"stream":true' in request.body.replace(b" ", b""):
        await line.send(
            SSE_HEAD + b"".join(chunked(e + b"\n\n") for e in STREAM.split(b"\n\n")[:-1])
        )
        await line.send(b"0\r\n\r\n")
    else:
        await line.send(sized(CHAT))


class Origin:
    """The server; `requests` are those that came whole."""

    def __init__(self, answer: Answer = answer_chat, *, lazy: bool = False) -> None:
        self.answer, self.lazy = answer, lazy
        self.requests: list[Received] = []
        self.connections = 0
        self.closed = 0
        self.lost = threading.Event()  # a connection ended while it was being answered
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        sock = socket.create_server(("127.0.0.1", 0))
        # The kernel's own buffers grow to 32 MB otherwise, and back-pressure could not be seen.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        server = await asyncio.start_server(self._accept, sock=sock, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopping.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        line = Line(reader, writer, self)
        number = self.connections
        try:
            while not writer.is_closing():
                request = await self._read(reader, number)
                self.requests.append(request)
                await self.answer(request, line)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost.set()
        except asyncio.CancelledError:
            pass
        finally:
            self.closed += 1
            self._tasks.discard(task)
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, number: int) -> Received:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *rest = head[:-4].split(b"\r\n")
        headers = [(n, v.strip()) for n, _, v in (one.partition(b":") for one in rest)]
        request = Received(line, headers, b"", number)
        return request if self.lazy else request._replace(body=await read_body(request, reader))


async def read_body(request: Received, reader: asyncio.StreamReader) -> bytes:
    """The body by its framing."""
    length = request.header("content-length")
    if length is not None:
        return await reader.readexactly(int(length))
    if request.header("transfer-encoding") != b"chunked":
        return b""
    body = b""
    while True:
        size = int(await reader.readline(), 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if size == 0:
            return body
