"""`understudy evaluate` against a real HTTP student: verdict, report, plain sentences."""

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluator.answer import Answer
from evaluator.ask import Reply
from evaluator.baseline import Prediction
from evaluator.comparison import compare
from evaluator.dataset import Row
from evaluator.gate import judge
from evaluator.scorer import Scorer
from tests.evaluator.lake_rows import attempt, write
from tests.evaluator.stand_in import Say, student
from understudy import documents, triage
from understudy.cli import main
from understudy.lake import Lake

Run = Callable[..., dict[str, Any]]
SENTIMENT = {"good": ("lovely", "great", "fine"), "bad": ("awful", "broken", "poor")}


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Evaluate a student that answers by `say` on rows; returns what --json prints."""

    def run(say: Say, test: Sequence[dict[str, Any]], train: Sequence[dict[str, Any]] = ()) -> Any:
        dataset = tmp_path / "dataset"
        dataset.mkdir(exist_ok=True)
        for split, rows in (("test", test), ("train", train)):
            lines = (json.dumps(row) + "\n" for row in rows)
            (dataset / f"{split}.jsonl").write_text("".join(lines))
        with student(say) as url:
            words = ["--workload", "w", "--dataset", str(dataset), "--student", "s-0001"]
            words += ["--student-url", url, "--lake", str(tmp_path / "lake"), "--json"]
            assert main(["evaluate", *words, "--config", str(tmp_path / "none.yaml")]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def row(asked: str, answer: str, number: int = 0, **meta: Any) -> dict[str, Any]:
    """A row as `understudy dataset build` writes it."""
    messages = [
        {"role": "system", "content": "Judge."},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answer},
    ]
    about = {"exchange_id": f"e{number}", "group": f"g{number}", "corrected": False}
    return {"messages": messages, "meta": about | {"params": {"max_tokens": 9, "user": "u"}} | meta}


def reviews(count: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        label = rng.choice(list(SENTIMENT))
        text = f"a {rng.choice(SENTIMENT[label])} lamp number {rng.randrange(99)}"
        rows.append(row(text, label, i))
    return rows


def right(body: dict[str, Any]) -> str:
    asked = body["messages"][-1]["content"]
    return next(label for label, words in SENTIMENT.items() if any(w in asked for w in words))


def test_a_student_that_agrees_passes(evaluate: Run, tmp_path: Path) -> None:
    found = evaluate(right, reviews(200, 1), reviews(300, 2))
    assert (found["verdict"], found["agreement"], found["n"]) == ("PASS", 1, 200)
    assert found["scorer"] == "label"
    assert set(found["baselines"]) == {
        "majority", "nearest neighbour", "TF-IDF + logistic regression",
    }  # fmt: skip
    lake = Lake(tmp_path / "lake")
    (verdict,) = documents.verdicts(lake, "w")
    assert (verdict.kind, verdict.verdict, verdict.student) == ("gate", "PASS", "s-0001")
    assert documents.gate_passed(lake, "w", "s-0001")
    assert lake.path(verdict.report or "").read_text().startswith("<!doctype html>")
    facts = json.loads(lake.path(verdict.report or "").with_name("report.json").read_text())
    assert facts["verdict"] == "PASS"


def test_a_student_that_loses_to_tfidf_fails_and_is_told_so_in_one_sentence(evaluate: Run) -> None:
    def poor(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        return right(body) if hash_of(asked) > 0.3 else "bad"

    found = evaluate(poor, reviews(200, 1), reviews(300, 2))
    assert found["verdict"] == "FAIL"
    assert "TF-IDF + logistic regression" in found["loses_to"]
    (sentence,) = [r for r in found["reasons"] if "TF-IDF" in r]
    assert sentence.startswith("The student loses to a naive baseline: TF-IDF")
    assert sentence in Path(found["report"]).read_text()


def hash_of(text: str) -> float:
    return random.Random(text).random()


def test_each_row_is_asked_with_its_own_request(evaluate: Run) -> None:
    seen = []

    def listen(body: dict[str, Any]) -> str:
        seen.append(body)
        return "good"

    evaluate(listen, [row("fine", "good", tools=None)])
    assert seen == [
        {
            "model": "s-0001",
            "temperature": 0,
            "max_tokens": 9,
            "messages": [
                {"role": "system", "content": "Judge."},
                {"role": "user", "content": "fine"},
            ],
        }
    ]


def test_json_is_scored_by_field_with_its_invented_values(evaluate: Run) -> None:
    rng = random.Random(3)
    tickets = [triage.ticket(rng) for _ in range(120)]

    def inventive(body: dict[str, Any]) -> str:
        answer = triage.answer(body["messages"][-1]["content"])
        return json.dumps(answer | {"amount": answer["amount"] or 42})

    rows = [row(ticket.text, ticket.answer, i) for i, ticket in enumerate(tickets)]
    found = evaluate(inventive, rows, rows[:60])
    by_name = {field["name"]: field for field in found["fields"]}
    assert found["scorer"] == "json"
    assert by_name["intent"]["mean"] == 1
    assert by_name["intent"]["invented"] is None
    assert by_name["amount"]["invented"]["mean"] == 1
    assert found["verdict"] == "FAIL"


def test_failed_calls_count_as_wrong_and_are_listed(evaluate: Run) -> None:
    def flaky(body: dict[str, Any]) -> str | int:
        return 503 if "7" in body["messages"][-1]["content"] else right(body)

    rows = reviews(100, 4)
    sevens = [i for i, r in enumerate(rows) if "7" in r["messages"][1]["content"]]
    found = evaluate(flaky, rows)
    assert [failure["id"] for failure in found["failed"]] == [f"e{i}" for i in sevens]
    assert found["agreement"] == 1 - len(sevens) / 100
    assert found["token_f1"]["n"] == 100 - len(sevens)  # unscored is not zero
    assert "HTTP 503" in Path(found["report"]).read_text()


def test_an_empty_test_set_is_underpowered_and_says_how_many_rows_it_takes(evaluate: Run) -> None:
    found = evaluate(right, [], reviews(10, 1))
    assert (found["verdict"], found["n"], found["missing_rows"]) == ("UNDERPOWERED", 0, 149)
    assert "149 rows are needed" in found["reasons"][0]
    tiny = evaluate(right, reviews(10, 1))
    assert (tiny["verdict"], tiny["missing_rows"]) == ("UNDERPOWERED", 139)
    assert "About 139 more rows" in tiny["reasons"][0]


def test_reads_of_the_test_set_are_counted(evaluate: Run) -> None:
    for expected in (1, 2):
        assert evaluate(right, reviews(5, 1))["test_set_reads"] == {
            "times": expected,
            "students": 1,
        }


def test_a_correction_is_gold_and_the_teachers_own_answer_comes_from_the_log(
    evaluate: Run, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "lake")
    said = attempt(1000.0, "bad")
    write(lake, [said])
    rows = reviews(60, 5)
    rows[0] = row("a fine lamp", "good", 0, corrected=True, attempt_id=said["attempt_id"])
    found = evaluate(right, rows)
    assert (found["gold_rows"], found["teacher"]["mean"]) == (1, pytest.approx(59 / 60))
    assert "at most 2.0% worse than the teacher" in found["question"]
    page = Path(found["report"]).read_text()
    assert "Teacher wrong, student right" in page


def test_texts_of_strangers_stay_text_in_the_report(evaluate: Run) -> None:
    evil = "<script>alert(1)</script>"
    found = evaluate(
        lambda _: f"no {evil}", [row(f"$a$ {evil}", f"{evil} {{{{ 7 * 7 }}}}", i) for i in range(3)]
    )
    page = Path(found["report"]).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r'(src|href)="(?!#)', page)  # no external resource


def test_a_student_that_is_not_there_is_an_error_and_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(row("fine", "good")))
    (tmp_path / "train.jsonl").write_text("")
    words = ["--workload", "w", "--dataset", str(tmp_path), "--student", "s"]
    words += ["--student-url", "http://127.0.0.1:9/v1", "--lake", str(tmp_path / "lake")]
    assert main(["evaluate", *words, "--config", str(tmp_path / "none.yaml")]) == 1
    assert "is the student served there?" in capsys.readouterr().err
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("line", ["[]", "{}", "no JSON", '{"messages": []}'])
def test_a_damaged_row_is_named_with_its_line(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(row("fine", "good")) + "\n" + line)
    words = ["--workload", "w", "--dataset", str(tmp_path), "--student", "s"]
    words += ["--student-url", "http://127.0.0.1:9/v1", "--lake", str(tmp_path / "lake")]
    assert main(["evaluate", *words, "--config", str(tmp_path / "none.yaml")]) == 1
    assert "test.jsonl:2: no row" in capsys.readouterr().err


def made(right: int, wrong: int, cluster: int = 1) -> tuple[list[Row], list[Reply]]:
    """Rows in conversations of `cluster`, and a student's replies to them."""
    rows, replies = [], []
    for i in range(right + wrong):
        request = {"messages": [{"role": "user", "content": str(i)}]}
        rows.append(Row(str(i), request, Answer("yes"), None, f"c{i // cluster}"))
        replies.append(Reply(Answer("yes" if i < right else "no"), None, 1.0))
    return rows, replies


def word(right: int, wrong: int, cluster: int = 1, rival: int | None = None) -> str:
    rows, replies = made(right, wrong, cluster)
    keys = ["yes" if i < (rival or 0) else "no" for i in range(len(rows))]
    predictions = [Prediction("rival", keys)] if rival is not None else []
    compared = compare(rows, replies, Scorer("label"), predictions, 0.05, 0.05)
    return judge(compared, 0.05, 0.05).verdict


def test_the_gate_needs_both_quality_and_a_beaten_baseline() -> None:
    assert word(198, 2) == "PASS"
    assert word(150, 50) == "FAIL"
    assert word(188, 12) == "UNDERPOWERED"
    assert word(196, 4, rival=200) == "PASS"  # ahead by no more than chance
    assert word(985, 15, rival=1000) == "FAIL"  # good enough, and still beaten


def test_rows_of_one_conversation_do_not_count_as_many() -> None:
    assert word(198, 2, cluster=1) == "PASS"
    assert word(200, 0, cluster=10) == "UNDERPOWERED"
