"""Bodies as they were on the wire -> bytes -> JSON or events. A cut body gives its part.

Nothing here raises: an unknown or damaged encoding, or no JSON, is None.
"""

import contextlib
import zlib
from typing import Any

import brotli
import msgspec
import zstandard

_ANY = msgspec.json.Decoder()
MAX_DECODED = 256 << 20  # a body that inflates further is a bomb, and stays raw


def decoded(body: bytes, encoding: str | None) -> bytes | None:
    """The body without its content-encoding (several are undone from the last to the first)."""
    names = [name.strip().lower() for name in (encoding or "").split(",")]
    for name in reversed(names):
        if name in ("", "identity"):
            continue
        try:
            body = _DECODERS[name](body)
        except (KeyError, zlib.error, brotli.error, zstandard.ZstdError):
            return None
        if len(body) > MAX_DECODED:
            return None
    return body


def parse_json(body: bytes) -> Any:
    """The JSON value, or None: also for NaN, lone surrogates, invalid UTF-8, too deep nesting."""
    try:
        return _ANY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def events(body: bytes) -> list[Any] | None:
    """The JSON values of a stream's `data:` events, without [DONE].

    A last event that is cut is left out; None where one before it is no JSON.
    """
    data = _data(body)
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return list(_ANY.decode_lines(b"\n".join(data)))  # at once: a third of the time
    values = [parse_json(piece) for piece in data]
    if values and values[-1] is None:
        values.pop()
    return None if None in values else values


def _data(body: bytes) -> list[bytes]:
    """The events' data, several lines of one event joined; the last one may be cut."""
    found: list[bytes] = []
    pending: list[bytes] = []
    for line in (*body.removeprefix(b"\xef\xbb\xbf").splitlines(), b""):
        if line.startswith(b"data:"):
            pending.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line and pending:
            found.append(b"\n".join(pending))
            pending = []
    return [piece for piece in found if piece != b"[DONE]"]


def is_event_stream(body: bytes, content_type: str | None) -> bool:
    """Whether to read it as events; without a content type its first bytes tell."""
    if content_type:
        return content_type.split(";")[0].strip().lower() == "text/event-stream"
    return body.lstrip().startswith((b"data:", b"event:", b":"))


def _inflate(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, by the header
    try:
        return unpacker.decompress(body, MAX_DECODED + 1)
    except zlib.error:
        # "deflate" without zlib's header, as some servers send it.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, MAX_DECODED + 1)


def _unzstd(body: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
        return reader.read(MAX_DECODED + 1)


def _unbrotli(body: bytes) -> bytes:
    unpacker = brotli.Decompressor()
    whole = bytearray()
    for start in range(0, len(body), 1 << 16):
        whole += unpacker.process(body[start : start + (1 << 16)])
        if len(whole) > MAX_DECODED:
            break
    return bytes(whole)


_DECODERS = {
    "gzip": _inflate,
    "x-gzip": _inflate,
    "deflate": _inflate,
    "zstd": _unzstd,
    "br": _unbrotli,
}
