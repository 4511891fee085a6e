"""Two texts side by side, word by word: which pieces differ. Pure; the template marks them."""

import difflib
import re
from typing import NamedTuple

_LONGEST = 4000


class Piece(NamedTuple):
    """A run of characters; `changed` if the other text does not have it here."""

    text: str
    changed: bool


class SideBySide(NamedTuple):
    """Both texts whole, as pieces."""

    left: list[Piece]
    right: list[Piece]


def side_by_side(left: str, right: str) -> SideBySide:
    """The pieces of both texts; texts beyond 4,000 characters are cut.

    >>> side_by_side("a b", "a c").right
    [Piece(text='a ', changed=False), Piece(text='c', changed=True)]
    """
    one, other = (re.findall(r"\w+|\s+|[^\w\s]", text[:_LONGEST]) for text in (left, right))
    result = SideBySide([], [])
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        for pieces, words in ((result.left, one[a:b]), (result.right, other[c:d])):
            if words:
                pieces.append(Piece("".join(words), tag != "equal"))
    return result
