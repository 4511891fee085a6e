"""The bytes that a client sends as requests, within limits: httptools parses, this keeps order.

Callbacks only collect; whoever feeds looks at `queue` and `refusal` afterwards. A refusal always
concerns what came last: nothing is read behind it.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import httptools

from proxy import refusal
from proxy.message import Headers, Request, kind_of
from proxy.refusal import Refusal

_LENGTH = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_KNOWN_HEADS = 1024
_KNOWN_HEAD_BYTES = 4096
_SLACK = 64 * 1024  # one read may hold the end of a body and the beginning of a head


class _Split(NamedTuple):
    """A request that came in one read: its head less the length, the length, the body's start."""

    key: bytes
    length: int
    end: int


def _without_length(data: bytes) -> _Split | None:
    """None unless `data` is exactly one head with a plain length and as many bytes of body."""
    end = data.find(b"\r\n\r\n")
    at = max(data.find(_LENGTH[0], 0, end), data.find(_LENGTH[1], 0, end)) if end > 0 else -1
    if at < 0:
        return None
    start = at + len(_LENGTH[0])
    stop = data.find(b"\r\n", start, end + 2)
    digits = data[start:stop]
    if not digits.isdigit() or len(digits) > 12 or len(data) != end + 4 + int(digits):
        return None
    key = data[:at] + data[stop:end]
    # A folded line belongs to the line before it, so lines may not be taken apart then.
    return None if b"\r\n " in key or b"\r\n\t" in key else _Split(key, int(digits), end + 4)


class Intake:
    """`feed` bytes; `queue` holds the requests in order, the last one maybe still growing."""

    def __init__(
        self, max_head: int, body_limit: Callable[[str], int], known: dict[bytes, Request]
    ) -> None:
        """`known` is shared by all connections: heads that were parsed before, see `_repeated`."""
        self._max_head, self._body_limit, self._known = max_head, body_limit, known
        self._between = True  # the parser stands between two requests
        self.queue: deque[Request] = deque()
        self.incoming: Request | None = None  # its body is not complete
        self.refusal: Refusal | None = None
        self.upgraded: bytes | None = None  # what followed a WebSocket upgrade's head
        self._last = False  # nothing after this request will be read
        self._url = b""
        self._headers: Headers = []
        self._length: int | None = None
        self._head_size = 0
        self._parser = self._new_parser()

    @property
    def partial(self) -> bool:
        """Whether a request has begun to arrive and is not complete."""
        return self.incoming is not None or self._head_size > 0

    def feed(self, data: bytes) -> None:
        """Parse; HTTP that is none becomes a refusal."""
        if self._last:
            return
        fresh, count = self._between and self.refusal is None, len(self.queue)
        if fresh and self._repeated(data):
            return
        self._parse(data)
        if fresh and self._between and len(self.queue) == count + 1:
            self._remember(data, self.queue[-1])

    def _repeated(self, data: bytes) -> bool:
        """Take a request that came whole with a head that was parsed before, save its length.

        Clients repeat their heads to the byte; parsing one costs ten times as much as this.
        """
        found = _without_length(data)
        known = self._known.get(found.key) if found else None
        if found is None or known is None or found.length > self._body_limit(known.path):
            return False
        self.queue.append(known.again(data[found.end :]))
        return True

    def _remember(self, data: bytes, request: Request) -> None:
        """Keep a plain head for `_repeated`: sized, kept alive, nothing special about it."""
        found = _without_length(data)
        if found is None or len(found.key) > _KNOWN_HEAD_BYTES or self.refusal is not None:
            return
        facts = request.facts
        if facts.chunked or facts.expects_continue or request.upgrade or not request.keep_alive:
            return
        if request.length != found.length or not request.complete:
            return
        if len(self._known) >= _KNOWN_HEADS:
            self._known.clear()
        self._known[found.key] = request.again(b"")

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._on_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self.refusal is None and not self._last:
                self.refusal = refusal.not_http(str(error))
        if self.incoming is None and self._url:  # a head that never ends must not fill the memory
            self._head_size += len(data)
            if self._head_size > self._max_head + _SLACK and self.refusal is None:
                self.refusal = refusal.head_too_large(self._max_head)

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._between = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.incoming is not None:
            return  # trailers, which a relay may leave out
        if len(name) == 14 and name.lower() == b"content-length":
            self._length = int(value)
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        url, headers, length = self._url, self._headers, self._length
        self._url, self._headers, self._length, self._head_size = b"", [], None, 0
        if self.refusal is not None or self._last:
            return
        parser = self._parser
        keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        request = Request(parser.get_method(), url, headers, length, version, keep_alive)
        if version != "1.1":
            request.keep_alive = False
        request.upgrade = parser.should_upgrade()
        self.incoming = request
        self.queue.append(request)
        self.refusal = self._check(request)

    def on_body(self, data: bytes) -> None:
        request = self.incoming
        if request is None or self.refusal is not None:
            return
        request.parts.append(data)
        request.received += len(data)
        limit = self._body_limit(request.path)
        if request.received > limit:
            self.refusal = refusal.too_large(limit)

    def on_message_complete(self) -> None:
        self._between = True
        request, self.incoming = self.incoming, None
        if request is not None and self.refusal is None:
            request.complete = True
            self._last = not request.keep_alive

    def _check(self, request: Request) -> Refusal | None:
        """Whether the head alone is reason enough to refuse."""
        if request.facts.size + len(request.target) > self._max_head:
            return refusal.head_too_large(self._max_head)
        if request.length is not None:
            limit = self._body_limit(request.path)
            if request.length > limit:
                return refusal.too_large(limit)
        if request.method == b"CONNECT" or not request.target.startswith(b"/"):
            return refusal.not_http("give the target as a path, like /v1/chat/completions")
        return None

    def _on_upgrade(self, rest: bytes) -> None:
        """The client offers another protocol; all but WebSocket are ignored (RFC 9110, 7.8)."""
        request, self.incoming = self.queue[-1], None
        if self.refusal is not None:
            return
        if (request.header(b"upgrade") or "").lower() == "websocket":
            self._last, self.upgraded = True, rest
            return
        # Java's client offers h2c by default. The parser takes that for the request's end: read it
        # again as if it had not been offered.
        self.queue.pop()
        self._parser, self._last = self._new_parser(), False
        lines = [b"%b %b HTTP/1.1\r\n" % (request.method, request.target)]
        for name, value in request.headers:
            if kind_of(name)[1] not in (b"upgrade", b"connection"):
                lines.append(b"%b: %b\r\n" % (name, value))
        if request.length is not None:
            lines.append(b"content-length: %d\r\n" % request.length)
        self._parse(b"".join([*lines, b"\r\n", rest]))

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # What follows a request with `Connection: close` is left unread; it is no error.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser
