"""Replace `model` in a JSON request by splicing bytes: all else stays as the client wrote it.

A scanner over the top-level object only; nested `model` keys (metadata, tools, messages) are not
touched, and a repeated key is replaced everywhere, since readers differ in which one they take.
"""

import json
import re

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]', re.DOTALL)


def splice_model(body: bytes, model: str) -> bytes | None:
    """The body with its top-level `model` replaced; None where it has no such string."""
    spans = _model_spans(body)
    if not spans:
        return None
    value = json.dumps(model).encode()
    pieces: list[bytes] = []
    at = 0
    for start, end in spans:
        pieces += [body[at:start], value]
        at = end
    pieces.append(body[at:])
    return b"".join(pieces)


def _model_spans(body: bytes) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    depth = 0
    last: re.Match[bytes] | None = None  # the last string at depth 1
    is_model = False  # the value that comes next belongs to `model`
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first in b"{[":
            depth, is_model = depth + 1, False
        elif first in b"}]":
            depth -= 1
        elif depth != 1:
            continue
        elif first == 0x22:
            if is_model:
                spans.append(token.span())
                is_model = False
            last = token
        elif first == 0x3A:
            is_model = last is not None and _is_model(last.group())
        else:
            is_model = False
    return spans


def _is_model(key: bytes) -> bool:
    if key == b'"model"':
        return True
    if b"\\" not in key:
        return False
    try:
        return bool(json.loads(key) == "model")
    except ValueError:
        return False
