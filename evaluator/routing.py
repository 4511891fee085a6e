"""Fit and calibrate the hybrid router on a student's pairs. Pure; the command reads and writes.

Half of the pairs fit the score: a logistic regression on `understudy.router.features`, the target
being that student and teacher agreed. The other half, which the fit has not seen, calibrates the
threshold. What is promised is the quality of all the traffic, where the teacher's share counts as
right: P(the student is asked and disagrees) <= 1 - target, at the given confidence.

The threshold is found by fixed-sequence testing from the strictest candidate to the laxest, each
with an exact binomial test, ending at the first that is not shown: no correction for the number of
candidates is needed, because the order and the candidates do not depend on the calibrating half
(Angelopoulos, Bates, Candes, Jordan & Lei, Learn then Test, Ann. Appl. Stat. 19, 2025).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from evaluator.answer import parsed
from understudy.errors import GateError
from understudy.router import Artefact, Router, features, scored_text
from understudy.statistics import binomial_tail, wilson

BITS = 12  # 4,096 weights: 80 KB of JSON; shadow pairs are hundreds to thousands
_CANDIDATES = 60


class Example(NamedTuple):
    """One pair: the request's text, and whether the student agreed with the teacher."""

    id: str
    text: str
    agreed: bool


class CurvePoint(NamedTuple):
    """At a threshold: the student's share, and the quality of all traffic with its interval.

    `shown`: whether the target is shown to be kept at this threshold.
    """

    threshold: float
    share: float
    quality: float
    low: float
    high: float
    shown: bool


class Fitted(NamedTuple):
    """The artefact for the lake, and the curve that led to its threshold (strictest first)."""

    artefact: Artefact
    curve: list[CurvePoint]


def fit(
    examples: Sequence[Example], workload: str, student: str, target: float, confidence: float
) -> Fitted:
    """The router; GateError where there are too few pairs, or nothing may go to the student."""
    fitting = [e for e in examples if _half(e.id) == 0]
    held = [e for e in examples if _half(e.id) == 1]
    _require(len(held), len(examples), workload, target, confidence)
    artefact = _regression(fitting, workload, student)
    router = Router(artefact)
    # From the fitting half: candidates must not depend on what judges them.
    candidates = _candidates([router.score(e.text) for e in fitting])
    scores = np.array([router.score(e.text) for e in held])
    agreed = np.array([e.agreed for e in held], dtype=bool)
    curve = _curve(candidates, scores, agreed, target, confidence)
    chosen = _laxest_shown(curve)
    if chosen is None or chosen.share == 0:
        raise GateError(
            f"router of {workload}: quality {target:.1%} is not shown with any share for {student} "
            f"({agreed.mean():.1%} of {len(held)} calibration pairs agree); train it better, or "
            "lower hybrid.target_quality"
        )
    evidence = _evidence(chosen, curve, scores, agreed, len(fitting), target, confidence)
    final = Artefact(
        bits=artefact.bits,
        bias=artefact.bias,
        weights=artefact.weights,
        student=student,
        workload=workload,
        threshold=chosen.threshold,
        evidence=evidence,
    )
    return Fitted(final, curve)


def request_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the proxy scores, from the lake, where content of several parts is its JSON."""
    return scored_text({**m, "content": _parts(m["content"] or "")} for m in messages)


def _parts(content: str) -> Any:
    value = parsed(content) if content.startswith("[{") else None
    return value if isinstance(value, list) else content


def _half(identity: str) -> int:
    """By a hash of the exchange: the same pair is on the same side in every fit."""
    return hashlib.sha256(identity.encode()).digest()[0] & 1


def _require(held: int, total: int, workload: str, target: float, confidence: float) -> None:
    needed = math.ceil(math.log(1 - confidence) / math.log(target)) if target < 1 else None
    if needed is None:
        raise GateError(f"router of {workload}: no number of pairs shows a quality of 100%")
    if held < needed:
        raise GateError(
            f"router of {workload}: {total} pairs, about {2 * needed} are needed to show "
            f"{target:.1%} with confidence {confidence:.0%}; shadow more traffic first, or lower "
            "hybrid.target_quality"
        )


def _regression(examples: Sequence[Example], workload: str, student: str) -> Artefact:
    agreed = [example.agreed for example in examples]
    if len(set(agreed)) < 2:  # nothing to tell apart: one score for all
        weights, bias = np.zeros(1 << BITS), (10.0 if all(agreed) else -10.0)
    else:
        model = LogisticRegression(C=10, solver="liblinear")
        model.fit(_matrix([example.text for example in examples]), agreed)
        weights, bias = model.coef_[0], float(model.intercept_[0])
    rounded = [round(float(weight), 5) for weight in weights]  # 80 KB instead of 90, same scores
    return Artefact(
        bits=BITS, bias=bias, weights=rounded, student=student, workload=workload, threshold=1.0
    )


def _matrix(texts: Sequence[str]) -> csr_matrix:
    """Hashed features, scaled by the root of their number as `Router.score` does."""
    rows = [features(text, BITS) for text in texts]
    data = np.concatenate([np.full(len(r), 1 / math.sqrt(len(r) or 1)) for r in rows])
    indices = np.concatenate([np.array(r, dtype=np.int32) for r in rows])
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return csr_matrix((data, indices, starts), shape=(len(rows), 1 << BITS))


def _candidates(scores: Sequence[float]) -> list[float]:
    """Thresholds from strict to lax, at even shares of the fitting half; the last takes all."""
    quantiles = np.quantile(scores, np.linspace(1, 0, _CANDIDATES))
    return [*dict.fromkeys(float(q) for q in quantiles[1:]), 0.0]


def _curve(
    candidates: Sequence[float],
    scores: NDArray[np.float64],
    agreed: NDArray[np.bool_],
    target: float,
    confidence: float,
) -> list[CurvePoint]:
    points, n = [], len(scores)
    for threshold in candidates:
        asked = scores >= threshold
        good = n - int((asked & ~agreed).sum())
        shown = binomial_tail(good, n, target) <= 1 - confidence
        points.append(CurvePoint(threshold, float(asked.mean()), good / n, *wilson(good, n), shown))
    return points


def _laxest_shown(curve: Sequence[CurvePoint]) -> CurvePoint | None:
    chosen = None
    for point in curve:
        if not point.shown:
            return chosen
        chosen = point
    return chosen


def _evidence(
    chosen: CurvePoint,
    curve: Sequence[CurvePoint],
    scores: NDArray[np.float64],
    agreed: NDArray[np.bool_],
    fitted: int,
    target: float,
    confidence: float,
) -> dict[str, Any]:
    served = agreed[scores >= chosen.threshold]
    return {
        "target_quality": target,
        "confidence": confidence,
        "share": chosen.share,
        "quality": chosen.quality,
        "low": chosen.low,
        "high": chosen.high,
        "served_agreement": float(served.mean()),
        "student_alone": float(agreed.mean()),
        "apgr": _apgr(curve, float(agreed.mean())),
        "fitted_on": fitted,
        "calibrated_on": len(scores),
        "curve": [point._asdict() for point in curve],
    }


def _apgr(curve: Sequence[CurvePoint], alone: float) -> float | None:
    """Average performance gap recovered (Ong et al., RouteLLM, 2024): mean over the teacher's share

    of how much of the gap between student and teacher is closed; .5 is a router that knows nothing.
    None where the student alone leaves no gap.
    """
    if alone >= 1:
        return None
    points = sorted({(1 - p.share, (p.quality - alone) / (1 - alone)) for p in curve} | {(1, 1.0)})
    x, y = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if x[-1] > x[0] else None
