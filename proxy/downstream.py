"""The client's connection: requests in, answers out, in order, on sockets that uvicorn owns.

Relayed requests are taken here and never reach ASGI; the control plane's are handed whole to
uvicorn's own protocol on the same transport (`control`). Requests whose body routing reads are
collected first; all others are streamed through. Reading stops while a request waits behind an
answer, or while the upstream takes no more, so memory stays bounded by the limits.
"""

import asyncio
import logging
from collections import deque
from math import inf
from typing import Any

import httptools
from uvicorn.config import Config as UvicornConfig
from uvicorn.server import ServerState

from proxy import refusal
from proxy.control import ControlPlane, is_control, serialise
from proxy.message import Head, Headers, Request, kind_of, status_line
from proxy.refusal import Refusal
from proxy.relay import Relay
from proxy.shadow import Shadows
from proxy.site import Site
from proxy.tunnel import Tunnel
from proxy.view import is_understood

log = logging.getLogger(__name__)
LINGER_S = 2.0
WRITE_STALL_S = 300.0  # a client that reads nothing for so long is gone
JOIN_BELOW = 128 * 1024
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
        self._max_head = int(listen.max_header_kb * 1e3)
        self._max_body = int(listen.max_body_mb * 1e6)
        self._client_timeout_s, self._keep_alive_s = listen.client_timeout_s, listen.keep_alive_s
        self._transport: asyncio.Transport | None = None
        self._control: ControlPlane | None = None
        self._tunnel: Tunnel | None = None
        self._parser = _new_parser(self)
        self.deadline = inf
        # The request that is being parsed
        self._url = b""
        self._headers: Headers = []
        self._head_size = 0
        self._incoming: Request | None = None
        self._last = False  # nothing after this request will be read
        # The requests in order; the first is the one being answered, by `_relay` or `_control`
        self._queue: deque[Request] = deque()
        self._relay: Relay | None = None
        self._busy = self._advancing = False
        self._refusal: Refusal | None = None  # for the request that is being parsed
        # The answer
        self._out: list[bytes] = []
        self._head_sent = self._chunked = self._closing = self._lingering = False
        self._close_after = self._bodyless = False
        self._read_paused = self._upload_paused = self._write_paused = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]
        self.deadline = self._site.deadlines.time() + self._client_timeout_s
        self._site.deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.from_client(data)
            return
        if self._closing or self._last:
            return  # after an answer that ends the connection, or while lingering
        if self._incoming is None and not self._head_size:
            self.deadline = self._site.deadlines.time() + self._client_timeout_s
        self._parse(data)
        if self._incoming is None:
            self._count_head(len(data))
        else:
            self.deadline = self._site.deadlines.time() + self._client_timeout_s
        self._advance()

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self._refusal is None and not self._last:
                self._refusal = refusal.not_http(str(error))

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
        self._queue.clear()

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._tunnel is not None:
            self._tunnel.pause_upstream(True)
        elif self._relay is not None:
            self.deadline = self._site.deadlines.time() + WRITE_STALL_S
            self._relay.client_paused(True)
        elif self._control is not None:
            self._control.pause_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._tunnel is not None:
            self._tunnel.pause_upstream(False)
        elif self._relay is not None:
            self.deadline = inf
            self._relay.client_paused(False)
        if self._control is not None:
            self._control.resume_writing()

    def shutdown(self) -> None:
        """uvicorn drains: close when the answer under way is complete."""
        self._close_after = True
        if not self._busy and self._tunnel is None:
            self._close()

    def on_deadline(self) -> None:
        """The client was too slow, idle for too long, or does not read."""
        if self._lingering or (self._busy and self._write_paused):
            self._abort()
        elif self._incoming is not None or self._head_size:
            if self._upload_paused:  # it is the upstream that is slow
                self.deadline = self._site.deadlines.time() + self._client_timeout_s
                return
            self._refusal = self._refusal or refusal.SLOW_CLIENT
            self._advance()
        elif not self._busy:
            self._close()

    # httptools' callbacks: they only collect; `_advance` acts

    def on_message_begin(self) -> None:
        self._url, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._incoming is None:  # else trailers, which a relay may leave out
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._refusal is not None or self._last:
            return
        request = Request(
            self._parser.get_method(),
            self._url,
            self._headers,
            self._parser.get_http_version(),
            self._parser.should_keep_alive(),
        )
        for name, value in self._headers:
            kind, lower = kind_of(name)
            if kind == "framing":
                if lower == b"content-length":
                    request.length = int(value)
                else:
                    request.chunked = True
            elif lower == b"expect":
                request.expects_continue = value.lower() == b"100-continue"
        request.keep_alive = request.keep_alive and request.version == "1.1"
        request.upgrade = self._parser.should_upgrade()
        self._incoming, self._head_size = request, 0
        self._queue.append(request)
        self._refusal = self._check(request)

    def on_body(self, data: bytes) -> None:
        request = self._incoming
        if request is None or self._refusal is not None:
            return
        request.parts.append(data)
        request.received += len(data)
        if request.received > self._limit(request):
            self._refusal = refusal.too_large(self._limit(request))

    def on_message_complete(self) -> None:
        request, self._incoming = self._incoming, None
        if request is not None and self._refusal is None:
            request.complete = True
            if not request.keep_alive:
                self._last = True

    def _limit(self, request: Request) -> int:
        return min(self._max_body, _CONTROL_BODY) if is_control(request.path) else self._max_body

    def _check(self, request: Request) -> Refusal | None:
        """Whether the head alone is reason enough to refuse."""
        size = len(request.target) + sum(len(n) + len(v) + 4 for n, v in request.headers)
        if size > self._max_head:
            return refusal.head_too_large(self._max_head)
        if request.length is not None and request.length > self._limit(request):
            return refusal.too_large(self._limit(request))
        if request.method == b"CONNECT" or not request.target.startswith(b"/"):
            return refusal.not_http("give the target as a path, like /v1/chat/completions")
        return None

    def _count_head(self, size: int) -> None:
        """A head that never ends must not fill the memory."""
        if self._headers or self._url:
            self._head_size += size
            if self._head_size > self._max_head + 65536 and self._refusal is None:
                self._refusal = refusal.head_too_large(self._max_head)
        if not self._queue and not self._url:
            self._head_size = 0

    # The queue

    def _advance(self) -> None:
        """Start or feed whatever the first request in the queue is ready for."""
        if self._advancing or self._transport is None:
            return
        self._advancing = True
        try:
            while not self._closing and not self._busy and self._ready():
                self._start(self._queue[0])
            if self._busy and self._relay is not None:
                self._feed(self._relay)
                if self._refusal is not None and not self._relay.request.complete:
                    self._give_up_upload(self._relay)
            if not self._busy and self._refusal is not None and not self._closing:
                self._queue.clear()
                self.refuse(self._refusal)
        finally:
            self._advancing = False
        self._regulate()

    def _ready(self) -> bool:
        if not self._queue:
            return False
        request = self._queue[0]
        if request.complete or request.upgrade:
            return True
        if self._refusal is not None:
            return False
        if request.expects_continue and not request.received:
            request.expects_continue = False
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return not is_control(request.path) and not is_understood(request)

    def _start(self, request: Request) -> None:
        self._busy = True
        self.deadline = inf if request.complete else self.deadline
        if is_control(request.path):
            self._hand_over(request)
            return
        relay = Relay(self._site, self._shadows, self, request)
        self._relay = relay
        if request.complete:
            parts, request.parts = request.parts, []
            relay.start(parts[0] if len(parts) == 1 else b"".join(parts))
        else:
            relay.start(None)

    def _feed(self, relay: Relay) -> None:
        """Pass on what has come of a streamed body."""
        request = relay.request
        parts, request.parts = request.parts, []
        for data in parts:
            relay.upload(data)
        if request.complete and request is not self._incoming and request.length != 0:
            relay.upload_end()

    def _give_up_upload(self, relay: Relay) -> None:
        """The request under way will never be whole."""
        self._busy, self._relay = False, None
        relay.client_left()

    def _hand_over(self, request: Request) -> None:
        if self._control is None:
            config, state, app_state, loop = self._uvicorn
            self._control = ControlPlane(config, state, app_state, loop, done=self._control_done)
            assert self._transport is not None
            self._control.connection_made(self._transport)
        keep = request.keep_alive and not self._close_after
        self._control.data_received(serialise(request, keep))

    def _control_done(self) -> None:
        if self._transport is None or self._transport.is_closing():
            self._closing = True
            return
        self._answered()

    def _upgraded(self, rest: bytes) -> None:
        """The client asked for another protocol; for WebSocket the connection is a tunnel now."""
        request, self._incoming = self._queue[-1], None
        if self._refusal is not None:
            return
        if (request.header(b"upgrade") or "").lower() != "websocket":
            self._without_upgrade(self._queue.pop(), rest)
            return
        self._last = True
        if self._busy or len(self._queue) > 1 or is_control(request.path):
            self._refusal = refusal.not_http("an upgrade has to be a connection's only request")
            return
        assert self._transport is not None
        self._busy, self.deadline = True, inf
        self._tunnel = Tunnel(self._site, self._transport, request, rest)
        self._tunnel.open()

    def _without_upgrade(self, request: Request, rest: bytes) -> None:
        """Read the request again as if it had not offered h2c, which the parser takes as its end.

        A server may ignore an upgrade (RFC 9110, 7.8), and Java's client offers one by default.
        """
        self._parser, self._last = _new_parser(self), False
        lines = [b"%b %b HTTP/1.1\r\n" % (request.method, request.target)]
        for name, value in request.headers:
            if kind_of(name)[1] not in (b"upgrade", b"connection"):
                lines.append(b"%b: %b\r\n" % (name, value))
        self._parse(b"".join([*lines, b"\r\n", rest]))

    def _answered(self) -> None:
        """An answer is complete: go on with the next request, or close."""
        request = self._queue.popleft() if self._queue else None
        self._busy, self._relay = False, None
        self._head_sent = self._chunked = self._bodyless = False
        whole = request is not None and request.complete
        if self._close_after or not whole or not request or not request.keep_alive:
            if whole:
                self._close()
            else:
                self._linger()
            return
        pending = self._incoming is not None or self._head_size
        wait_s = self._client_timeout_s if pending else self._keep_alive_s
        self.deadline = self._site.deadlines.time() + wait_s
        self._state.total_requests += 1
        self._advance()

    def _regulate(self) -> None:
        """Read only while what is read can be used."""
        paused = self._upload_paused or (self._busy and len(self._queue) > 1)
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
        request = self._queue[0] if self._queue else None
        old = request is not None and request.version != "1.1"
        bare = head.bodyless or (request is not None and request.method == b"HEAD")
        lines = [status_line(head.status, head.reason), head.block, own]
        if head.length is not None and head.status != 204:
            lines.append(b"content-length: %d\r\n" % head.length)
        elif not bare and old:
            self._close_after = True
        elif not bare:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if self._close_after or request is None or not request.keep_alive or not request.complete:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._out.append(b"".join(lines))
        self._head_sent, self._bodyless = True, bare

    def stage(self, data: bytes) -> None:
        """Put a piece of the body into the next write."""
        if not data or self._bodyless:
            return
        if self._chunked:
            self._out.append(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._out.append(data)

    def flush(self) -> None:
        """Write what is staged."""
        out = self._out
        if out:
            self._out = []
            self._write(out[0] if len(out) == 1 else b"".join(out))

    def finish(self) -> None:
        """Write what is staged and end the answer."""
        if self._transport is None:
            return
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self._answered()

    def refuse(self, answer: Refusal, own: bytes = b"") -> None:
        """Answer an error of our own; where an answer has begun already, break it off."""
        self._site.metrics.refused(answer.status, answer.code)
        if self._head_sent:
            self.cut()
            return
        if self._relay is None:  # refused before anybody took it: the connection ends with it
            self._close_after = True
        body = answer.body()
        block = answer.header_block()
        self.stage_head(Head(answer.status, b"", block, len(body), False, None, None, None), own)
        self.stage(body)
        self._chunked = False
        self.finish()

    def cut(self) -> None:
        """Write what is staged and break the answer off, so that nobody takes it for complete."""
        self.flush()
        self._relay = None
        self._close()

    def interim(self, head: Head) -> None:
        """Pass an interim answer on; 100 is our own business, and HTTP/1.0 knows none."""
        if head.status > 101 and self._queue and self._queue[0].version == "1.1":
            self._write(status_line(head.status, head.reason) + head.block + b"\r\n")

    def pause_upload(self, paused: bool) -> None:
        """Take no more (or again more) of the request's body."""
        self._upload_paused = paused
        self._regulate()

    # Ends

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
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
        if transport is None:
            return
        if self._read_paused:
            self._read_paused = False
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        self.deadline = self._site.deadlines.time() + LINGER_S


def _new_parser(owner: Downstream) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(owner)
    # What follows a request with `Connection: close` is left unread, it is no error of that one.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
