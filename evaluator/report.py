"""The evaluation report: HTML for a person, JSON for machines, from one comparison and its verdict.

The HTML is one file without scripts or external resources. Texts of requests and answers are
escaped by the template; nothing of them is ever trusted as markup.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2

from evaluator import plot
from evaluator.answer import Answer, canonical, parsed
from evaluator.comparison import Comparison, Judged, Score
from evaluator.dataset import Reads
from evaluator.gate import GateVerdict
from evaluator.scorer import Kind
from understudy.diff import SideBySide, side_by_side

_WORST, _SHOWN_CHARACTERS, _MOST_SLICES = 30, 2000, 40


class About(NamedTuple):
    """What was judged, where it came from and under which rules."""

    workload: str
    student: str
    url: str
    dataset: str
    test: str
    margin: float
    alpha: float
    reads: Reads
    base: Score | None = None


class Disagreement(NamedTuple):
    """One row as the report shows it; `left` is the reference, `right` the student."""

    id: str
    asked: str
    sides: SideBySide
    error: str | None
    note: str


def to_json(about: About, comparison: Comparison, verdict: GateVerdict) -> dict[str, Any]:
    """Everything that the report says but the texts of the exchanges."""
    agreement = comparison.agreement
    return {
        "workload": about.workload,
        "student": about.student,
        "dataset": about.dataset,
        "test": about.test,
        "verdict": verdict.verdict,
        "question": verdict.question,
        "reasons": verdict.reasons,
        "n": agreement.n,
        "agreement": agreement.mean if agreement.n else 0.0,
        "low": agreement.low,
        "high": agreement.high,
        "margin": about.margin,
        "alpha": about.alpha,
        "p_pass": verdict.quality.p_pass,
        "p_fail": verdict.quality.p_fail,
        "missing_rows": verdict.missing,
        "scorer": comparison.kind,
        "design_effect": comparison.effect,
        "gold_rows": comparison.gold,
        "teacher": _score(comparison.teacher) if comparison.gold else None,
        "balanced_accuracy": _score(comparison.balanced),
        "token_f1": _score(comparison.soft),
        "base": _score(about.base),
        "baselines": {rival.score.name: rival.score.mean for rival in comparison.rivals},
        "rivals": [
            r.score._asdict() | {"rival_only": r.rival_only, "student_only": r.student_only}
            for r in comparison.rivals
        ],
        "loses_to": verdict.losses,
        "classes": [
            s.recall._asdict() | {"precision": _score(s.precision), "weak": s.weak}
            for s in comparison.slices
        ],
        "fields": [f.score._asdict() | {"invented": _score(f.invented)} for f in comparison.fields],
        "failed": [{"id": j.row.id, "error": j.reply.error} for j in comparison.failed],
        "latency_ms": _quantiles([j.reply.duration_ms for j in comparison.judged]),
        "test_set_reads": about.reads._asdict(),
    }


def to_html(about: About, comparison: Comparison, verdict: GateVerdict) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evaluator"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    wrong = [j for j in comparison.judged if not j.right and j.reply.answer is not None]
    wrong.sort(key=lambda j: j.soft or 0.0)
    better = [j for j in comparison.judged if j.right and not j.teacher_right]
    return environment.get_template("report.html.j2").render(
        about=about,
        c=comparison,
        v=verdict,
        at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        plots=_plots(about, comparison),
        slices=sorted(comparison.slices, key=lambda s: s.recall.mean)[:_MOST_SLICES],
        worst=[_shown(j, comparison.kind) for j in wrong[:_WORST]],
        better=[_shown(j, comparison.kind) for j in better[:_WORST]],
        wrong=len(wrong),
        latency=_quantiles([j.reply.duration_ms for j in comparison.judged]),
        family=1 - (1 - about.alpha) ** about.reads.students,
    )


def _plots(about: About, comparison: Comparison) -> dict[str, str]:
    """Inline SVG by name; empty where there is nothing to draw."""
    if not comparison.judged:
        return {}
    rivals = [rival.score for rival in comparison.rivals]
    others = [score for score in (about.base, comparison.balanced) if score]
    teacher = [comparison.teacher] if comparison.gold else []
    answered = [j for j in comparison.judged if j.reply.answer is not None]
    lengths = {
        "student": [float(len(j.reply.answer.shown())) for j in answered if j.reply.answer],
        "reference": [float(len(j.row.reference.shown())) for j in answered],
    }
    drawn = {
        "scores": plot.intervals(
            [comparison.agreement, *teacher, *rivals, *others],
            "Scores with 95 % intervals",
            1,
            None if comparison.gold else 1 - about.margin,
        ),
        "latency": plot.distributions(
            {"student": [j.reply.duration_ms for j in answered]}, "Time to answer", "milliseconds"
        ),
        "length": plot.distributions(lengths, "Length of the answers", "characters"),
    }
    if comparison.fields:
        scores = [field.score for field in comparison.fields]
        drawn["fields"] = plot.intervals(scores, "Fields", len(scores))
    if comparison.slices:
        lowest = sorted((s.recall for s in comparison.slices), key=lambda score: score.mean)[:15]
        drawn["classes"] = plot.intervals(lowest, "Recall of the weakest classes", len(lowest))
    return drawn


def _shown(judged: Judged, kind: Kind) -> Disagreement:
    row, answer = judged.row, judged.reply.answer
    reference = row.teacher if judged.right else row.reference  # right: here the teacher was wrong
    sides = side_by_side(_laid_out(reference, kind), _laid_out(answer or Answer(""), kind))
    note = "gold answer" if row.gold else ""
    return Disagreement(row.id, row.text[-_SHOWN_CHARACTERS:], sides, judged.reply.error, note)


def _laid_out(answer: Answer, kind: Kind) -> str:
    """As it is compared: an object by sorted fields, a line each, so that only content differs."""
    value = parsed(answer.text) if kind == "json" and not answer.calls else NotImplemented
    if not isinstance(value, dict):
        return answer.shown()
    return "\n".join(f"{name}: {canonical(value[name])}" for name in sorted(value))


def _score(score: Score | None) -> dict[str, Any] | None:
    return score._asdict() if score else None


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median, p95 and p99; nothing for fewer than two values."""
    if len(values) < 2:
        return {}
    cut = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cut[49], "p95": cut[94], "p99": cut[98]}
