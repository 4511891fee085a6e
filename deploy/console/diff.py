"""Word-level difference of two answers, as segments that a template escapes and colours. Pure."""

import json
import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

_WORD = re.compile(r"\s+|\w+|[^\w\s]")
# difflib is quadratic at worst: beyond this many words texts are shown whole, without marks.
MAX_WORDS = 3_000


class Segment(NamedTuple):
    """A piece of one side; `changed` pieces are not on the other side."""

    text: str
    changed: bool


class Sides(NamedTuple):
    """Both sides of a comparison and how alike they are, in [0, 1]."""

    left: list[Segment]
    right: list[Segment]
    likeness: float


def compare(left: str, right: str) -> Sides:
    """Mark the words by which two texts differ."""
    one, other = _WORD.findall(left), _WORD.findall(right)
    if len(one) + len(other) > MAX_WORDS:
        return Sides([Segment(left, False)], [Segment(right, False)], float(left == right))
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    sides = Sides([], [], matcher.ratio())
    for tag, a, b, c, d in matcher.get_opcodes():
        if b > a:
            sides.left.append(Segment("".join(one[a:b]), tag != "equal"))
        if d > c:
            sides.right.append(Segment("".join(other[c:d]), tag != "equal"))
    return sides


def same_answer(left: str | None, right: str | None) -> bool:
    """Equal text, or equal JSON whatever its spaces and the order of its keys."""
    if left is None or right is None:
        return left is right
    if left.strip() == right.strip():
        return True
    return _parsed(left) is not None and _parsed(left) == _parsed(right)


def _parsed(text: str) -> Literal[None] | dict[str, object] | list[object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or hostile nesting: then only text counts
        return None
    return value if isinstance(value, dict | list) else None
