"""The router command on shadow pairs: what it promises, refuses, and gives to the proxy."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from evaluator.routing import Example, fit, request_text
from tests.evaluator.lake_rows import STUDENT, pair, write
from understudy.cli import main
from understudy.errors import GateError
from understudy.lake import Lake
from understudy.router import Router
from understudy.state import current_router

YAML = """
teacher: {base_url: "http://localhost:1/v1"}
lake: lake
workloads:
  triage:
    student: {base_url: "http://localhost:2/v1"}
    hybrid: {target_quality: 0.95, confidence: 0.9}
"""
EASY = ("the lamp is broken", "where is my parcel", "thank you for the lamp")
HARD = ("a strange legal question", "my lawyer has a question", "some odd matter of law")


def examples(count: int, seed: int) -> list[Example]:
    """Half are hard; the student is wrong on 40 % of those and on 1 % of the others."""
    rng = random.Random(seed)
    found = []
    for i in range(count):
        hard = rng.random() < 0.5
        text = f"{rng.choice(HARD if hard else EASY)} {rng.randrange(50)}"
        found.append(Example(f"{seed}-{i}", text, rng.random() > (0.4 if hard else 0.01)))
    return found


def test_easy_requests_go_to_the_student_and_hard_ones_do_not() -> None:
    fitted = fit(examples(1200, seed=1), "triage", STUDENT, target=0.95, confidence=0.95)
    router, threshold = Router(fitted.artefact), fitted.artefact.threshold
    assert all(router.score(text) >= threshold for text in EASY)
    assert fitted.artefact.evidence["apgr"] > 0.7
    assert 0.45 < fitted.artefact.evidence["share"] < 0.8


def test_the_promised_quality_holds_on_fresh_traffic_at_the_promised_confidence() -> None:
    fresh = examples(5000, seed=999)
    broken = 0
    for seed in range(60):
        fitted = fit(examples(500, seed), "triage", STUDENT, target=0.95, confidence=0.9)
        router, threshold = Router(fitted.artefact), fitted.artefact.threshold
        wrong = sum(not e.agreed and router.score(e.text) >= threshold for e in fresh)
        broken += 1 - wrong / len(fresh) < 0.95
    assert broken / 60 <= 0.1 + 0.08  # 10 % promised; two standard errors of 60 runs are 8 %


def test_the_curve_runs_from_all_teacher_to_all_student() -> None:
    curve = fit(examples(1200, seed=2), "triage", STUDENT, target=0.95, confidence=0.95).curve
    shares = [point.share for point in curve]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert all(point.low <= point.quality <= point.high for point in curve)


def test_too_few_pairs_are_refused_with_the_number_needed() -> None:
    with pytest.raises(GateError, match=r"20 pairs, about \d+ are needed to show 95"):
        fit(examples(20, seed=3), "triage", STUDENT, target=0.95, confidence=0.95)


def test_a_student_that_never_agrees_gets_no_router() -> None:
    wrong = [example._replace(agreed=False) for example in examples(600, seed=4)]
    with pytest.raises(GateError, match="is not shown with any share"):
        fit(wrong, "triage", STUDENT, target=0.95, confidence=0.95)


def test_a_student_that_always_agrees_gets_everything() -> None:
    right = [example._replace(agreed=True) for example in examples(600, seed=5)]
    fitted = fit(right, "triage", STUDENT, target=0.95, confidence=0.95)
    assert fitted.artefact.evidence["share"] == 1
    assert fitted.artefact.evidence["apgr"] is None


def test_text_is_what_the_proxy_scores() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "constant"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": '[{"type": "text", "text": "second"}]'},
        {"role": "user", "content": "[{ no JSON"},
    ]
    assert request_text(messages) == "first\nsecond\n[{ no JSON"


def test_the_command_writes_what_proxy_and_policy_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, lake = tmp_path / "understudy.yaml", Lake(tmp_path / "lake")
    config.write_text(YAML)
    rows = [
        pair(1000 + i, student="yes" if e.agreed else "no", asked=e.text)
        for i, e in enumerate(examples(1000, seed=6))
    ]
    write(lake, itertools.chain(*rows))
    assert main(["router", "triage", "--config", str(config), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    ref = current_router(lake, "triage")
    assert ref is not None
    assert (ref.student, ref.key, ref.threshold) == (STUDENT, said["key"], said["threshold"])
    router = Router.load(lake.get(ref.key) or b"")
    assert router.score(EASY[0]) >= ref.threshold
    assert main(["router", "triage", "--config", str(config)]) == 0
    assert "of the traffic to triage-0001" in capsys.readouterr().out


def test_without_pairs_the_command_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "understudy.yaml"
    config.write_text(YAML)
    (tmp_path / "lake").mkdir()
    assert main(["router", "triage", "--config", str(config)]) == 1
    assert "no pairs yet" in capsys.readouterr().err
    assert main(["router", "nonesuch", "--config", str(config)]) == 1
    assert "it has: triage" in capsys.readouterr().err
