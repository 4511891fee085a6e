"""One frame of the spool as bytes: encode, parse, and nothing else (no files here)."""

import struct
import zlib
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct("<IIQB")
_TAIL = struct.Struct("<QB")
_META = struct.Struct("<I")
MAX_BODY = 1 << 30  # a longer length can only be damage


class FrameType(IntEnum):
    """What a frame says; see docs/contracts.md."""

    REQUEST = 1
    CHUNK = 2
    RESPONSE = 3
    ABORT = 4
    FEEDBACK = 5
    HEARTBEAT = 6
    GAP = 7
    CLOSE = 8


class Frame(NamedTuple):
    """A parsed frame: `body` is still encoded, see `decode_body`. `size` in bytes, header included."""

    seq: int
    type: FrameType
    body: bytes
    size: int


def encode(seq: int, kind: int, meta: bytes, payload: bytes = b"") -> tuple[bytes, bytes]:
    """Header-with-meta and payload, ready for writev: the payload is not copied."""
    tail = _TAIL.pack(seq, kind)
    head = _META.pack(len(meta)) + meta
    crc = zlib.crc32(payload, zlib.crc32(head, zlib.crc32(tail)))
    length = len(head) + len(payload)
    return HEADER.pack(length, crc, seq, kind) + head, payload


def parse(buffer: bytes | memoryview, offset: int = 0) -> Frame | None:
    """The frame at `offset`; None when it is torn, incomplete or damaged."""
    if len(buffer) - offset < HEADER.size:
        return None
    length, crc, seq, kind = HEADER.unpack_from(buffer, offset)
    start = offset + HEADER.size
    if not _META.size <= length <= MAX_BODY or len(buffer) - start < length:
        return None
    body = bytes(buffer[start : start + length])
    if zlib.crc32(body, zlib.crc32(_TAIL.pack(seq, kind))) != crc:
        return None
    if kind not in FrameType._value2member_map_:
        return None
    return Frame(seq, FrameType(kind), body, HEADER.size + length)


def decode_body(body: bytes) -> tuple[bytes, bytes]:
    """The frame's meta (JSON bytes) and payload."""
    (size,) = _META.unpack_from(body, 0)
    start = _META.size
    return body[start : start + size], body[start + size :]
