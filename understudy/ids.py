"""UUIDv7 (RFC 9562): ids that sort by time. Python's own `uuid.uuid7` arrives with 3.14."""

import os
import time

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def uuid7() -> str:
    """A new UUIDv7 as 36 characters: 48 bits of Unix milliseconds, then 74 random bits."""
    ms = f"{time.time_ns() // 1_000_000:012x}"
    bits = os.urandom(10).hex()
    return f"{ms[:8]}-{ms[8:]}-7{bits[:3]}-{_VARIANT[bits[3]]}{bits[4:7]}-{bits[7:19]}"
