"""One frame of the spool as bytes: encode, parse, find behind damage. No files here."""

import re
import struct
import zlib
from enum import IntEnum
from typing import NamedTuple

import msgspec

HEADER = struct.Struct("<IIQB")
_TAIL = struct.Struct("<QB")
_META = struct.Struct("<I")
_HIGH_HALF = struct.Struct("<I")
_HIGH_HALF_AT = 12  # where the upper four bytes of the sequence number lie in a header
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
    LOST = 9  # made by the reader, never by a writer: frames that are damaged or gone


class Lost(msgspec.Struct, frozen=True):
    """Meta of a LOST frame: the frames from its own number up to `until` cannot be read."""

    until: int
    reason: str
    stored_elsewhere: bool = False  # not lost: another lake or topic has them


class Frame(NamedTuple):
    """A parsed frame. `body` is still encoded, see `decode_body`; `size` counts the header too."""

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


def lost(first: int, until: int, reason: str, *, stored_elsewhere: bool = False) -> Frame:
    """The frame that stands for the unreadable frames `first` to `until`, both included."""
    meta = msgspec.json.encode(Lost(until, reason, stored_elsewhere))
    frame = parse(encode(first, FrameType.LOST, meta)[0])
    assert frame
    return frame


def to_bytes(frame: Frame) -> bytes:
    """The frame as it lies in the spool: header and body."""
    crc = zlib.crc32(frame.body, zlib.crc32(_TAIL.pack(frame.seq, frame.type)))
    return HEADER.pack(len(frame.body), crc, frame.seq, frame.type) + frame.body


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
    if kind not in FrameType._value2member_map_ or _META.unpack_from(body)[0] > length - _META.size:
        return None
    return Frame(seq, FrameType(kind), body, HEADER.size + length)


def find(buffer: bytes, offset: int, least_seq: int) -> int | None:
    """Where behind damage the next intact frame with a number from `least_seq` on begins.

    Numbers that cannot have been reached in so many bytes are a caller's payload, not a frame.
    """
    most_seq = least_seq + (len(buffer) - offset) // HEADER.size + 1
    high = _HIGH_HALF.pack(least_seq >> 32)
    candidates = re.compile(b"(?=" + re.escape(high) + b"[\x01-\x08])", re.DOTALL)
    for match in candidates.finditer(buffer, offset + _HIGH_HALF_AT):
        frame = parse(buffer, match.start() - _HIGH_HALF_AT)
        if frame is not None and least_seq <= frame.seq <= most_seq:
            return match.start() - _HIGH_HALF_AT
    return None


def is_torn(rest: bytes, seq: int) -> bool:
    """Whether `rest` is the beginning of frame `seq`, cut: an append that never returned."""
    if find(rest, 0, seq) is not None:
        return False  # whole frames behind it: a damaged length only looks like a cut
    if len(rest) < HEADER.size:
        whole = _TAIL.pack(seq, 0)[:8]
        return whole.startswith(rest[8:16])
    length, _, found, kind = HEADER.unpack_from(rest)
    return (
        found == seq
        and kind in FrameType._value2member_map_
        and _META.size <= length <= MAX_BODY
        and len(rest) < HEADER.size + length
    )


def decode_body(body: bytes) -> tuple[bytes, bytes]:
    """The frame's meta (JSON bytes) and payload."""
    (size,) = _META.unpack_from(body, 0)
    start = _META.size
    return body[start : start + size], body[start + size :]
