"""The documented keys are the keys that exist."""

from pathlib import Path

from understudy.exchange import data_dictionary
from understudy.reference import reference

DOCS = Path(__file__).parents[2] / "docs"


def test_the_documented_configuration_is_the_one_that_is_read() -> None:
    assert reference() in (DOCS / "configuration.md").read_text()


def test_every_key_has_a_sentence() -> None:
    rows = reference().splitlines()[2:]
    assert len(rows) > 60
    assert not [row for row in rows if row.rsplit("|", 2)[1].strip() == ""]


def test_the_data_dictionary_is_the_record() -> None:
    assert data_dictionary() in (DOCS / "data-dictionary.md").read_text()
