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
_END = frozenset({"end", "noted", "credential"})
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


class HeaderFacts:
    """What a relay needs of a request's headers; clients repeat theirs, so they are cached.

    `forward` is every end-to-end header line; `anonymous` the same without credentials.
    """

    __slots__ = ("anonymous", "by_name", "chunked", "expects_continue", "forward", "size")

    def __init__(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self.by_name = {kind_of(name)[1]: value for name, value in reversed(headers)}
        self.size = sum(len(name) + len(value) + 4 for name, value in headers)
        self.chunked = b"transfer-encoding" in self.by_name
        self.expects_continue = self.by_name.get(b"expect", b"").lower() == b"100-continue"
        named = _named_by_connection(headers)
        kept = [(kind_of(name), name, value) for name, value in headers]
        kept = [one for one in kept if one[0][0] in _END and one[0][1] not in named]
        self.forward = b"".join(b"%b: %b\r\n" % one[1:] for one in kept)
        self.anonymous = b"".join(
            b"%b: %b\r\n" % one[1:] for one in kept if one[0][0] != "credential"
        )


facts_of = lru_cache(1024)(HeaderFacts)


class Request:
    """A client's request as it arrives; `parts` grows until `complete`.

    `headers` are without Content-Length, which is `length`.
    """

    __slots__ = (
        "complete",
        "facts",
        "headers",
        "keep_alive",
        "length",
        "method",
        "parts",
        "path",
        "received",
        "target",
        "upgrade",
        "version",
        "waits_for_continue",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        length: int | None = None,
        version: str = "1.1",
        keep_alive: bool = True,
    ) -> None:
        self.method, self.target, self.length = method, target, length
        self.headers = tuple(headers)
        self.facts = facts_of(self.headers)
        self.version, self.keep_alive = version, keep_alive
        self.path = target.partition(b"?")[0].decode("latin-1")
        self.waits_for_continue = self.facts.expects_continue
        self.complete = self.upgrade = False
        self.parts: list[bytes] = []
        self.received = 0

    def again(self, body: bytes) -> "Request":
        """The same head with another body, complete."""
        other = Request.__new__(Request)
        other.method, other.target, other.path = self.method, self.target, self.path
        other.headers, other.facts = self.headers, self.facts
        other.version, other.keep_alive = self.version, self.keep_alive
        other.length = other.received = len(body)
        other.waits_for_continue = other.upgrade = False
        other.complete = True
        other.parts = [body]
        return other

    def header(self, wanted: bytes) -> str | None:
        """The first header of that name (in lower case), decoded as HTTP does: Latin-1."""
        value = self.facts.by_name.get(wanted)
        return None if value is None else value.decode("latin-1")

    @property
    def has_body(self) -> bool:
        """Whether the client framed a body, an empty one included."""
        return self.length is not None or self.facts.chunked


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
    block = b""
    length: int | None = None
    chunked = False
    named: frozenset[bytes] = frozenset()
    content_type = content_encoding = request_id = None
    for name, value in headers:
        kind, lower = kind_of(name)
        if kind == "noted":
            text = value.decode("latin-1")
            if lower == b"content-type":
                content_type = text
            elif lower == b"content-encoding":
                content_encoding = text
            else:
                request_id = text
        elif kind == "framing":
            if lower == b"content-length":
                length = int(value)
            else:
                chunked = True
            continue
        elif kind == "connection":
            named = named or _named_by_connection(headers)
            continue
        elif kind in ("hop", "ours"):
            continue
        block += b"%b: %b\r\n" % (name, value)
    if named:  # rare: a header that the upstream declares to be its connection's
        rest = [one for one in headers if kind_of(one[0])[1] not in named | {b"connection"}]
        return read_head(status, reason, rest, method)
    bodyless = method == b"HEAD" or status in (204, 304)
    length = None if chunked else length
    return Head(
        status, reason, block, length, chunked, content_type, content_encoding, request_id, bodyless
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
    decoded: bool = False,
) -> bytes:
    """The head that goes upstream: the client's, less what is hop by hop or for Understudy.

    `key` replaces the caller's credentials; `credentials=False` drops them without one; `decoded`
    says that the body is no longer compressed.
    """
    facts = request.facts
    if decoded:
        rest = [one for one in request.headers if kind_of(one[0])[1] != b"content-encoding"]
        facts = facts_of(tuple(rest))
    lines = facts.forward if credentials and key is None else facts.anonymous
    if key is not None:
        lines += b"authorization: Bearer %b\r\n" % key.encode()
    if chunked:
        lines += b"transfer-encoding: chunked\r\n"
    elif length is not None:
        lines += b"content-length: %d\r\n" % length
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (request.method, target, host, lines)


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Headers that a Connection header declares to be hop by hop."""
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if kind_of(name)[0] == "connection":
            tokens = frozenset(token.strip().lower() for token in value.split(b","))
            named |= tokens - {b"close", b"keep-alive"}
    return named
