"""An upgraded connection (WebSocket): bytes both ways until one side ends, unread and unlogged.

The teacher's address only; the upgrade's head is the client's with the hop-by-hop rules of a relay,
but with its upgrade. What the realtime protocol says is not recorded, only that there was a tunnel.
"""

import asyncio
import logging

from proxy.message import Request, request_head
from proxy.pool import HttpUpstream
from proxy.refusal import Refusal, upstream_refusal
from proxy.site import Site

log = logging.getLogger(__name__)
_NO_TUNNEL = Refusal(
    501, "this teacher has no WebSocket API", "invalid_request_error", "no_upgrade"
)


class Tunnel:
    """Client and teacher, tied together."""

    def __init__(
        self, site: Site, client: asyncio.Transport, request: Request, rest: bytes
    ) -> None:
        self._site, self._client, self._request = site, client, request
        self._waiting = [rest] if rest else []
        self._upstream: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def open(self) -> None:
        """Connect and send the upgrade."""
        teacher = self._site.current.teacher
        if not isinstance(teacher, HttpUpstream):
            self._refuse(_NO_TUNNEL)
            return
        self._task = teacher.pool.loop.create_task(self._connect(teacher))

    async def _connect(self, teacher: HttpUpstream) -> None:
        try:
            transport = await teacher.pool.dial(teacher.origin, lambda: _Far(self))
        except (OSError, EOFError) as error:
            self._refuse(upstream_refusal("connect", f"{teacher.name}: {error}"))
            return
        if self._closed:
            transport.abort()
            return
        self._upstream = transport
        self._site.metrics.tunnels += 1
        transport.write(self._head(teacher))
        for data in self._waiting:
            transport.write(data)
        self._waiting = []

    def _head(self, teacher: HttpUpstream) -> bytes:
        head = request_head(
            self._request,
            teacher.target(self._request.target),
            teacher.host,
            length=None,
            key=teacher.key,
        )
        upgrade = (self._request.header(b"upgrade") or "websocket").encode("latin-1")
        return head[:-2] + b"connection: Upgrade\r\nupgrade: %b\r\n\r\n" % upgrade

    def from_client(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._upstream is not None:
            self._upstream.write(data)
        elif not self._closed:
            self._waiting.append(data)

    def from_upstream(self, data: bytes) -> None:
        """Bytes of the teacher."""
        if not self._client.is_closing():
            self._client.write(data)

    def pause_upstream(self, paused: bool) -> None:
        """The client takes no more (or again more)."""
        _regulate(self._upstream, paused)

    def pause_client(self, paused: bool) -> None:
        """The teacher takes no more (or again more)."""
        _regulate(self._client, paused)

    def client_left(self) -> None:
        """The client's side ended."""
        self._closed = True
        if self._upstream is not None:
            self._upstream.close()

    def upstream_left(self) -> None:
        """The teacher's side ended."""
        self._closed, self._upstream = True, None
        self._client.close()

    def _refuse(self, refusal: Refusal) -> None:
        body = refusal.body()
        self._site.metrics.refused(refusal.status, refusal.code)
        head = b"HTTP/1.1 %d \r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n"
        self._client.write(head % (refusal.status, refusal.header_block(), len(body)) + body)
        self._client.close()


class _Far(asyncio.Protocol):
    """The teacher's end."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def data_received(self, data: bytes) -> None:
        self._tunnel.from_upstream(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._tunnel.upstream_left()

    def pause_writing(self) -> None:
        self._tunnel.pause_client(True)

    def resume_writing(self) -> None:
        self._tunnel.pause_client(False)


def _regulate(transport: asyncio.Transport | None, paused: bool) -> None:
    if transport is None or transport.is_closing():
        return
    if paused:
        transport.pause_reading()
    else:
        transport.resume_reading()
