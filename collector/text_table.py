"""Rows as an aligned table for people; cells that are too long are cut, numbers stand right."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

MAX_CELL = 60


def render(names: Sequence[str], rows: Sequence[Sequence[Any]], max_cell: int = MAX_CELL) -> str:
    """A header, a line and the rows; an empty string where there are no columns."""
    if not names:
        return ""
    cells = [[_cell(value, max_cell) for value in row] for row in rows]
    columns = zip(*([list(names), *cells]), strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    right = [
        any(isinstance(row[at], int | float) for row in rows) and bool(rows)
        for at in range(len(names))
    ]
    lines = [_line(names, widths, right), "  ".join("-" * width for width in widths)]
    lines += [_line(row, widths, right) for row in cells]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], widths: list[int], right: list[bool]) -> str:
    padded = (
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()


def _cell(value: Any, max_cell: int) -> str:
    if value is None:
        text = ""
    elif isinstance(value, str):
        text = value
    elif isinstance(value, bytes):
        text = f"<{len(value)} bytes>"
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, datetime):
        text = value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    elif isinstance(value, list | dict):
        text = msgspec.json.encode(value).decode()
    else:
        text = str(value)
    text = " ".join(text.split()) if "\n" in text or "\t" in text else text
    return text if len(text) <= max_cell else text[: max_cell - 1] + "…"
