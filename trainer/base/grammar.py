"""Expand the hand-written grammar (`grammar.yaml`) into varied English.

`[a|b|]` chooses, brackets nest, `{list}` draws from the word lists, a binding given by the caller
comes first. Deterministic from the generator that is passed in; keeps no state of its own.
"""

import random
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


class Grammar(NamedTuple):
    """The parsed file: objects by domain, messages by issue, and the smaller lists."""

    domains: dict[str, dict[str, list[str]]]
    issues: dict[str, list[str]]
    openers: list[str]
    contexts: list[str]
    tails: list[str]
    sentences: list[str]
    replies: list[str]
    words: dict[str, list[str]]


@cache
def grammar() -> Grammar:
    """The project's own grammar, read once."""
    raw: dict[str, Any] = yaml.safe_load(
        Path(__file__).with_name("grammar.yaml").read_text("utf-8")
    )
    raw["words"] = {name: words.split() for name, words in raw["words"].items()}
    return Grammar(**raw)


def expand(text: str, rng: random.Random, bound: Mapping[str, str] | None = None) -> str:
    """Resolve choices, then slots; an unknown slot is a KeyError, the grammar's own fault."""
    while _CHOICE.search(text):
        text = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), text)
    filled = _SLOT.sub(lambda slot: _word(slot[1], rng, bound or {}), text)
    return re.sub(r"\s+", " ", filled).strip()


def number(rng: random.Random) -> str:
    """A number as people write it: often small, sometimes a long reference."""
    return str(rng.randrange(10 ** rng.choice((1, 1, 2, 2, 3, 4, 5, 6))))


def _word(slot: str, rng: random.Random, bound: Mapping[str, str]) -> str:
    if slot in bound:
        return bound[slot]
    return number(rng) if slot == "number" else rng.choice(grammar().words[slot])
