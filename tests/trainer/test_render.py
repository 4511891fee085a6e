"""Rendering: the assistant's words and the end token are trained, as a server would see them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trainer.conftest import row
from trainer.model import Base
from trainer.render import Renderer, template_message, wire_message
from understudy.errors import DatasetError, TrainingError

CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "find_order", "arguments": '{"id": 7, "deep": {"a": [1, "x"]}}'},
}
TOOLS = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]


def test_the_trained_span_is_the_answer_and_its_end(tiny: Base) -> None:
    example = tiny.renderer.example(row(1))
    decoded = tiny.renderer.tokenizer.decode(example.trained)
    assert decoded == "green<|end|>"
    assert example.trained[-1] in tiny.renderer.stop_ids


def test_the_prompt_is_what_a_server_renders(tiny: Base) -> None:
    messages = row(1)["messages"][:-1]
    served = tiny.renderer.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    example = tiny.renderer.example(row(1))
    assert example.ids[: example.prompt] == list(served)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(user=st.text(max_size=40), answer=st.text(min_size=1, max_size=40))
def test_any_text_is_trained_exactly(tiny: Base, user: str, answer: str) -> None:
    if not answer.strip() or "<|" in answer + user:
        return
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    example = tiny.renderer.example({"messages": messages})
    assert tiny.renderer.tokenizer.decode(example.trained[:-1]) == answer


def test_a_tool_call_is_trained_as_an_object(tiny: Base) -> None:
    question = {"role": "user", "content": "Where is it?"}
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    example = tiny.renderer.example({"messages": [question, called], "tools": TOOLS})
    written = str(tiny.renderer.tokenizer.decode(example.trained[:-1]))
    body = json.loads(written.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert body == {"name": "find_order", "arguments": {"id": 7, "deep": {"a": [1, "x"]}}}


def test_the_tools_and_their_results_reach_the_prompt(tiny: Base) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "at home"},
        {"role": "assistant", "content": "At home."},
    ]
    example = tiny.renderer.example({"messages": messages, "tools": TOOLS})
    prompt = tiny.renderer.tokenizer.decode(example.ids[: example.prompt])
    for part in ("Be short.", '"find_order"', "<tool_call>", "at home"):
        assert part in prompt
    assert tiny.renderer.tokenizer.decode(example.trained) == "At home.<|end|>"


def test_tool_arguments_round_trip_between_wire_and_template() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    adapted = template_message(message)
    assert adapted["tool_calls"][0]["function"]["arguments"] == {"id": 7, "deep": {"a": [1, "x"]}}
    assert wire_message(adapted) == message
    assert message["tool_calls"] == [CALL], "the wire message is left as it was"


def test_text_parts_become_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    assert template_message({"role": "user", "content": parts})["content"] == "a\nb"


def test_an_end_that_is_never_rendered_is_refused(tiny: Base) -> None:
    tokenizer = tiny.renderer.tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    with pytest.raises(DatasetError, match="never stop"):
        Renderer(tokenizer).example(row(1))


def test_a_template_that_drops_the_answer_is_refused(tiny: Base) -> None:
    tokenizer = tiny.renderer.tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}<|end|>{% endfor %}"
    with pytest.raises(DatasetError, match="drops a part"):
        Renderer(tokenizer).example(row(1))


def test_a_template_that_rewrites_the_prompt_is_refused(tiny: Base) -> None:
    tokenizer = tiny.renderer.tokenizer
    tokenizer.chat_template = "{{ messages | length }}<|end|>"
    with pytest.raises(DatasetError, match="otherwise when the answer follows"):
        Renderer(tokenizer).example(row(1))


def test_a_base_without_a_template_is_refused(tiny: Base) -> None:
    tiny.renderer.tokenizer.chat_template = None
    with pytest.raises(TrainingError, match="chat template"):
        Renderer(tiny.renderer.tokenizer)


def test_a_thinking_template_is_pinned_to_plain_answers(tiny: Base) -> None:
    tokenizer = tiny.renderer.tokenizer
    plain = tiny.renderer.template_hash
    tokenizer.chat_template = (
        "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt and enable_thinking is not false %}<think>{% endif %}"
    )
    renderer = Renderer(tokenizer)
    assert renderer.kwargs == {"enable_thinking": False}
    assert "<think>" not in renderer.text(row(1)["messages"], None, add_generation_prompt=True)
    assert renderer.template_hash != plain


def test_the_end_token_comes_from_the_tokenizer(tiny: Base, tiny_folder: Path) -> None:
    config = json.loads((tiny_folder / "config.json").read_text())
    assert tiny.renderer.stop_ids == [config["eos_token_id"]]
