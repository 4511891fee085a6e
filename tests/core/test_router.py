"""The router's artefact: stable features, scores in [0, 1], and refusal of what is damaged."""

import msgspec
import pytest

from understudy.errors import ConfigError
from understudy.router import Artefact, Router, features

HELLO = [38687, 42630, 197764, 463171, 778825]  # artefacts in lakes depend on them


def artefact(**changes: object) -> Artefact:
    weights = [0.0] * 16
    return msgspec.structs.replace(
        Artefact(bits=4, bias=0.0, weights=weights, student="s", workload="w", threshold=0.5),
        **changes,
    )


def test_features_do_not_depend_on_process_order_or_case() -> None:
    assert set(features("Hello big world", 12)) == set(features("hello  BIG world!", 12))
    assert sorted(features("hello big world", 20)) == HELLO


def test_features_see_the_newest_words_of_a_long_text() -> None:
    assert set(features("old " * 5000 + "word", 12)) == set(features("old " * 900 + "word", 12))
    assert set(features("old " * 5000 + "word", 12)) != set(features("old " * 5000, 12))


def test_scores_are_probabilities() -> None:
    for bias in (-1e9, -1.0, 0.0, 1e9):
        assert 0 <= Router(artefact(bias=bias)).score("any text") <= 1
    assert Router(artefact()).score("any text") == 0.5


def test_a_text_without_words_is_the_teachers() -> None:
    assert Router(artefact(bias=5.0)).score("...") == 0


def test_an_artefact_survives_the_lake() -> None:
    made = artefact(weights=[0.25 * i for i in range(16)], bias=-1.0)
    loaded = Router.load(msgspec.json.encode(made))
    assert loaded.score("some words") == Router(made).score("some words")


def test_a_damaged_artefact_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match="3 weights for 4 bits; fit it again"):
        Router(artefact(weights=[0.0] * 3))
    with pytest.raises(ConfigError, match="damaged artefact"):
        Router.load(b'{"bits": "x"}')
