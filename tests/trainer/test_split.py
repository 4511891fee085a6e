"""The split: a group never changes side, and the shares come out."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.dataset.split import Shares, side_of
from understudy.errors import DatasetError


@given(st.text(), st.text(), st.floats(0, 0.45), st.floats(0, 0.45))
def test_a_group_stays_on_its_side(workload: str, group: str, a: float, b: float) -> None:
    shares = Shares(a, b).checked()
    assert side_of(workload, group, shares) == side_of(workload, group, shares)


@given(st.text(), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_larger_test_share_moves_nothing_out_of_the_test_set(
    group: str, small: float, more: float
) -> None:
    if side_of("w", group, Shares(0.1, small)) == "test":
        assert side_of("w", group, Shares(0.1, min(0.85, small + more))) == "test"


def test_the_shares_come_out() -> None:
    sides = Counter(side_of("w", f"group {n}", Shares(0.1, 0.2)) for n in range(20_000))
    assert sides["test"] == pytest.approx(4000, rel=0.06)
    assert sides["validation"] == pytest.approx(2000, rel=0.08)


def test_the_sides_are_fixed_for_ever() -> None:
    """Changing the hash would move rows of every dataset ever made; these are its values."""
    found = [side_of("triage", f"c{n}", Shares(0.1, 0.2)) for n in range(8)]
    assert found == EXPECTED


EXPECTED = ["train", "train", "test", "train", "train", "train", "train", "test"]


@pytest.mark.parametrize("shares", [Shares(0.5, 0.5), Shares(-0.1, 0.2), Shares(0, 1)])
def test_shares_that_leave_nothing_are_refused(shares: Shares) -> None:
    with pytest.raises(DatasetError, match="leave nothing to train on"):
        shares.checked()
