"""One evaluation from beginning to end: read, ask, learn baselines, compare, judge, write down.

The report lies in `reports/<workload>/<student>-<time>/`, the verdict (kind gate) beside the other
control documents. The verdict is written last: where there is one, there is its report.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from evaluator import report
from evaluator.answer import from_choice
from evaluator.ask import Endpoint, Reply, ask_all
from evaluator.baseline import Prediction, Texts, predict_all
from evaluator.comparison import Comparison, Score, compare
from evaluator.dataset import UNKNOWN, Row, count_read, load
from evaluator.gate import GateVerdict, judge
from evaluator.progress import Progress
from evaluator.scorer import Scorer, choose
from understudy.config import Gate
from understudy.documents import Verdict, write_verdict
from understudy.lake import Lake
from understudy.views import connect


class Task(NamedTuple):
    """What to evaluate: the rows of `test`; the baselines learn from `dataset`'s train split.

    `base_model` is the untrained base's served name, if it is to be asked.
    """

    workload: str
    dataset: Path
    test: Path
    endpoint: Endpoint
    gate: Gate
    base_model: str | None = None


class Outcome(NamedTuple):
    """What came out, and where the report lies."""

    about: report.About
    comparison: Comparison
    verdict: GateVerdict
    html: Path


def evaluate(task: Task, lake: Lake, say: Callable[[str], None]) -> Outcome:
    """Run it; `say` gets a line for each stage. Errors of data and network leave as they are."""
    rows = _with_teacher(load(task.test), lake)
    train = load(task.dataset / "train.jsonl")
    scorer = choose(task.gate.scorer, [row.reference for row in [*train, *rows]])
    say(f"{len(rows)} held-out rows, compared as {scorer.kind}")
    replies = _ask(task.endpoint, rows)
    base = _base(task, rows, scorer)
    say("naive baselines learn from the training rows")
    predictions = _baselines(train, rows, scorer, say)
    margin, alpha = task.gate.margin, task.gate.alpha
    comparison = compare(rows, replies, scorer, predictions, margin, alpha)
    verdict = judge(comparison, margin, alpha)
    about = report.About(
        workload=task.workload,
        student=task.endpoint.model,
        url=task.endpoint.base_url,
        dataset=str(task.dataset),
        test=str(task.test),
        margin=margin,
        alpha=alpha,
        reads=count_read(task.dataset, task.test, task.endpoint.model),
        base=base,
    )
    return Outcome(about, comparison, verdict, _write(lake, about, comparison, verdict))


def _ask(endpoint: Endpoint, rows: list[Row]) -> list[Reply]:
    return ask_all(endpoint, rows, Progress(f"asking {endpoint.model}", len(rows)).step)


def _base(task: Task, rows: list[Row], scorer: Scorer) -> Score | None:
    if not task.base_model or not rows:
        return None
    replies = _ask(task.endpoint._replace(model=task.base_model), rows)
    found = compare(rows, replies, scorer, [], task.gate.margin, task.gate.alpha)
    return found.agreement._replace(name=f"untrained base {task.base_model}")


def _baselines(
    train: list[Row], rows: list[Row], scorer: Scorer, say: Callable[[str], None]
) -> list[Prediction]:
    known = Texts([row.text for row in train], [scorer.key(row.reference) for row in train])
    texts = [row.text for row in rows]
    return predict_all(known, texts, scorer.kind, lambda name: say(f"  {name}"))


_SAID = "SELECT attempt_id, choices[1] FROM exchanges WHERE list_contains($wanted, attempt_id)"


def _with_teacher(rows: list[Row], lake: Lake) -> list[Row]:
    """Corrected rows keep the correction only: what the teacher said is still in the log."""
    wanted = [row.attempt_id for row in rows if row.teacher is UNKNOWN and row.attempt_id]
    if not wanted or not lake.root.is_dir():
        return rows
    with connect(lake) as views:
        said = dict(views.execute(_SAID, {"wanted": wanted}).fetchall())
    return [
        row._replace(teacher=from_choice(said[row.attempt_id])) if row.attempt_id in said else row
        for row in rows
    ]


def _write(lake: Lake, about: report.About, comparison: Comparison, verdict: GateVerdict) -> Path:
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = f"reports/{about.workload}/{about.student}-{at}"
    facts = report.to_json(about, comparison, verdict)
    lake.put(f"{folder}/report.html", report.to_html(about, comparison, verdict).encode())
    lake.put(f"{folder}/report.json", msgspec.json.format(msgspec.json.encode(facts)))
    write_verdict(
        lake,
        Verdict(
            workload=about.workload,
            student=about.student,
            kind="gate",
            signal="agreement",
            verdict=verdict.verdict,
            evidence=_evidence(facts),
            report=f"{folder}/report.html",
        ),
    )
    return lake.path(f"{folder}/report.html")


_EVIDENCE = (
    *("n", "agreement", "low", "high", "margin", "alpha", "p_pass", "p_fail", "missing_rows"),
    *("scorer", "gold_rows", "baselines", "loses_to", "reasons", "dataset", "test_set_reads"),
)


def _evidence(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in _EVIDENCE} | {"failed": len(facts["failed"])}
