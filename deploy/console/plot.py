"""The three charts of a workload: agreement, requests by arm, latency by arm. Pure.

A plot has everything that its template draws: geometry in the box of `chart`, labels beside it, and
what each bin says when it is pointed at.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from deploy.console import chart
from deploy.console.control import Point
from deploy.console.numerals import clock, count, interval, milliseconds, percent
from deploy.console.traffic import BINS, Cell, Window

ARMS = ("teacher", "student")
CARRIED_BINS = 4  # an estimate stands until the next one, but not for long


class Shape(NamedTuple):
    """Path data with the class that colours it."""

    kind: str
    path: str


class Label(NamedTuple):
    """A mark of the value axis: its height in percent from the top, and its text."""

    y: float
    text: str


class Plot(NamedTuple):
    """A chart, ready to draw. `tips` has an entry per bin, empty where nothing happened."""

    title: str
    labels: list[Label]
    bars: list[chart.Bar]
    shapes: list[Shape]
    tips: list[list[str]]
    times: list[str]
    summary: str


def requests(window: Window, cells: Sequence[Cell]) -> Plot:
    """Requests per minute, by the arm whose answer the client received."""
    per_minute = 60 / window.bin_s
    served = {(cell.bin, cell.arm): cell.served * per_minute for cell in cells}
    bins = [[served.get((index, arm), 0.0) for arm in ARMS] for index in range(BINS)]
    scale = chart.scale_from_zero(max(map(sum, bins)))
    tips = [
        [
            _time(window, index),
            *(f"{arm} {count(value)}/min" for arm, value in zip(ARMS, values, strict=True)),
        ]
        if any(values)
        else []
        for index, values in enumerate(bins)
    ]
    bars = chart.stack(bins, scale)
    newest = next((sum(values) for values in reversed(bins) if any(values)), 0.0)
    summary = f"Requests per minute by arm; newest {count(newest)}"
    return _plot("Requests per minute", window, scale, count, bars, [], tips, summary)


def latency(window: Window, cells: Sequence[Cell]) -> Plot:
    """The 95th percentile of the duration of both arms' complete answers."""
    known = {(cell.bin, cell.arm): cell.p95_ms for cell in cells}
    lines = {arm: [known.get((index, arm)) for index in range(BINS)] for arm in ARMS}
    scale = chart.scale_from_zero(max((v for vs in lines.values() for v in vs if v), default=0.0))
    tips = [
        _tip(
            window,
            index,
            [
                f"{arm} {milliseconds(values[index])}"
                for arm, values in lines.items()
                if values[index] is not None
            ],
        )
        for index in range(BINS)
    ]
    shapes = [Shape(f"line {arm}", chart.line(values, scale)) for arm, values in lines.items()]
    return _plot(
        "Latency p95",
        window,
        scale,
        milliseconds,
        [],
        shapes,
        tips,
        "95th percentile of the duration of both arms",
    )


def agreement(window: Window, series: Sequence[Point], least: float | None) -> Plot:
    """The monitor's estimate with its interval, and the agreement that is demanded (`least`)."""
    points = _resampled(window, series)
    lows = [point.low if point else None for point in points]
    highs = [point.high if point else None for point in points]
    scale = chart.scale_of_share(min((low for low in lows if low is not None), default=0.9))
    demanded = [] if least is None else [Shape("line least", chart.line([least] * BINS, scale))]
    shapes = [
        *demanded,
        Shape("band student", chart.band(lows, highs, scale)),
        Shape("line student", chart.line([p.agreement if p else None for p in points], scale)),
    ]
    tips = [
        _tip(
            window,
            index,
            [
                f"{percent(point.agreement)} {interval(point.low, point.high)}",
                f"{count(point.n)} pairs",
            ]
            if point
            else [],
        )
        for index, point in enumerate(points)
    ]
    return _plot(
        "Agreement with the teacher",
        window,
        scale,
        lambda v: percent(v, 0),
        [],
        shapes,
        tips,
        "The student's agreement with the teacher over time, with its interval",
    )


def _resampled(window: Window, series: Sequence[Point]) -> list[Point | None]:
    """The newest estimate of each bin, carried on for a few bins."""
    bins: list[Point | None] = [None] * BINS
    last = (window.now - window.since) // window.bin_s
    for point in series:
        index = int((point.at - window.since) // window.bin_s)
        for carried in range(max(0, index), min(BINS, index + 1 + CARRIED_BINS)):
            if carried <= last:
                bins[carried] = point
    return bins


def _plot(
    title: str,
    window: Window,
    scale: chart.Scale,
    written: Callable[[float], str],
    bars: list[chart.Bar],
    shapes: list[Shape],
    tips: list[list[str]],
    summary: str,
) -> Plot:
    labels = [Label(tick.y, written(tick.value)) for tick in scale.ticks()]
    middle = window.since + BINS * window.bin_s / 2
    times = [clock(at)[:5] for at in (window.since, middle, window.since + BINS * window.bin_s)]
    return Plot(title, labels, bars, shapes, tips, times, summary)


def _tip(window: Window, index: int, lines: list[str]) -> list[str]:
    return [_time(window, index), *lines] if lines else []


def _time(window: Window, index: int) -> str:
    return clock(window.since + index * window.bin_s)
