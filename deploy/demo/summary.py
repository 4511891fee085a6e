"""The demo's last page: what happened, in figures that a stranger understands."""

from deploy.demo.stage import WORKLOAD, Stage
from deploy.demo.story import STUDENT, Facts

_QUERIES = (
    "select arm, role, count(*), round(avg(duration_ms), 1) ms from exchanges group by all",
    "select teacher_text, student_text from pairs where teacher_text <> student_text limit 5",
    "select action, student, reason from rollouts order by n",
)


def summary(stage: Stage, facts: Facts, seconds: float) -> str:
    """The summary as plain text."""
    audit, verdict, spent = facts.audit, facts.evaluation, facts.saved
    moved = [f"{mode} {share:.0%} of {n:,}" for mode, n, share in facts.shares]
    walk = [f"{name} {took:.0f} s" for name, took in facts.walk]
    pairs = facts.shadow["pairs"]
    rows = (
        ("Records", f"{audit['offered']:,} requests offered, {audit['stored']:,} answers stored, "
         f"{audit['lost']} lost; {facts.failed_calls} calls failed"),
        ("Teacher's words", f"{facts.requests:,} answers word for word the teacher's, "
         f"{facts.streams:,} of them streams"),
        ("Student", f"{STUDENT}, trained on {facts.dataset['rows']['train']:,} logged answers"),
        ("Against the teacher", f"agreement {_percent(verdict)} on {verdict['n']:,} held-out "
         f"tickets: {verdict['verdict']}"),
        ("Naive baselines", _baselines(verdict)),
        ("In shadow", f"{facts.shadow['agreed'] / max(1, pairs):.1%} of {pairs:,} pairs agreed"),
        ("Steps", ", ".join(walk)),
        ("Student's share", "; ".join(moved)),
        ("Cost", f"${spent[0]:.4f} instead of ${spent[1]:.4f} for the same traffic"),
        ("Broken student", f"taken off after {facts.rollback['seconds']:.0f} s: "
         f"{facts.rollback['reason']}"),
        ("Time", f"{seconds / 60:.1f} minutes"),
    )  # fmt: skip
    lines = [f"  {name:<20}{text}" for name, text in rows]
    return "\n".join(["", "What happened", *lines, "", *_places(stage, facts), ""])


def _percent(verdict: dict[str, float]) -> str:
    return f"{verdict['agreement']:.1%} [{verdict['low']:.1%}, {verdict['high']:.1%}]"


def _baselines(verdict: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{name} {value:.1%}" for name, value in verdict["baselines"].items())


def _places(stage: Stage, facts: Facts) -> list[str]:
    config = stage.config
    return [
        "Where to look",
        f"  report    {facts.evaluation['report']}",
        f"  lake      {stage.lake.root}",
        f"  console   understudy console --config {config}",
        f"  again     understudy dataset build --workload {WORKLOAD} --config {config}",
        "",
        "Ask the log",
        *(f'  understudy sql --config {config} "{query}"' for query in _QUERIES),
    ]
