"""Which answers agree, and which scorer a workload's answers ask for."""

import doctest

import pytest

from evaluator import answer, scorer
from evaluator.answer import Answer, ToolCall, from_choice, from_message
from evaluator.scorer import Scorer, choose, composed, fields, token_f1
from understudy import diff


@pytest.mark.parametrize("module", [answer, diff, scorer])
def test_the_docstrings_examples_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def call(arguments: str, identity: str = "1", name: str = "find") -> Answer:
    function = {"name": name, "arguments": arguments}
    calls = [{"id": identity, "type": "function", "function": function}]
    return from_message({"role": "assistant", "content": None, "tool_calls": calls})


def test_objects_agree_whatever_their_order_spacing_and_number_format() -> None:
    json_ = Scorer("json")
    assert json_.agree(Answer('{"a":1,"b":[2.0,null]}'), Answer(' {"b": [2, null], "a": 1e0}\n'))
    assert not json_.agree(Answer('{"a":null}'), Answer("{}"))
    assert not json_.agree(Answer('{"a":1}'), Answer('{"a":"1"}'))
    assert not json_.agree(Answer('{"a":1}'), Answer('{"a":1} and more'))


def test_nan_and_deep_nesting_are_compared_without_falling_over() -> None:
    json_ = Scorer("json")
    assert json_.agree(Answer('{"a":NaN}'), Answer('{"a": NaN}'))
    assert not json_.agree(Answer("[" * 100_000), Answer('{"a":1}'))


def test_labels_agree_without_their_surrounding_space_only() -> None:
    assert Scorer("label").agree(Answer("up"), Answer(" up\n"))
    assert not Scorer("label").agree(Answer("up"), Answer("Up"))


def test_tool_calls_agree_by_name_and_arguments_whatever_their_ids() -> None:
    for kind in ("exact", "label", "json"):
        one = Scorer(kind)  # type: ignore[arg-type]
        assert one.agree(call('{"a": 1, "b": 2}', "x"), call('{"b":2,"a":1}', "y"))
        assert not one.agree(call('{"a": 1}'), call('{"a": 2}'))
        assert not one.agree(call("{}"), call("{}", name="other"))
        assert not one.agree(call("{}"), Answer("find({})"))


def test_a_choice_of_the_lake_and_a_message_of_the_api_say_the_same() -> None:
    row = {"content": "hi", "tool_calls_json": '[{"function":{"name":"f","arguments":"{}"}}]'}
    function = {"function": {"name": "f", "arguments": {}}}
    assert from_choice(row) == from_message({"content": "hi", "tool_calls": [function]})
    assert from_choice(None) == Answer("")
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert from_message({"content": parts}).text == "a\nb"
    old = from_message({"content": None, "function_call": {"name": "f", "arguments": "not JSON"}})
    assert old.calls == (ToolCall("f", "not JSON"),)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["up", "down"] * 50, "label"),
        ([f"intent_{i % 77}" for i in range(3000)], "label"),
        (['{"a":1}'] * 95 + ["sorry"] * 5, "json"),
        (["1", "2"] * 50, "label"),
        ([f"A sentence about {i}." for i in range(100)], "exact"),
        ([], "exact"),
    ],
)
def test_auto_looks_at_the_teachers_answers(texts: list[str], kind: str) -> None:
    assert choose("auto", [Answer(text) for text in texts]).kind == kind
    assert choose("exact", [Answer(text) for text in texts]).kind == "exact"


def test_fields_and_their_composition_are_inverse() -> None:
    key = Scorer("json").key(Answer('{"b":null,"a":{"c":[1]}}'))
    assert fields(key) == {"a": '{"c":[1]}', "b": "null"}
    assert composed(fields(key)) == key
    assert composed({"a": "1", "b": scorer.ABSENT}) == '{"a":1}'
    assert fields(Scorer("json").key(Answer("no JSON"))) == {}


def test_token_f1_of_nothing_with_nothing_is_one() -> None:
    assert token_f1("", "") == 1
    assert token_f1("word", "") == 0
    assert token_f1("A b", "a B") == 1
