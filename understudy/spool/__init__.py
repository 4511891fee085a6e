"""The spool: a local write-ahead log, one folder per writer process.

`SpoolWriter` appends frames; `SpoolReader` gives them back in order; `recover` closes the spool of
a writer that died. Frame = length u32 | CRC-32 u32 | sequence u64 | type u8 | body, little endian;
the CRC covers sequence, type and body. Sequence numbers start at 0 and have no holes.
"""

from understudy.spool.frame import (
    Frame,
    FrameType,
    Lost,
    decode_body,
    encode,
    lost,
    parse,
    to_bytes,
)
from understudy.spool.reader import SpoolReader, segments, spools
from understudy.spool.recovery import Cursor, follow, living, recover, release, remove
from understudy.spool.writer import SpoolFull, SpoolWriter

__all__ = [
    "Cursor",
    "Frame",
    "FrameType",
    "Lost",
    "SpoolFull",
    "SpoolReader",
    "SpoolWriter",
    "decode_body",
    "encode",
    "follow",
    "living",
    "lost",
    "parse",
    "recover",
    "release",
    "remove",
    "segments",
    "spools",
    "to_bytes",
]
