"""Geometry of the charts: numbers in, SVG path data and tick marks out. Pure; templates draw them.

Everything lives in a box of WIDTH x HEIGHT units that the page stretches to the space it has, so
text never belongs inside it. A missing number is a gap in a line, never a zero.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

WIDTH = 600.0
HEIGHT = 100.0


class Tick(NamedTuple):
    """A grid line: its height in the box, and the number it stands for."""

    y: float
    value: float


class Scale(NamedTuple):
    """A linear scale from `low` (the box's bottom) to `high` (its top)."""

    low: float
    high: float

    def y(self, value: float) -> float:
        """Where `value` lies, clipped to the box."""
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT * (1 - min(1.0, max(0.0, share))), 2)

    def ticks(self) -> list[Tick]:
        """Bottom, middle and top."""
        middle = (self.low + self.high) / 2
        return [Tick(self.y(value), value) for value in (self.high, middle, self.low)]


class Bar(NamedTuple):
    """One rectangle of a stack; `series` is its index from the bottom."""

    x: float
    y: float
    width: float
    height: float
    series: int


def scale_from_zero(highest: float) -> Scale:
    """A scale from 0 to a round number at or above `highest`, with a round middle."""
    if highest <= 0:
        return Scale(0, 1)
    power = 10.0 ** math.floor(math.log10(highest))
    top = next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= highest)
    return Scale(0, top)


def scale_of_share(lowest: float) -> Scale:
    """A scale that ends at 100 % and begins at the decile, or half, under `lowest`."""
    floor = 0.9 if lowest >= 0.9 else math.floor(max(0.0, lowest) * 5) / 5
    return Scale(floor, 1.0)


def stack(bins: Sequence[Sequence[float]], scale: Scale) -> list[Bar]:
    """Stacked bars, one stack per bin; empty ones are left out."""
    step = WIDTH / max(1, len(bins))
    bars = []
    for index, values in enumerate(bins):
        below = 0.0
        for series, value in enumerate(values):
            if value > 0:
                top = scale.y(below + value)
                height = round(scale.y(below) - top, 2)
                x, width = round(index * step + step * 0.1, 2), round(step * 0.8, 2)
                bars.append(Bar(x, top, width, height, series))
            below += value
    return bars


def line(values: Sequence[float | None], scale: Scale) -> str:
    """A path through the bins' middles; gaps where a value is missing, a dot where it is alone."""
    pieces = []
    for points in _runs(values, scale):
        tail = " ".join(f"L{x} {y}" for x, y in points[1:]) or "h0"
        pieces.append(f"M{points[0][0]} {points[0][1]} {tail}")
    return " ".join(pieces)


def band(lows: Sequence[float | None], highs: Sequence[float | None], scale: Scale) -> str:
    """The closed area between two lines; both miss the same bins."""
    pieces = []
    for low, high in zip(_runs(lows, scale), _runs(highs, scale), strict=True):
        around = [*high, *reversed(low)]
        pieces.append("M" + " L".join(f"{x} {y}" for x, y in around) + " Z")
    return " ".join(pieces)


def _runs(values: Sequence[float | None], scale: Scale) -> list[list[tuple[float, float]]]:
    step = WIDTH / max(1, len(values))
    middles = [
        None if value is None else (round((index + 0.5) * step, 2), scale.y(value))
        for index, value in enumerate(values)
    ]
    grouped = groupby(middles, key=lambda point: point is not None)
    return [[p for p in points if p is not None] for present, points in grouped if present]
