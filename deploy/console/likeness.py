"""Whether two answers say the same, as far as a page can tell without the task's scorer. Pure."""

import json
from typing import Any


def same_answer(left: str | None, right: str | None) -> bool:
    """Equal text, or equal JSON whatever its spaces and the order of its keys."""
    if left is None or right is None:
        return left is right
    if left.strip() == right.strip():
        return True
    one, other = _parsed(left), _parsed(right)
    return one is not None and one == other


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or hostile nesting: then only the text counts
        return None
    return value if isinstance(value, dict | list) else None
