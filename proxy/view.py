"""What routing and the log need to know of a request, read from a copy of it.

A partial decoder looks at a handful of top-level fields (0.5 us at 1 KB) and never fails the
request: what it cannot read is relayed all the same, as unparsed. Compressed bodies are decoded
into a copy, bounded against bombs. Hashes of people and keys are keyed; that of the prompt is not,
since operators write it into their files.
"""

import hashlib
import zlib
from functools import lru_cache
from typing import Any

import msgspec
import zstandard

from proxy.message import Request
from understudy.router import scored_text

ENDPOINTS = {
    "chat/completions": "chat.completions",
    "completions": "completions",
    "embeddings": "embeddings",
    "responses": "responses",
    "moderations": "moderations",
    "messages": "messages",
    "messages/count_tokens": "messages.count_tokens",
    "models": "models",
}
# What a student that speaks OpenAI's completion protocols can answer instead of the teacher.
STUDENT_ENDPOINTS = frozenset({"chat.completions", "completions", "responses"})


class _Peek(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    metadata: dict[str, Any] | None = None
    messages: list[msgspec.Raw] | None = None
    tools: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()


class _Role(msgspec.Struct):
    role: str = ""


_PEEK = msgspec.json.Decoder(_Peek)
_ROLE = msgspec.json.Decoder(_Role)
_ANY = msgspec.json.Decoder()


class RequestView:
    """A request as `decide` sees it. `body` is plain JSON bytes, or None where unparsed."""

    __slots__ = (
        "body",
        "conversation_key",
        "endpoint",
        "headers",
        "key_hash",
        "metadata",
        "model",
        "peek",
        "prompt_hash",
        "request",
        "stateful",
        "store",
        "stream",
        "user_hash",
    )

    def __init__(self, request: Request, endpoint: str) -> None:
        self.request, self.endpoint = request, endpoint
        self.headers = request.facts.by_name
        self.body: bytes | None = None
        self.model: str | None = None
        self.stream = self.stateful = False
        self.store: bool | None = None
        self.metadata: dict[str, Any] = {}
        self.user_hash: str | None = None
        self.key_hash: str | None = None
        self.conversation_key: str | None = None
        self.prompt_hash: str | None = None
        self.peek: _Peek | None = None

    def header(self, name: str) -> str | None:
        """A request header by its lower-case name."""
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def text(self) -> str:
        """The request's content as text, for the router: what varies, without the constant part."""
        return router_text(self.body) if self.body else ""


def endpoint_of(path: str) -> str:
    """The endpoint's name: `chat.completions` for /v1/chat/completions and /chat/completions."""
    rest = path.removeprefix("/v1/").lstrip("/").rstrip("/")
    if rest in ENDPOINTS:
        return ENDPOINTS[rest]
    return rest.partition("/")[0] or "other"


def is_understood(request: Request) -> bool:
    """Whether the body is JSON that the log and the routing read (else: streamed through)."""
    rest = request.path.removeprefix("/v1/").lstrip("/").rstrip("/")
    return request.method == b"POST" and rest in ENDPOINTS


def read_view(request: Request, body: bytes, salt: bytes, max_bytes: int) -> RequestView:
    """Look at a request; never raises on what a client may send."""
    view = RequestView(request, endpoint_of(request.path))
    headers = view.headers
    credential = headers.get(b"authorization") or headers.get(b"api-key")
    credential = credential or headers.get(b"x-api-key")
    if credential:
        view.key_hash = _keyed_cached(salt, b"key", credential)
    plain = _plain(body, headers.get(b"content-encoding"), max_bytes)
    if plain:
        _read_body(view, plain, salt)
    user = headers.get(b"x-understudy-user")
    if user:
        view.user_hash = _keyed(salt, b"user", user)
    conversation = headers.get(b"x-understudy-conversation")
    if conversation:
        view.conversation_key = _keyed(salt, b"conversation", conversation)
    return view


def _read_body(view: RequestView, plain: bytes, salt: bytes) -> None:
    try:
        peek = _PEEK.decode(plain)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return  # no JSON object, or odd types: the teacher will say so to the client
    view.peek, view.body = peek, plain
    view.model, view.stream, view.store = peek.model, bool(peek.stream), peek.store
    view.metadata = peek.metadata or {}
    view.stateful = peek.previous_response_id is not None or peek.conversation is not None
    user = peek.user or peek.safety_identifier
    if user:
        view.user_hash = _keyed(salt, b"user", user.encode("utf-8", "surrogatepass"))
    constant, opening = _beginning(peek)
    if constant:
        view.prompt_hash = hashlib.sha256(constant).hexdigest()[:16]
    if constant or opening:
        view.conversation_key = _keyed(salt, b"conversation", constant + b"\0" + opening)


def _beginning(peek: _Peek) -> tuple[bytes, bytes]:
    """The constant part (system messages, instructions, tools) and the first word of the user."""
    constant = [bytes(peek.system), bytes(peek.instructions)]
    opening = bytes(peek.input or peek.prompt)
    for raw in peek.messages or ():
        try:
            role = _ROLE.decode(raw).role
        except (msgspec.DecodeError, msgspec.ValidationError):
            break
        if role not in ("system", "developer"):
            opening = bytes(raw)
            break
        constant.append(bytes(raw))
    constant.append(bytes(peek.tools))
    return b"\0".join(part for part in constant if part), opening


def router_text(plain: bytes) -> str:
    """What the router reads of a request's body, whichever endpoint it is for."""
    try:
        data = _ANY.decode(plain)
    except (msgspec.DecodeError, RecursionError):
        return ""
    if not isinstance(data, dict):
        return ""
    messages = data.get("messages")
    given = messages if isinstance(messages, list) else []
    others = [{"content": data.get(name)} for name in ("input", "prompt")]
    return scored_text([*given, *others])


def _plain(body: bytes, encoding: bytes | None, max_bytes: int) -> bytes | None:
    """The body decoded; None where its encoding is unknown, damaged or a bomb."""
    if not encoding or encoding.lower() == b"identity":
        return body
    try:
        if encoding.lower() in (b"gzip", b"x-gzip", b"deflate"):
            inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
            plain = inflate.decompress(body, max_bytes)
            return plain if inflate.eof else None
        if encoding.lower() == b"zstd":
            with zstandard.ZstdDecompressor().stream_reader(body) as reader:
                plain = reader.read(max_bytes + 1)
            return plain if len(plain) <= max_bytes else None
    except (zlib.error, zstandard.ZstdError):
        return None
    return None


def _keyed(salt: bytes, purpose: bytes, value: bytes) -> str:
    return hashlib.sha256(b"\0".join((salt, purpose, value))).hexdigest()[:24]


_keyed_cached = lru_cache(4096)(_keyed)
