"""Student, teacher and baselines on the same held-out rows, counted. Pure: no network, no lake.

`compare` turns rows, replies and predictions into scores, each with its interval. What is not
scored (token F1 of a failed call, precision of a class that was never said) is absent, never 0; a
call that failed is a wrong answer. Rows of one conversation are not independent: where they occur,
n is divided by their design effect before an interval or a verdict is made.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluator.ask import Reply
from evaluator.baseline import Prediction
from evaluator.dataset import Row
from evaluator.scorer import Kind, Scorer, fields, token_f1
from understudy.statistics import (
    binomial_tail,
    cluster_bootstrap,
    design_effect,
    holm,
    wilson,
)

_EMPTY = (None, "null")


class Score(NamedTuple):
    """A mean in [0, 1] over `n` rows, with its 95 % interval."""

    name: str
    mean: float
    low: float
    high: float
    n: int


class Rival(NamedTuple):
    """A baseline's score, and the rows on which only one of the two was right."""

    score: Score
    rival_only: int
    student_only: int


class Slice(NamedTuple):
    """A class of answers: the student's recall on it, and how often it is right to say it.

    `weak`: below the margin after Holm's correction over all classes.
    """

    name: str
    recall: Score
    precision: Score | None
    weak: bool


class Field(NamedTuple):
    """A field of a JSON answer; `invented`: a value where the reference has null or nothing."""

    score: Score
    invented: Score | None


class Judged(NamedTuple):
    """One row with what was said and how it counts. `soft` is absent where no answer came."""

    row: Row
    reply: Reply
    right: bool
    teacher_right: bool
    soft: float | None


class Comparison(NamedTuple):
    """Everything that was counted; `effect` is the rows' design effect (1: independent)."""

    kind: Kind
    judged: list[Judged]
    effect: float
    agreement: Score
    teacher: Score
    balanced: Score | None
    soft: Score | None
    rivals: list[Rival]
    slices: list[Slice]
    fields: list[Field]

    @property
    def gold(self) -> int:
        """Rows with a gold answer."""
        return sum(j.row.gold is not None for j in self.judged)

    @property
    def failed(self) -> list[Judged]:
        """Rows on which the student gave no answer."""
        return [j for j in self.judged if j.reply.answer is None]


def compare(
    rows: Sequence[Row],
    replies: Sequence[Reply],
    scorer: Scorer,
    predictions: Sequence[Prediction],
    margin: float,
    alpha: float,
) -> Comparison:
    """Count. `replies` and each prediction's keys are in the order of `rows`."""
    judged = [_judge(row, reply, scorer) for row, reply in zip(rows, replies, strict=True)]
    references = [scorer.key(row.reference) for row in rows]
    said = [None if r.answer is None else scorer.key(r.answer) for r in replies]
    right = np.array([j.right for j in judged], dtype=bool)
    clusters = [row.cluster for row in rows]
    effect = design_effect(right, clusters)
    slices = _slices(references, said, margin, alpha) if scorer.kind == "label" else []
    return Comparison(
        kind=scorer.kind,
        judged=judged,
        effect=effect,
        agreement=_score("student", right, effect),
        teacher=_score("teacher", np.array([j.teacher_right for j in judged], dtype=bool), effect),
        balanced=_balanced(slices),
        soft=_soft(judged),
        rivals=[_rival(p, references, right, effect) for p in predictions],
        slices=slices,
        fields=_fields(references, said, effect) if scorer.kind == "json" else [],
    )


def _judge(row: Row, reply: Reply, scorer: Scorer) -> Judged:
    if reply.answer is None:
        return Judged(row, reply, False, scorer.agree(row.reference, row.teacher), None)
    return Judged(
        row,
        reply,
        right=scorer.agree(row.reference, reply.answer),
        teacher_right=scorer.agree(row.reference, row.teacher),
        soft=token_f1(row.reference.shown(), reply.answer.shown()),
    )


def _score(name: str, right: NDArray[np.bool_], effect: float = 1.0) -> Score:
    n = len(right)
    interval = wilson(float(right.sum()) / effect, n / effect)
    return Score(name, float(right.mean()) if n else math.nan, *interval, n)


def _rival(
    prediction: Prediction, references: list[str], right: NDArray[np.bool_], effect: float
) -> Rival:
    pairs = zip(prediction.keys, references, strict=True)
    theirs = np.array([key == reference for key, reference in pairs], dtype=bool)
    score = _score(prediction.name, theirs, effect)
    return Rival(score, int((theirs & ~right).sum()), int((right & ~theirs).sum()))


def _soft(judged: Sequence[Judged]) -> Score | None:
    scored = [j for j in judged if j.soft is not None]
    if not scored:
        return None
    values = np.array([j.soft for j in scored], dtype=np.float64)
    low, high = cluster_bootstrap(values, [j.row.cluster for j in scored])
    if low == high:  # nothing varies, which does not mean that nothing could
        low, high = wilson(float(values.sum()), len(values))
    return Score("token F1", float(values.mean()), low, high, len(scored))


def _slices(
    references: list[str], said: list[str | None], margin: float, alpha: float
) -> list[Slice]:
    truth, answers = np.array(references, dtype=object), np.array(said, dtype=object)
    names = sorted(set(references))
    hits = [int(((truth == name) & (answers == name)).sum()) for name in names]
    sizes = [int((truth == name).sum()) for name in names]
    p_values = [binomial_tail(n - hit, n, margin) for hit, n in zip(hits, sizes, strict=True)]
    weak = [p <= alpha for p in holm(p_values)]
    found = []
    for name, poor in zip(names, weak, strict=True):
        spoken = truth[answers == name] == name
        precision = _score(name, spoken.astype(bool)) if len(spoken) else None
        recall = _score(name, (answers[truth == name] == name).astype(bool))
        found.append(Slice(name, recall, precision, poor))
    return found


def _balanced(slices: Sequence[Slice]) -> Score | None:
    """Mean recall over classes: what accuracy would be if all classes were equally frequent."""
    if len(slices) < 2:
        return None
    mean = sum(s.recall.mean for s in slices) / len(slices)
    # Recall shrunk as Agresti and Coull do, or a class that is all right would have no variance.
    shrunk = [(s.recall.mean * s.recall.n + 2) / (s.recall.n + 4) for s in slices]
    sizes = [s.recall.n + 4 for s in slices]
    variance = sum(p * (1 - p) / n for p, n in zip(shrunk, sizes, strict=True)) / len(slices) ** 2
    half = 1.96 * math.sqrt(variance)
    n = sum(s.recall.n for s in slices)
    return Score("balanced accuracy", mean, max(0.0, mean - half), min(1.0, mean + half), n)


def _fields(references: list[str], said: list[str | None], effect: float) -> list[Field]:
    pairs = [(fields(r), fields(s or "")) for r, s in zip(references, said, strict=True)]
    names = sorted({name for reference, _ in pairs for name in reference})
    return [_field(name, pairs, effect) for name in names]


def _field(name: str, pairs: list[tuple[dict[str, str], dict[str, str]]], effect: float) -> Field:
    objects = [(reference.get(name), said.get(name)) for reference, said in pairs if reference]
    equal = np.array([reference == said for reference, said in objects], dtype=bool)
    empty = [said not in _EMPTY for reference, said in objects if reference in _EMPTY]
    invented = _score(name, np.array(empty, dtype=bool), effect) if empty else None
    return Field(_score(name, equal, effect), invented)
