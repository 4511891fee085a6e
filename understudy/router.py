"""The hybrid router: a logistic score that the student will agree with the teacher on a text.

Hashed words and word pairs, one weight each: small enough for JSON, microseconds to score, nothing
but numpy. The evaluator fits the weights on shadow pairs; the proxy only loads and scores.
"""

import itertools
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError

_WORD = re.compile(r"\w+")
_MAX_CHARACTERS = 4000  # the newest ones; bounds the time in the request path to about 0.3 ms


def features(text: str, bits: int) -> list[int]:
    """Indices in [0, 2**bits) of the text's last words and word pairs, each once, in no order."""
    words = _WORD.findall(text[-_MAX_CHARACTERS:].lower())
    mask = (1 << bits) - 1
    single = {zlib.crc32(word.encode()) & mask for word in words}
    pairs = itertools.pairwise(words)
    return list(single | {zlib.crc32(f"{a} {b}".encode()) & mask for a, b in pairs})


def scored_text(messages: Iterable[Any]) -> str:
    """What the router reads of a request: the texts of all messages but the system's, line by line.

    Fitting and scoring both take it from here, so that they cannot come to see different texts.
    Messages are OpenAI's, with content as a string or as parts; whatever else is there is left out.
    """
    found: list[str] = []
    for message in messages:
        if isinstance(message, Mapping) and message.get("role") not in ("system", "developer"):
            _collect(message.get("content"), found)
    return "\n".join(found)


def _collect(content: Any, found: list[str]) -> None:
    if isinstance(content, str):
        if content:
            found.append(content)
    elif isinstance(content, list):
        for part in content:
            _collect(part, found)
    elif isinstance(content, Mapping):
        _collect(content.get("text", content.get("content")), found)


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """The router as it lies in the lake. `weights`: 2**bits of them; `evidence`: for people."""

    bits: int
    bias: float
    weights: list[float]
    student: str
    workload: str
    threshold: float
    evidence: dict[str, Any] = {}


class Router:
    """Scores a request's text; `score` is the probability that the student's answer would do."""

    def __init__(self, artefact: Artefact) -> None:
        if len(artefact.weights) != 1 << artefact.bits:
            raise ConfigError(
                f"router of {artefact.workload}: {len(artefact.weights)} weights for "
                f"{artefact.bits} bits; fit it again with `understudy router`"
            )
        self.artefact = artefact
        self._weights: NDArray[np.float64] = np.asarray(artefact.weights, dtype=np.float64)

    @classmethod
    def load(cls, data: bytes) -> "Router":
        """From the artefact's JSON; ConfigError if it is none."""
        try:
            return cls(msgspec.json.decode(data, type=Artefact))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ConfigError(f"router: damaged artefact ({error}); fit it again") from error

    def score(self, text: str) -> float:
        """Probability in [0, 1]; features are scaled by their number's root, as in fitting."""
        found = features(text, self.artefact.bits)
        if not found:
            return 0.0
        total = float(self._weights[found].sum()) / math.sqrt(len(found)) + self.artefact.bias
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))
