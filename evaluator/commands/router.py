"""`understudy router WORKLOAD`: fit the hybrid router on a student's shadow pairs.

Writes `control/routers/<workload>/<sha>.json` and points `current.json` at it; the controller, the
proxy and everybody who compiles the policy finds it there. Refuses where pairs do not suffice.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from evaluator.routing import CurvePoint, Example, Fitted

_LATEST = """
SELECT student FROM pairs WHERE workload = $workload AND student IS NOT NULL
ORDER BY requested_at DESC LIMIT 1
"""
_PAIRS = """
SELECT exchange_id, messages, teacher_choices[1], student_choices[1]
FROM pairs
WHERE workload = $workload AND student = $student AND student_role IN ('shadow', 'holdout')
  AND router_score IS NULL
ORDER BY requested_at DESC, exchange_id LIMIT 50_000
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy router`."""
    parser.add_argument("workload", help="the workload to route")
    parser.add_argument("--student", help="served name (default: the one with the newest pair)")
    parser.add_argument("--lake", type=Path, help="the lake (default: the file's)")


def run(args: argparse.Namespace) -> int:
    """Fit, write, print the curve."""
    import msgspec

    from evaluator.routing import fit
    from understudy.config import load
    from understudy.errors import ConfigError, GateError
    from understudy.lake import Lake
    from understudy.state import RouterRef
    from understudy.views import connect

    config = load(args.config)
    if args.workload not in config.workloads:
        known = ", ".join(config.workloads) or "none"
        raise ConfigError(f"no workload {args.workload!r} in {args.config}; it has: {known}")
    workload, lake = config.workloads[args.workload], Lake(args.lake or config.lake)
    with connect(lake) as views:
        student = args.student or _latest(views, args.workload)
        if student is None:
            raise GateError(
                f"router of {args.workload}: no pairs yet; put it into mode shadow and wait"
            )
        examples = _examples(views, args.workload, student, workload.gate.scorer)
    hybrid = workload.hybrid
    fitted = fit(examples, args.workload, student, hybrid.target_quality, hybrid.confidence)
    data = msgspec.json.encode(fitted.artefact)
    key = f"control/routers/{args.workload}/{hashlib.sha256(data).hexdigest()[:16]}.json"
    lake.put_if_absent(key, data)
    ref = RouterRef(key=key, threshold=fitted.artefact.threshold, student=student)
    lake.put(f"control/routers/{args.workload}/current.json", msgspec.json.encode(ref))
    evidence = fitted.artefact.evidence | {"student": student, "key": key}
    evidence |= {"threshold": ref.threshold}
    sys.stdout.write(
        msgspec.json.encode(evidence).decode() + "\n" if args.json else _as_table(fitted, key)
    )
    return 0


def _latest(views: "duckdb.DuckDBPyConnection", workload: str) -> str | None:
    rows = views.execute(_LATEST, {"workload": workload}).fetchall()
    return str(rows[0][0]) if rows else None


def _examples(
    views: "duckdb.DuckDBPyConnection", workload: str, student: str, scorer: str
) -> "list[Example]":
    from evaluator.answer import from_choice
    from evaluator.pairs import same
    from evaluator.routing import Example, request_text

    rows = views.execute(_PAIRS, {"workload": workload, "student": student}).fetchall()
    return [
        Example(exchange_id, request_text(messages or []), same(scorer, *map(from_choice, both)))
        for exchange_id, messages, *both in rows
    ]


def _as_table(fitted: "Fitted", key: str) -> str:
    artefact, evidence = fitted.artefact, fitted.artefact.evidence
    step = max(1, len(fitted.curve) // 12)
    shown = [p for i, p in enumerate(fitted.curve) if i % step == 0 or p is fitted.curve[-1]]
    lines = ["  to the student   quality of all traffic", *map(_line, shown)]
    apgr = evidence["apgr"]
    return "\n".join(
        [
            *lines,
            "",
            f"{artefact.workload}: {evidence['share']:.1%} of the traffic to {artefact.student} at "
            f"threshold {artefact.threshold:.3f}",
            f"  quality {evidence['quality']:.1%} [{evidence['low']:.1%}, {evidence['high']:.1%}], "
            f"shown to be at least {evidence['target_quality']:.1%} with confidence "
            f"{evidence['confidence']:.0%} on {evidence['calibrated_on']} pairs",
            f"  the student alone: {evidence['student_alone']:.1%}"
            + (f"; gap recovered on average: {apgr:.0%}" if apgr is not None else ""),
            f"  {key}",
            "",
        ]
    )


def _line(p: "CurvePoint") -> str:
    return f"  {p.share:>14.1%}   {p.quality:.1%} [{p.low:.1%}, {p.high:.1%}]"
