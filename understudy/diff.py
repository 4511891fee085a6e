"""Two texts side by side, word by word: which pieces differ. Pure; a template does the marking."""

import difflib
import re
from typing import NamedTuple

# difflib is quadratic at worst: beyond so many words both texts are given whole, without marks.
_MOST_WORDS = 3_000


class Piece(NamedTuple):
    """A run of characters; `changed` if the other text does not have it here."""

    text: str
    changed: bool


class SideBySide(NamedTuple):
    """Both texts whole, as pieces."""

    left: list[Piece]
    right: list[Piece]


def side_by_side(left: str, right: str) -> SideBySide:
    """The pieces of both texts; joined, they are the texts again.

    >>> side_by_side("a b", "a c").right
    [Piece(text='a ', changed=False), Piece(text='c', changed=True)]
    """
    one, other = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (left, right))
    if len(one) + len(other) > _MOST_WORDS:
        return SideBySide([Piece(left, False)], [Piece(right, False)])
    result = SideBySide([], [])
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        for pieces, words in ((result.left, one[a:b]), (result.right, other[c:d])):
            if words:
                pieces.append(Piece("".join(words), tag != "equal"))
    return result
