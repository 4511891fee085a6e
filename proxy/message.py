"""HTTP messages as values: a client's request, an upstream's head, and both heads as bytes.

Headers stay raw pairs in their order and spelling. Only what HTTP makes each hop's own business is
taken out (RFC 9110, 7.6.1), and what is meant for Understudy itself. Bodies are never looked at.
"""

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Literal, NamedTuple

Headers = list[tuple[bytes, bytes]]
Kind = Literal["end", "hop", "framing", "connection", "host", "ours", "credential", "noted"]

_HOP = frozenset(
    b"keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade "
    b"expect".split()
)
# Whatever may identify or authorise the caller: the teacher's business, never the student's.
_CREDENTIAL = frozenset(
    b"authorization api-key x-api-key x-goog-api-key cookie openai-organization "
    b"openai-project".split()
)
_NOTED = frozenset(b"content-type content-encoding x-request-id".split())


@lru_cache(1024)
def kind_of(name: bytes) -> tuple[Kind, bytes]:
    """What a header is to a relay, and its name in lower case."""
    name = name.lower()
    if name in (b"content-length", b"transfer-encoding"):
        return "framing", name
    if name in (b"connection", b"host"):
        return ("connection" if name == b"connection" else "host"), name
    if name.startswith(b"x-understudy-"):
        return "ours", name
    if name in _CREDENTIAL:
        return "credential", name
    if name in _HOP:
        return "hop", name
    return ("noted" if name in _NOTED else "end"), name


@lru_cache(256)
def status_line(status: int, reason: bytes = b"") -> bytes:
    """The first line of an answer; the upstream's own reason phrase where it gave one."""
    if not reason and status in HTTPStatus._value2member_map_:
        reason = HTTPStatus(status).phrase.encode()
    return b"HTTP/1.1 %d %s\r\n" % (status, reason)


class Request:
    """A client's request as it arrives; `parts` grows until `complete`."""

    __slots__ = (
        "chunked",
        "complete",
        "expects_continue",
        "headers",
        "keep_alive",
        "length",
        "method",
        "parts",
        "path",
        "received",
        "started",
        "target",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        version: str = "1.1",
        keep_alive: bool = True,
    ) -> None:
        self.method, self.target, self.headers = method, target, headers
        self.version, self.keep_alive = version, keep_alive
        self.path = target.partition(b"?")[0].decode("latin-1")
        self.length: int | None = None
        self.chunked = self.expects_continue = self.complete = False
        self.upgrade = False
        self.parts: list[bytes] = []
        self.received = 0
        self.started = 0.0

    def header(self, wanted: bytes) -> str | None:
        """The first header of that name (in lower case), decoded as HTTP does: Latin-1."""
        for name, value in self.headers:
            if kind_of(name)[1] == wanted:
                return value.decode("latin-1")
        return None

    @property
    def has_body(self) -> bool:
        """Whether the client framed a body, an empty one included."""
        return self.chunked or self.length is not None


class Head(NamedTuple):
    """An answer's head: `block` is every end-to-end header line, ready to be sent on."""

    status: int
    reason: bytes
    block: bytes
    length: int | None
    chunked: bool
    content_type: str | None
    content_encoding: str | None
    request_id: str | None
    bodyless: bool = False


def read_head(status: int, reason: bytes, headers: Headers, method: bytes) -> Head:
    """An upstream's head without what belonged to that connection."""
    lines: list[bytes] = []
    noted: dict[bytes, str] = {}
    length: int | None = None
    chunked = False
    named = _named_by_connection(headers)
    for name, value in headers:
        kind, lower = kind_of(name)
        if kind == "framing":
            if lower == b"content-length":
                length = int(value)
            else:
                chunked = True
            continue
        if kind in ("hop", "connection", "ours") or lower in named:
            continue
        if kind == "noted":
            noted[lower] = value.decode("latin-1")
        lines.append(b"%b: %b\r\n" % (name, value))
    return Head(
        status,
        reason,
        b"".join(lines),
        None if chunked else length,
        chunked,
        noted.get(b"content-type"),
        noted.get(b"content-encoding"),
        noted.get(b"x-request-id"),
        method == b"HEAD" or status in (204, 304),
    )


def request_head(
    request: Request,
    target: bytes,
    host: bytes,
    *,
    length: int | None,
    chunked: bool = False,
    key: str | None = None,
    credentials: bool = True,
    skip: Iterable[bytes] = (),
) -> bytes:
    """The head that goes upstream: the client's, less what is hop by hop or for Understudy.

    `key` replaces the caller's credentials; `credentials=False` drops them without one.
    """
    dropped = _named_by_connection(request.headers) | frozenset(skip)
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (request.method, target, host)]
    for name, value in request.headers:
        kind, lower = kind_of(name)
        if (kind in ("end", "noted") and lower not in dropped) or (
            kind == "credential" and credentials and key is None
        ):
            lines.append(b"%b: %b\r\n" % (name, value))
    if key is not None:
        lines.append(b"authorization: Bearer %b\r\n" % key.encode())
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif length is not None:
        lines.append(b"content-length: %d\r\n" % length)
    lines.append(b"\r\n")
    return b"".join(lines)


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Headers that a Connection header declares to be hop by hop."""
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if len(name) == 10 and kind_of(name)[0] == "connection":
            tokens = frozenset(token.strip().lower() for token in value.split(b","))
            named |= tokens - {b"close", b"keep-alive"}
    return named
