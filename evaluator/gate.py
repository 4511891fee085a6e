"""The gate's verdict on a comparison, in words that a person can check. Pure.

PASS needs both: the student is shown to be at most the margin worse than the teacher, and no naive
baseline is shown to be better than the student. FAIL needs one of the opposites to be shown;
whatever was not shown is UNDERPOWERED, and an underpowered gate never passes.
"""

import math
from typing import NamedTuple

from evaluator.comparison import Comparison, Rival
from understudy.documents import Word
from understudy.statistics import (
    NonInferiority,
    agreement_verdict,
    holm,
    mcnemar,
    paired_verdict,
    required_pairs,
)


class GateVerdict(NamedTuple):
    """The word, the sentences that explain it, and what it rests on.

    `question` says precisely what was compared; `losses` names the baselines shown to be better;
    `missing` is about how many more rows would be needed, None where more rows would not help.
    """

    verdict: Word
    question: str
    reasons: list[str]
    quality: NonInferiority
    losses: list[str]
    missing: int | None


def judge(comparison: Comparison, margin: float, alpha: float) -> GateVerdict:
    """The verdict; `margin` in agreement, `alpha` one-sided."""
    n = len(comparison.judged)
    quality = _quality(comparison, n, margin, alpha)
    losses = _losses(comparison, alpha)
    word: Word = "FAIL" if losses else quality.verdict
    missing = _missing(comparison, quality, n, margin, alpha) if word == "UNDERPOWERED" else None
    reasons = [_about_quality(comparison, quality, n, margin, missing)]
    ahead = [rival for rival in comparison.rivals if rival.rival_only > rival.student_only]
    ahead.sort(key=lambda rival: -rival.score.mean)
    reasons += _about_losses([r for r in ahead if r.score.name in losses], comparison)
    reasons += [_about_luck(r, comparison) for r in ahead if r.score.name not in losses]
    question = _question(comparison, margin, alpha)
    return GateVerdict(word, question, reasons, quality, losses, missing)


def _quality(comparison: Comparison, n: int, margin: float, alpha: float) -> NonInferiority:
    effect = comparison.effect
    if not comparison.gold:
        right = round(sum(j.right for j in comparison.judged) / effect)
        wrong = round(sum(not j.right for j in comparison.judged) / effect)
        return agreement_verdict(right, right + wrong, margin, alpha)
    student_only = sum(j.right and not j.teacher_right for j in comparison.judged)
    teacher_only = sum(j.teacher_right and not j.right for j in comparison.judged)
    return paired_verdict(student_only / effect, teacher_only / effect, n / effect, margin, alpha)


def _losses(comparison: Comparison, alpha: float) -> list[str]:
    """Baselines that are significantly better: exact McNemar, Holm over all baselines."""
    effect = comparison.effect
    p_values = [
        mcnemar(int(rival.rival_only / effect), math.ceil(rival.student_only / effect))
        for rival in comparison.rivals
    ]
    pairs = zip(comparison.rivals, holm(p_values), strict=True)
    return [rival.score.name for rival, p in pairs if p <= alpha]


def _missing(
    comparison: Comparison, quality: NonInferiority, n: int, margin: float, alpha: float
) -> int | None:
    # With nothing seen the best case is the honest answer to "how many rows at least?".
    needed = quality.needed if n else required_pairs(0.0, margin, alpha)
    if needed is None:
        return None
    # At .8 power one in five such sets would still not show it: then say "some more", not "none".
    return max(math.ceil(needed * comparison.effect) - n, math.ceil(n / 10), 1)


def _question(comparison: Comparison, margin: float, alpha: float) -> str:
    sure = f"one-sided alpha {alpha:g}"
    if comparison.gold:
        return (
            f"Is the student at most {margin:.1%} worse than the teacher ({sure})? Right is the "
            f"gold answer on the {comparison.gold} rows that have one, the teacher's own answer on "
            f"the others; both are judged on the same rows (paired score test)."
        )
    return (
        f"Does the student agree with the teacher on at least {1 - margin:.1%} of requests like "
        f"these ({sure}, exact binomial test)? There is no gold answer here, so the teacher counts "
        f"as right: its own mistakes are not seen, and a better answer counts as a disagreement."
    )


def _about_quality(
    comparison: Comparison, quality: NonInferiority, n: int, margin: float, missing: int | None
) -> str:
    if n == 0:
        return f"The test set is empty; about {missing} rows are needed at the very least."
    low, high = quality.interval
    seen = f"{quality.difference:+.1%} [{low:+.1%}, {high:+.1%}] against the teacher on {n} rows"
    if quality.verdict == "PASS":
        return f"The student is shown to be at most {margin:.1%} worse: {seen}."
    if quality.verdict == "FAIL":
        return f"The student is shown to be more than {margin:.1%} worse: {seen}."
    if missing is None:
        return (
            f"Nothing is shown: {seen}. As it looks, the student is worse than the margin of "
            f"{margin:.1%}; more rows would rather fail it than pass it."
        )
    return (
        f"Nothing is shown: {seen}. About {missing} more rows are needed to show that it is at "
        f"most {margin:.1%} worse, if it is as good as it looks here."
    )


def _about_losses(losses: list[Rival], comparison: Comparison) -> list[str]:
    """One plain sentence, or none."""
    if not losses:
        return []
    first, *others = losses
    also = "".join(f", {rival.score.name} on {rival.score.mean:.1%}" for rival in others)
    return [
        f"The student loses to a naive baseline: {first.score.name} is right on "
        f"{first.score.mean:.1%} of the same rows{also}, the student on "
        f"{comparison.agreement.mean:.1%}, so it is not worth serving."
    ]


def _about_luck(rival: Rival, comparison: Comparison) -> str:
    return (
        f"{rival.score.name} is ahead ({rival.score.mean:.1%} against "
        f"{comparison.agreement.mean:.1%}), but not by more than chance allows."
    )
