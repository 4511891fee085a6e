"""The anytime-valid tests keep their error rate at every look, and still see what matters soon."""

import doctest
import json

import numpy as np
import pytest
from numpy.typing import NDArray

from understudy import sequential
from understudy.documents import Word
from understudy.sequential import (
    RateTest,
    confidence_sequence,
    difference_limit,
    difference_values,
)

RUNS, LENGTH = 300, 1600
ALPHA = 0.05 + 2 * (0.05 * 0.95 / RUNS) ** 0.5  # and two standard errors of the simulation


def test_the_docstrings_examples_hold() -> None:
    result = doctest.testmod(sequential)
    assert result.attempted >= 3
    assert result.failed == 0


def share_of(word: Word, limit: float, draw: "NDArray[np.float64]") -> float:
    """Share of runs (rows) that ever proved `word`: the evidence is the highest of all looks."""
    found = [RateTest(limit, 0.05).update(row) for row in draw]
    proofs = [reading.e_pass if word == "PASS" else reading.e_fail for reading in found]
    return sum(proof >= 1 / 0.05 for proof in proofs) / len(proofs)


def pairs(
    rng: np.random.Generator, worse: float, better: float, runs: int = RUNS
) -> "NDArray[np.float64]":
    """Paired differences -1, 0, 1 as values of a RateTest."""
    u = rng.random((runs, LENGTH))
    student, teacher = (u >= worse) * 1.0, ~((u >= worse) & (u < worse + better)) * 1.0
    return difference_values(student, teacher)


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.5])
def test_at_the_limit_it_passes_or_fails_at_most_alpha_often_although_it_always_looks(
    limit: float,
) -> None:
    draw = (np.random.default_rng(1).random((RUNS, LENGTH)) < limit) * 1.0
    assert share_of("PASS", limit, draw) <= ALPHA
    assert share_of("FAIL", limit, draw) <= ALPHA


def test_paired_differences_at_the_margin_pass_at_most_alpha_often() -> None:
    draw = pairs(np.random.default_rng(2), worse=0.035, better=0.015)
    assert share_of("PASS", difference_limit(0.02), draw) <= ALPHA
    assert share_of("FAIL", difference_limit(0.02), draw) <= ALPHA


def median_until(word: Word, limit: float, draw: "NDArray[np.float64]") -> float:
    """Median number of values until the verdict, to within ten; infinite where it never comes."""
    found = []
    for row in draw:
        test = RateTest(limit, 0.05, false_alarm_every=1e15)
        ends = range(10, LENGTH + 1, 10)
        hits = (end for end in ends if test.update(row[end - 10 : end]).verdict == word)
        found.append(next(hits, float("inf")))
    return float(np.median(found))


def test_an_equal_student_passes_a_two_point_margin_within_the_measured_1526_pairs() -> None:
    draw = pairs(np.random.default_rng(3), worse=0.025, better=0.025, runs=31)
    assert median_until("PASS", difference_limit(0.02), draw) <= 1526


def test_ten_points_worse_fails_within_178_pairs_and_five_within_971() -> None:
    rng = np.random.default_rng(4)
    limit = difference_limit(0.02)
    assert median_until("FAIL", limit, pairs(rng, worse=0.125, better=0.025, runs=31)) <= 178
    assert median_until("FAIL", limit, pairs(rng, worse=0.075, better=0.025, runs=31)) <= 971


def test_without_gold_ten_points_of_disagreement_are_seen_within_a_hundred_pairs() -> None:
    draw = (np.random.default_rng(5).random((31, LENGTH)) < 0.12) * 1.0
    assert median_until("FAIL", 0.02, draw) <= 100


@pytest.mark.parametrize(("rate", "within"), [(1.0, 12), (0.3, 40), (0.15, 200)])
def test_a_change_after_a_long_good_run_is_found_as_if_it_had_not_been_there(
    rate: float, within: int
) -> None:
    rng = np.random.default_rng(6)
    delays = []
    for _ in range(15):
        test = RateTest(0.05, 0.05)
        assert test.update((rng.random(5000) < 0.02) * 1.0).verdict == "PASS"
        changed = (rng.random(2000) < rate) * 1.0
        delays.append(
            next(i for i, v in enumerate(changed, 1) if test.update([v]).verdict == "FAIL")
        )
    assert np.median(delays) <= within


def test_the_change_detector_keeps_its_average_run_length() -> None:
    # At the limit itself, one false alarm in 2,000 values on average at most: in 200 runs of 500
    # values the chance of an alarm is then at most about a quarter.
    draw = (np.random.default_rng(7).random((200, 500)) < 0.05) * 1.0
    alarms = [RateTest(0.05, 1e-12, false_alarm_every=2000).update(row).verdict for row in draw]
    assert alarms.count("FAIL") / 200 <= 500 / 2000


def test_values_in_one_batch_or_one_by_one_say_the_same() -> None:
    values = (np.random.default_rng(8).random(9000) < 0.03) * 1.0
    whole = RateTest(0.05, 0.05).update(values)
    pieces = RateTest(0.05, 0.05)
    for start in range(0, len(values), 7):
        pieces.update(values[start : start + 7])
    assert pieces.reading()[2:] == pytest.approx(whole[2:])
    assert pieces.reading()[:2] == whole[:2]


def test_a_fail_stays_and_evidence_never_becomes_infinite() -> None:
    test = RateTest(0.02, 0.05)
    test.update([1.0] * 5000)
    reading = test.update([0.0] * 5000)
    assert reading.verdict == "FAIL"
    json.dumps(reading, allow_nan=False)


def test_the_confidence_sequence_covers_at_all_times_at_once() -> None:
    rng, missed = np.random.default_rng(9), 0
    for _ in range(200):
        hits = (rng.random(600) < 0.9).cumsum()
        looks = [confidence_sequence(int(hits[n - 1]), n) for n in range(1, 600, 20)]
        missed += any(not low <= 0.9 <= high for low, high in looks)
    assert missed / 200 <= 0.05


def test_the_confidence_sequence_of_nothing_is_everything() -> None:
    assert confidence_sequence(0, 0) == (0, 1)
    assert confidence_sequence(10, 10).high == 1
    assert confidence_sequence(0, 10).low == 0
