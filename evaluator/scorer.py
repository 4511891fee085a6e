"""Whether two answers say the same, by a key: answers with equal keys agree.

A key makes agreement transitive, lets baselines predict it as a class, and is the same offline
(evaluate) and online (monitor, router). Tool calls compare by name and canonical arguments whatever
the kind; where a tool is called the text beside it does not count. Nothing here judges meaning.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from evaluator.answer import Answer, canonical, parsed

Kind = Literal["exact", "label", "json"]

ABSENT = "(absent)"
_NO_JSON = "no JSON: "
_LABEL_CHARACTERS, _MOST_LABELS = 80, 1000


class Scorer(NamedTuple):
    """`label` compares stripped texts, `json` canonical objects, `exact` texts but for spaces."""

    kind: Kind

    def key(self, answer: Answer) -> str:
        """What has to be equal for two answers to agree."""
        if answer.calls:
            return "calls " + canonical([list(call) for call in answer.calls])
        if self.kind == "json":
            value = parsed(answer.text)
            return _NO_JSON + answer.text if value is NotImplemented else canonical(value)
        return answer.text.strip() if self.kind == "label" else " ".join(answer.text.split())

    def agree(self, reference: Answer, candidate: Answer) -> bool:
        """Whether the candidate says what the reference says."""
        return self.key(reference) == self.key(candidate)


def choose(wanted: str, answers: Sequence[Answer]) -> Scorer:
    """The scorer that was asked for; for `auto` the one that the teacher's answers look like."""
    if wanted in ("exact", "label", "json"):
        return Scorer(wanted)  # type: ignore[arg-type]  # narrowed by the line above
    texts = [answer.text for answer in answers if not answer.calls]
    objects = sum(isinstance(parsed(text), dict) for text in texts)
    if texts and objects >= 0.9 * len(texts):
        return Scorer("json")
    return Scorer("label" if _look_like_labels(texts) else "exact")


def _look_like_labels(texts: Sequence[str]) -> bool:
    distinct = {text.strip() for text in texts}
    short = all(len(text) <= _LABEL_CHARACTERS and "\n" not in text for text in distinct)
    return bool(texts) and short and len(distinct) <= min(_MOST_LABELS, max(10, len(texts) // 5))


def fields(key: str) -> dict[str, str]:
    """The top-level fields of a JSON key with canonical values; empty where it is no object."""
    value = NotImplemented if key.startswith((_NO_JSON, "calls ")) else parsed(key)
    if not isinstance(value, dict):
        return {}
    return {str(name): canonical(inner) for name, inner in value.items()}


def composed(values: Mapping[str, str]) -> str:
    """The key of an object from its fields' canonical values, leaving out what is absent."""
    present: dict[str, Any] = {n: parsed(v) for n, v in values.items() if v != ABSENT}
    return canonical(present)


def token_f1(reference: str, candidate: str) -> float:
    """Harmonic mean of precision and recall over words, as SQuAD scores; 1 for two empty texts.

    >>> token_f1("the red lamp", "a red lamp")
    0.6666666666666666
    """
    one, other = (Counter(re.findall(r"\w+", t.casefold())) for t in (reference, candidate))
    if not one and not other:
        return float(reference.strip() == candidate.strip())
    shared = (one & other).total()
    return 2 * shared / (one.total() + other.total())
