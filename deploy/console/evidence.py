"""What a verdict rests on, in the few figures that a person asks for first. Pure."""

from collections.abc import Callable
from typing import Any, NamedTuple

from deploy.console.numerals import count, milliseconds, percent
from understudy.documents import Verdict


class Figure(NamedTuple):
    """A figure of the evidence by its name, as people read it."""

    name: str
    value: str


_WRITTEN: dict[str, Callable[[Any], str]] = {
    "agreement": percent,
    "rate": percent,
    "p95_ms": milliseconds,
    "low": percent,
    "high": percent,
    "margin": percent,
    "limit": percent,
    "limit_ms": milliseconds,
    "n": count,
    "pairs": count,
    "loses_to": str,
}
# The verdict on agreement has its margin, of which `limit` is another name.
_SAID_TWICE = {"agreement": "limit", "p95_ms": "limit"}


def figures(verdict: Verdict) -> list[Figure]:
    """The figures that are there and known; the rest is in the verdict's document."""
    evidence = verdict.evidence
    hidden = {name for given, name in _SAID_TWICE.items() if given in evidence}
    found = []
    for name, write in _WRITTEN.items():
        value = evidence.get(name)
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or None
        is_number = isinstance(value, int | float)
        if name not in hidden and (is_number or (write is str and isinstance(value, str))):
            found.append(Figure(name.removesuffix("_ms").replace("_", " "), write(value)))
    return found
