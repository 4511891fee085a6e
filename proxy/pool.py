"""Connections to HTTP/1.1 origins: reused last-in first-out, dropped as soon as they are in doubt.

A reused connection that dies before the answer's first byte gets one retry on a fresh one, if the
whole body is at hand (RFC 9112, 9.3.1): that is keep-alive's own race and no error of the upstream.
No cap on connections: who may be called how often is decided elsewhere.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from proxy.connection import Connection
from proxy.deadline import Deadlines
from proxy.environment import http_proxy_for
from proxy.message import request_head
from proxy.upstream import Failure, Listener, Outgoing

log = logging.getLogger(__name__)
CONNECT_TIMEOUT_S = 5.0
IDLE_S = 30.0  # below most servers' keep-alive; a race is retried anyway


class Origin(NamedTuple):
    """Where to connect: connections are shared between calls of one origin."""

    host: str
    port: int
    tls: bool


class Pool:
    """Idle and connecting connections of all origins; one per purpose (primary, shadow)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines) -> None:
        self.loop, self.deadlines = loop, deadlines
        self.opened = self.reused = self.retried = 0
        self._idle: dict[Origin, list[Connection]] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._tls: ssl.SSLContext | None = None

    def take(self, origin: Origin) -> Connection | None:
        """An idle connection that still seems alive."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                self.reused += 1
                return connection
        return None

    def give(self, connection: Connection) -> None:
        """Keep a connection for the next call of its origin."""
        connection.deadline = self.deadlines.time() + IDLE_S
        self.deadlines.add(connection)
        self._idle.setdefault(connection.origin, []).append(connection)

    def forget(self, connection: Connection) -> None:
        """The connection is lost."""
        self.deadlines.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)

    def connect(
        self, origin: Origin, done: Callable[[Connection | Failure], None]
    ) -> asyncio.Task[None]:
        """Open a connection; `done` hears of it unless the task is cancelled."""
        task = self.loop.create_task(self._connect(origin, done))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    async def _connect(self, origin: Origin, done: Callable[[Connection | Failure], None]) -> None:
        connection = Connection(self, origin)
        try:
            await self.dial(origin, lambda: connection)
        except TimeoutError:
            done(Failure("timeout", f"no connection within {CONNECT_TIMEOUT_S:.0f} s"))
        except (OSError, EOFError) as error:
            done(Failure("connect", str(error) or type(error).__name__))
        else:
            self.opened += 1
            done(connection)

    async def dial(
        self, origin: Origin, protocol: Callable[[], asyncio.Protocol]
    ) -> asyncio.Transport:
        """A transport to the origin, through the environment's proxy if it wants one."""
        tls = self._context() if origin.tls else None
        proxy = http_proxy_for(origin.host, origin.port, origin.tls)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if proxy is not None:
                transport = await proxy.open(self.loop, origin.host, origin.port, tls)
                end = protocol()
                transport.set_protocol(end)
                end.connection_made(transport)
                return transport
            name = origin.host if tls else None
            transport, _ = await self.loop.create_connection(
                protocol, origin.host, origin.port, ssl=tls, server_hostname=name
            )
            return transport

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def idle_count(self) -> int:
        """Idle connections, for the metrics."""
        return sum(len(idle) for idle in self._idle.values())

    def close(self) -> None:
        """Drop everything."""
        for task in list(self._connecting):
            task.cancel()
        for idle in list(self._idle.values()):
            for connection in list(idle):
                connection.close()


class HttpCall:
    """One request on its way: waits for a connection, hands the events through, retries once."""

    __slots__ = ("_body", "_connection", "_head", "_listener", "_method", "_task", "_upstream",
                 "_waiting")  # fmt: skip

    def __init__(self, upstream: "HttpUpstream", outgoing: Outgoing, listener: Listener) -> None:
        self._upstream, self._listener = upstream, listener
        self._method = outgoing.request.method
        self._head, self._body = upstream.encode(outgoing), outgoing.body
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[bytes | None] = []
        # A streamed body cannot be sent twice, so it never takes the risk of a reused connection.
        reused = upstream.pool.take(upstream.origin) if self._body is not None else None
        if reused is None:
            self._connect()
        else:
            self._send(reused)

    def write(self, data: bytes) -> None:
        if self._connection is None:
            self._waiting.append(data)
            if sum(map(len, filter(None, self._waiting))) > 65536:
                self._listener.upload_paused(True)
        else:
            self._connection.write_body(data)

    def write_end(self) -> None:
        if self._connection is None:
            self._waiting.append(None)
        else:
            self._connection.write_body(None)

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._connection is not None:
            self._connection.drop()
            self._connection = None

    def retry(self) -> bool:
        """The reused connection died before its first byte: once more on a fresh one."""
        self._connection = None
        self._upstream.pool.retried += 1
        self._connect()
        return True

    def _connect(self) -> None:
        self._task = self._upstream.pool.connect(self._upstream.origin, self._connected)

    def _connected(self, result: Connection | Failure) -> None:
        self._task = None
        if isinstance(result, Failure):
            where = f"{self._upstream.name}: {result.message}"
            self._listener.receive([Failure(result.kind, where)])
            return
        self._send(result)
        if self._body is None:
            waiting, self._waiting = self._waiting, []
            for data in waiting:
                result.write_body(data)
            self._listener.upload_paused(result.write_paused)

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        retry = self.retry if connection.used and self._body is not None else None
        connection.start(self._method, self._head, self._body, self._listener, retry)


class HttpUpstream:
    """An OpenAI-compatible base address over HTTP/1.1."""

    def __init__(
        self, base_url: str, pool: Pool, *, key: str | None = None, credentials: bool = True
    ) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname, base_url
        tls = parts.scheme == "https"
        self.origin = Origin(parts.hostname, parts.port or (443 if tls else 80), tls)
        self.name = parts.netloc.rpartition("@")[2]
        self.model: str | None = None
        self.pool = pool
        self._base = parts.path.rstrip("/").encode()
        self.host = self.name.encode()
        self.key, self._credentials = key, credentials

    def call(self, outgoing: Outgoing, listener: Listener) -> HttpCall:
        return HttpCall(self, outgoing, listener)

    def encode(self, outgoing: Outgoing) -> bytes:
        """The head to send."""
        request = outgoing.request
        streamed = outgoing.body is None
        length = request.length if streamed else len(outgoing.body or b"")
        return request_head(
            request,
            self.target(request.target),
            self.host,
            length=length if request.has_body else None,
            chunked=streamed and request.length is None,
            key=self.key,
            credentials=self._credentials,
            decoded=outgoing.recoded,
        )

    def target(self, target: bytes) -> bytes:
        """The client's target below this base: /v1/x and known /x go under it, others stay."""
        if target.startswith(b"/v1/"):
            return self._base + target[3:]
        if target[1:].partition(b"?")[0].partition(b"/")[0] in UNPREFIXED:
            return self._base + target
        return target


UNPREFIXED = frozenset(
    b"chat completions embeddings responses models moderations files uploads batches fine_tuning "
    b"audio images vector_stores assistants threads conversations videos realtime messages evals "
    b"containers".split()
)
