"""Fixed-sample statistics against published figures, and their promises by simulation."""

import doctest
import math

import numpy as np
import pytest

from understudy import statistics
from understudy.statistics import (
    agreement_verdict,
    binomial_tail,
    cluster_bootstrap,
    design_effect,
    holm,
    mcnemar,
    paired_interval,
    paired_verdict,
    required_pairs,
    wilson,
)


def test_the_docstrings_examples_hold() -> None:
    result = doctest.testmod(statistics)
    assert result.attempted >= 8
    assert result.failed == 0


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_table(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    # Bentur et al. 2009 as in Fagerland, Lydersen & Laake 2013: exact two-sided p = .070.
    assert 2 * mcnemar(7, 1) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(0, 0) == 1


def test_tango_gives_the_published_interval() -> None:
    # The same table in Fagerland, Lydersen & Laake 2014: -.517 to -.026.
    assert paired_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert paired_interval(7, 1, 21) == pytest.approx((0.026, 0.517), abs=5e-4)


def test_binomial_tail_equals_the_sum_of_its_terms() -> None:
    for n, p in ((10, 0.3), (57, 0.98)):
        for k in range(n + 2):
            exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
            assert binomial_tail(k, n, p) == pytest.approx(exact, abs=1e-12)


def test_holm_is_uniformly_better_than_bonferroni_and_keeps_the_order() -> None:
    p_values = [0.001, 0.02, 0.04, 0.5]
    adjusted = holm(p_values)
    assert adjusted == pytest.approx([0.004, 0.06, 0.08, 0.5])
    assert all(a <= 4 * p for a, p in zip(adjusted, p_values, strict=True))
    assert holm([]) == []


def test_required_pairs_are_those_of_the_literature() -> None:
    # Discordance 5 % and 8 %, one-sided alpha .05, power .8; margins 1, 2, 3 points.
    assert [required_pairs(0.05, m) for m in (0.01, 0.02, 0.03)] == [3092, 773, 344]
    assert [required_pairs(0.08, m) for m in (0.01, 0.02, 0.03)] == [4947, 1237, 550]
    assert required_pairs(0.05, 0.02, difference=-0.02) is None


def test_a_gate_on_200_items_cannot_be_passed_by_a_student_that_is_seven_percent_worse() -> None:
    rng = np.random.default_rng(7)
    agreed = rng.binomial(200, 0.93, 2000)
    passed = sum(agreement_verdict(int(k), 200, 0.05, 0.05).verdict == "PASS" for k in agreed)
    assert passed / 2000 < 0.01  # "at most 5 % worse" as a bare comparison passes 17 % of them


@pytest.mark.parametrize("n", [30, 150, 800])
def test_a_student_at_the_margin_passes_and_fails_at_most_alpha_often(n: int) -> None:
    rng = np.random.default_rng(n)
    words = [agreement_verdict(int(k), n, 0.05, 0.05).verdict for k in rng.binomial(n, 0.95, 3000)]
    assert words.count("PASS") / 3000 <= 0.05 + 0.01
    assert words.count("FAIL") / 3000 <= 0.05 + 0.01


@pytest.mark.parametrize("discordance", [0.04, 0.10, 0.20])
def test_a_paired_student_at_the_margin_passes_at_most_alpha_often(discordance: float) -> None:
    rng = np.random.default_rng(11)
    margin, n = 0.03, 400
    worse, better = (discordance + margin) / 2, (discordance - margin) / 2
    drawn = rng.multinomial(n, [better, worse, 1 - discordance], 2000)
    words = [paired_verdict(int(s), int(t), n, margin, 0.05).verdict for s, t, _ in drawn]
    assert words.count("PASS") / 2000 <= 0.05 + 0.015
    assert words.count("FAIL") / 2000 <= 0.05 + 0.02


def test_an_equal_student_passes_with_the_required_pairs_four_times_of_five() -> None:
    rng = np.random.default_rng(5)
    n = required_pairs(0.05, 0.02)
    assert n is not None
    drawn = rng.multinomial(n, [0.025, 0.025, 0.95], 1500)
    passed = sum(
        paired_verdict(int(s), int(t), n, 0.02, 0.05).verdict == "PASS" for s, t, _ in drawn
    )
    assert passed / 1500 == pytest.approx(0.8, abs=0.04)


def test_what_was_not_shown_is_underpowered_and_says_how_many_pairs_it_takes() -> None:
    found = agreement_verdict(20, 20, 0.02, 0.05)
    assert (found.verdict, found.needed) == ("UNDERPOWERED", 149)
    assert agreement_verdict(0, 0, 0.02, 0.05).verdict == "UNDERPOWERED"
    assert paired_verdict(0, 0, 0, 0.02, 0.05).verdict == "UNDERPOWERED"
    assert agreement_verdict(0, 200, 0.02, 0.05).needed is None


def test_rows_of_one_conversation_count_as_one_when_they_are_all_alike() -> None:
    clusters = [str(i // 10) for i in range(1000)]
    rng = np.random.default_rng(2)
    alike = np.repeat(rng.random(100) < 0.9, 10)
    assert design_effect(alike, clusters) == pytest.approx(10, rel=0.01)
    assert design_effect(np.ones(1000), clusters) == 10
    assert design_effect(rng.random(1000) < 0.9, clusters) < 1.5
    assert design_effect(alike, [str(i) for i in range(1000)]) == 1
    assert design_effect([], []) == 1


def test_the_cluster_bootstrap_widens_with_alike_clusters() -> None:
    rng = np.random.default_rng(3)
    alike = np.repeat(rng.random(100), 10)
    clusters = [str(i // 10) for i in range(1000)]
    wide = cluster_bootstrap(alike, clusters)
    narrow = cluster_bootstrap(alike, [str(i) for i in range(1000)])
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert wide.low < alike.mean() < wide.high
    assert cluster_bootstrap(alike, clusters) == wide  # a seed, not luck


def test_an_equal_difference_of_zero_lies_in_every_paired_interval() -> None:
    for n in (1, 5, 40, 400):
        low, high = paired_interval(0, 0, n)
        assert low < 0 < high
        assert low >= -1
        assert high <= 1
