"""One HTTP/1.1 connection to an upstream: sends one request at a time, parses the answer.

Everything doubtful ends the connection: bytes after the end of an answer, a head beyond the limit,
framing that the parser refuses, an answer that began before its request was sent whole.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

import httptools

from proxy.message import Head, Headers, read_head
from proxy.upstream import END, Event, Failure, Listener

if TYPE_CHECKING:
    from proxy.pool import Origin, Pool

MAX_HEAD_BYTES = 256 * 1024
JOIN_BELOW = 64 * 1024  # head and body leave in one write up to here; above, copying costs more


class Connection(asyncio.Protocol):
    """A connection, idle or with one call on it."""

    def __init__(self, pool: "Pool", origin: "Origin") -> None:
        self.pool, self.origin = pool, origin
        self.deadline = inf
        self.used = False
        self.write_paused = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._listener: Listener | None = None
        self._retry: Callable[[], bool] | None = None
        self._method = b""
        self._events: list[Event] = []
        self._headers: Headers = []
        self._reason = b""
        self._head_size = 0
        self._head: Head | None = None
        self._until_close = self._keep = self._ended = self._dirty = self._paused = False
        self._uploading = self._chunk = False

    # What a call does with it

    @property
    def usable(self) -> bool:
        """Whether a request may be tried on it."""
        return self._transport is not None and not self._transport.is_closing()

    def start(
        self,
        method: bytes,
        head: bytes,
        body: bytes | None,
        listener: Listener,
        retry: Callable[[], bool] | None,
    ) -> None:
        """Send a request; `body` None means that `write_body` brings it."""
        assert self._transport is not None
        self.pool.deadlines.discard(self)
        self.used = True
        self._listener, self._retry, self._method = listener, retry, method
        self._head, self._ended, self._until_close = None, False, False
        self._uploading = body is None
        self._chunk = b"\r\ntransfer-encoding: chunked\r\n" in head
        if body is None or len(body) > JOIN_BELOW:
            self._transport.write(head)
            if body:
                self._transport.write(body)
        else:
            self._transport.write(head + body)

    def write_body(self, data: bytes | None) -> None:
        """A piece of a streamed body; None is its end."""
        if self._transport is None or not self._uploading:
            return
        if data is None:
            self._uploading = False
            if self._chunk:
                self._transport.write(b"0\r\n\r\n")
        elif data:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunk else data)

    def pause(self) -> None:
        """Stop reading."""
        if not self._paused and self.usable:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and self.usable:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()

    def drop(self) -> None:
        """End it now; its call hears nothing more."""
        self._listener = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End it in good order."""
        if self._transport is not None:
            self._transport.close()

    def on_deadline(self) -> None:
        """Idle for too long."""
        self.pool.forget(self)
        self.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        listener = self._listener
        if listener is None:  # bytes that nobody asked for
            self.pool.forget(self)
            self.drop()
            return
        self._retry = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, ValueError) as error:
            if self._ended:
                self._dirty = True
            else:
                self._fail(Failure("protocol", f"{self.origin.host}: no HTTP answer: {error}"))
                return
        if self._head is None:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD_BYTES:
                self._fail(Failure("protocol", f"{self.origin.host}: answer's head is too large"))
                return
        events, self._events = self._events, []
        if self._ended:
            self._release()
        if events:
            listener.receive(events)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.pool.forget(self)
        listener, self._listener = self._listener, None
        if listener is None:
            return
        if self._until_close and error is None:
            listener.receive([END])
        elif self._retry is None or not self._retry():
            said = f": {error}" if error else ""
            listener.receive([Failure("closed", f"{self.origin.host} closed the connection{said}")])

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._listener is not None and self._uploading:
            self._listener.upload_paused(True)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._listener is not None and self._uploading:
            self._listener.upload_paused(False)

    # httptools' callbacks: they only collect, delivery is data_received's

    def on_message_begin(self) -> None:
        if self._ended:
            self._dirty = True
        self._headers, self._reason = [], b""

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:  # after it these are trailers, which a relay may leave out
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        status = self._parser.get_status_code()
        head = read_head(status, self._reason, self._headers, self._method)
        self._head_size = 0
        if status < 200:
            if self._listener is not None:
                self._listener.interim(head)
            return
        self._head = head
        self._keep = self._parser.should_keep_alive()
        self._until_close = head.length is None and not head.chunked and not head.bodyless
        self._events.append(head)
        if self._method == b"HEAD":  # llhttp would wait for the body that the head announces
            self._end()
            self._parser = httptools.HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        if self._ended:
            self._dirty = True
        else:
            self._events.append(data)

    def on_message_complete(self) -> None:
        if self._head is not None and not self._ended:
            self._end()

    # Ends

    def _end(self) -> None:
        self._ended = True
        self._events.append(END)

    def _release(self) -> None:
        """The answer is complete: keep the connection if nothing speaks against it."""
        self._listener = None
        if self._dirty or not self._keep or self._uploading or not self.usable:
            self.drop()
            return
        self.resume()
        self.pool.give(self)

    def _fail(self, failure: Failure) -> None:
        listener, self._listener = self._listener, None
        events, self._events = [*self._events, failure], []
        self.drop()
        if listener is not None:
            listener.receive(events)
