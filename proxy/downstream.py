"""The client's connection: requests in, answers out, in order, on sockets that uvicorn owns.

Relayed requests are taken here and never reach ASGI; the control plane's are handed whole to
uvicorn's own protocol on the same transport (`control`). Requests whose body routing reads are
collected first; all others are streamed through. Reading stops while a request waits behind an
answer, or while the upstream takes no more, so memory stays bounded by the limits.
"""

import asyncio
from math import inf
from typing import Any

from uvicorn.config import Config as UvicornConfig
from uvicorn.server import ServerState

from proxy.answer import Answer
from proxy.control import ControlPlane, is_control, serialise
from proxy.intake import Intake
from proxy.message import Head, Request, status_line
from proxy.refusal import SLOW_CLIENT, Refusal, not_http
from proxy.relay import Relay
from proxy.shadow import Shadows
from proxy.site import Site
from proxy.tunnel import Tunnel
from proxy.view import is_understood

LINGER_S = 2.0
WRITE_STALL_S = 300.0  # a client that reads nothing for so long is gone
_CONTROL_BODY = 1 << 20


class Downstream(asyncio.Protocol):
    """One client connection."""

    def __init__(
        self,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        site: Site,
        shadows: Shadows,
    ) -> None:
        self._uvicorn = (config, server_state, app_state, _loop)
        self._state, self._site, self._shadows = server_state, site, shadows
        listen = site.current.config.listen
        self._client_timeout_s, self._keep_alive_s = listen.client_timeout_s, listen.keep_alive_s
        self._max_body = int(listen.max_body_mb * 1e6)
        self._in = Intake(int(listen.max_header_kb * 1e3), self._body_limit, site.heads)
        self._answer = Answer()
        self.deadline = inf
        self._transport: asyncio.Transport | None = None
        # Who answers the first request of the queue; `_busy` from its start to its last byte
        self._relay: Relay | None = None
        self._control: ControlPlane | None = None
        self._tunnel: Tunnel | None = None
        self._busy = self._advancing = False
        self._draining = self._closing = self._lingering = False
        self._read_paused = self._upload_paused = self._write_paused = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._wait(self._client_timeout_s)
        self._site.deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.from_client(data)
            return
        if self._closing:
            return  # lingering: what comes is only read away
        fresh = not self._in.partial
        self._in.feed(data)
        if self._in.incoming is not None or (fresh and self._in.partial):
            self._wait(self._client_timeout_s)  # a head has one such time, a body one per piece
        self._advance()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._state.connections.discard(self)
        self._site.deadlines.discard(self)
        self._closing = True
        if self._tunnel is not None:
            self._tunnel.client_left()
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.client_left()
        if self._control is not None:
            self._control.connection_lost(error)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._wait(WRITE_STALL_S)
        self._hold_sources(True)

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._busy:
            self.deadline = inf
        self._hold_sources(False)

    def _hold_sources(self, hold: bool) -> None:
        if self._tunnel is not None:
            self._tunnel.pause_upstream(hold)
        if self._relay is not None:
            self._relay.client_paused(hold)
        if self._control is not None:
            (self._control.pause_writing if hold else self._control.resume_writing)()

    def shutdown(self) -> None:
        """uvicorn drains: close when the answer under way is complete."""
        self._draining = True
        if not self._busy and self._tunnel is None:
            self._close()

    def on_deadline(self) -> None:
        """The client was too slow, idle for too long, or does not read."""
        if self._lingering or (self._busy and self._write_paused):
            self._abort()
        elif self._in.partial and self._upload_paused:  # it is the upstream that is slow
            self._wait(self._client_timeout_s)
        elif self._in.partial:
            self._in.refusal = self._in.refusal or SLOW_CLIENT
            self._advance()
        elif not self._busy:
            self._close()

    def _wait(self, seconds: float) -> None:
        self.deadline = self._site.deadlines.time() + seconds

    def _body_limit(self, path: str) -> int:
        return min(self._max_body, _CONTROL_BODY) if is_control(path) else self._max_body

    # The queue

    def _advance(self) -> None:
        """Start or feed whatever the first request in the queue is ready for."""
        if self._advancing or self._transport is None:
            return
        self._advancing = True
        try:
            if self._in.upgraded is not None and self._tunnel is None:
                self._open_tunnel(self._in.upgraded)
            while not self._closing and not self._busy and self._ready():
                self._start(self._in.queue[0])
            if self._busy and self._relay is not None:
                self._feed(self._relay)
            if not self._busy and self._in.refusal is not None and not self._closing:
                self.refuse(self._in.refusal)
        finally:
            self._advancing = False
        self._regulate()

    def _ready(self) -> bool:
        if not self._in.queue:
            return False
        request = self._in.queue[0]
        if request.complete:
            return True
        if self._in.refusal is not None:
            return False
        if request.waits_for_continue and not request.received:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.waits_for_continue = False
        return not is_control(request.path) and not is_understood(request)

    def _start(self, request: Request) -> None:
        self._busy = True
        if is_control(request.path):
            self._hand_over(request)
            return
        relay = Relay(self._site, self._shadows, self, request)
        self._relay = relay
        if request.complete:
            self.deadline = inf
            parts, request.parts = request.parts, []
            relay.start(parts[0] if len(parts) == 1 else b"".join(parts))
        else:
            relay.start(None)

    def _feed(self, relay: Relay) -> None:
        """Pass on what has come of a streamed body."""
        request = relay.request
        if not relay.streams:
            return
        parts, request.parts = request.parts, []
        for data in parts:
            relay.upload(data)
        if request.complete:
            self.deadline = inf
            relay.upload_end()
        elif self._in.refusal is not None:  # the request will never be whole
            self._busy, self._relay = False, None
            relay.client_left()

    def _hand_over(self, request: Request) -> None:
        if self._control is None:
            config, state, app_state, loop = self._uvicorn
            self._control = ControlPlane(config, state, app_state, loop, done=self._answered)
            assert self._transport is not None
            self._control.connection_made(self._transport)
        self.deadline = inf
        self._control.data_received(serialise(request, request.keep_alive and not self._draining))

    def _open_tunnel(self, rest: bytes) -> None:
        request = self._in.queue[0]
        if self._busy or len(self._in.queue) > 1 or is_control(request.path):
            self._in.refusal = not_http("an upgrade has to be a connection's only request")
            return
        assert self._transport is not None
        self._busy, self.deadline = True, inf
        self._tunnel = Tunnel(self._site, self._transport, request, rest)
        self._tunnel.open()

    def _answered(self) -> None:
        """An answer is complete: go on with the next request, or close."""
        request = self._in.queue.popleft() if self._in.queue else None
        closes, self._answer = self._answer.closes or self._draining, Answer()
        self._busy, self._relay = False, None
        self._state.total_requests += 1
        if request is None or not request.complete:
            self._linger()
        elif closes or not request.keep_alive:
            self._close()
        else:
            self._wait(self._client_timeout_s if self._in.partial else self._keep_alive_s)
            self._advance()

    def _regulate(self) -> None:
        """Read only while what is read can be used."""
        paused = self._upload_paused or (self._busy and len(self._in.queue) > 1)
        if self._transport is None or self._transport.is_closing() or paused == self._read_paused:
            return
        self._read_paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # What a relay may ask of its client

    def stage_head(self, head: Head, own: bytes) -> None:
        """Put the answer's head into the next write."""
        request = self._in.queue[0] if self._in.queue else None
        close = self._draining or request is None or not request.keep_alive or not request.complete
        self._answer.head(head, own, request, close)

    def stage(self, data: bytes) -> None:
        """Put a piece of the body into the next write."""
        self._answer.body(data)

    def flush(self) -> None:
        """Write what is staged."""
        self._write(self._answer.take())

    def finish(self) -> None:
        """Write what is staged and end the answer."""
        if self._transport is None:
            return
        self._answer.end()
        self.flush()
        self._answered()

    def refuse(self, answer: Refusal, own: bytes = b"") -> None:
        """Answer an error of our own; where an answer has begun already, break it off."""
        self._site.metrics.refused(answer.status, answer.code)
        if self._answer.head_sent:
            self.cut()
            return
        if self._relay is None:  # nobody took it: the connection ends with it
            self._in.queue.clear()
        body = answer.body()
        head = Head(answer.status, b"", answer.header_block(), len(body), False, None, None, None)
        self.stage_head(head, own)
        self.stage(body)
        self.finish()

    def cut(self) -> None:
        """Write what is staged and break the answer off, so that nobody takes it for complete."""
        self.flush()
        self._relay = None
        self._close()

    def interim(self, head: Head) -> None:
        """Pass an interim answer on; 100 is our own business, and HTTP/1.0 knows none."""
        if head.status > 101 and self._in.queue and self._in.queue[0].version == "1.1":
            self._write(status_line(head.status, head.reason) + head.block + b"\r\n")

    def pause_upload(self, paused: bool) -> None:
        """Take no more (or again more) of the request's body."""
        self._upload_paused = paused
        self._regulate()

    # Ends

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def _abort(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def _linger(self) -> None:
        """Close later: closing on unread data would reset what we just wrote (RFC 9112, 9.6)."""
        self._closing = self._lingering = True
        self._upload_paused = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._read_paused:
            self._read_paused = False
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        self._wait(LINGER_S)
