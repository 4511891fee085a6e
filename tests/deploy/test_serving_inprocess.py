"""The in-process engine's pieces: text that is held back, tool calls, batches that change."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from deploy.serving.inprocess.cache import Batch
from deploy.serving.inprocess.chat import Chat
from deploy.serving.inprocess.model import Model
from deploy.serving.inprocess.protocol import ChatRequest
from deploy.serving.inprocess.sequence import Piece, Sampling, Sequence, Token
from deploy.serving.inprocess.students import Students
from deploy.serving.inprocess.template import ToolText, render
from tests.deploy.conftest import Tiny

CALL = '<tool_call>{"name": "f", "arguments": {"a": [1, "}"]}}</tool_call>'


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    model = Model(tiny.base, threads=1)
    for name, folder in tiny.students.items():
        model.load(name, folder)
    return model


def run(tokenizer: Tokenizer, text: str, *stop: str) -> list[Piece]:
    """The pieces of a stream whose tokens are those of `text`."""
    pieces: list[Piece] = []
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    sampling = Sampling(max_tokens=len(ids), stop=stop)
    sequence = Sequence([1], None, sampling, tokenizer, pieces.append, stream=True)
    for i in ids:
        if sequence.add(Token(i)):
            break
    return pieces


@given(text=st.text(min_size=1, max_size=40))
def test_a_stream_joins_to_the_text_whatever_the_characters(text: str) -> None:
    tokenizer = _tokenizer()
    pieces = run(tokenizer, text)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.finish for piece in pieces][-1] == "length"
    assert all(piece.finish is None for piece in pieces[:-1])


@given(text=st.text("abc", max_size=30), stop=st.text("abc", min_size=1, max_size=4))
def test_nothing_of_a_stop_string_is_ever_sent(text: str, stop: str) -> None:
    pieces = run(_tokenizer(), text + stop, stop)
    whole = text + stop
    assert "".join(piece.text for piece in pieces) == whole[: whole.find(stop)]
    assert pieces[-1].finish == "stop"


@given(cuts=st.sets(st.integers(1, len(CALL) + 5)))
def test_a_tool_call_is_found_wherever_the_stream_is_cut(cuts: set[int]) -> None:
    whole = f"see: {CALL}"
    marks = [0, *sorted(cuts), len(whole)]
    split = ToolText()
    sent = "".join(split.feed(whole[a:b]) for a, b in pairwise(marks))
    rest, calls = split.finish()
    assert (sent, rest) == ("see: ", "")
    assert [call["function"] for call in calls] == [{"name": "f", "arguments": '{"a": [1, "}"]}'}]


@pytest.mark.parametrize("text", ["a < b", "<tool_call>{oops}</tool_call>", "<tool_call>{}"])
def test_text_that_is_no_call_stays_text(text: str) -> None:
    split = ToolText()
    sent = split.feed(text)
    rest, calls = split.finish()
    assert (sent + rest, calls) == (text, [])


def test_tool_arguments_reach_the_template_as_an_object(model: Model) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    ids = render(
        model.tokenizer, [{"role": "assistant", "content": None, "tool_calls": [call]}], None, {}
    )
    assert '"arguments": {"a": 1}' in model.tokenizer.decode(ids)


def test_rows_of_a_changing_batch_get_what_they_get_alone(model: Model) -> None:
    prompts = [[1, 5, 9], [1, 7, 30, 31, 32, 8], [4], [1, 6, 2, 60, 61, 62, 63, 64, 65]]
    model.activate("colour-0002")
    alone = [_greedy(model, prompt, 6) for prompt in prompts]
    logits, batch = model.prefill(prompts[:2])
    rows, told = [0, 1], {i: [] for i in range(4)}
    for turn in range(8):
        for row, token in zip(rows, logits.argmax(-1).tolist(), strict=True):
            told[row].append(token)
        if turn == 1:  # two more arrive
            late_logits, late = model.prefill(prompts[2:])
            batch_logits = model.step(batch, [told[row][-1] for row in rows])
            batch.merge(late)
            rows, logits = [*rows, 2, 3], torch.cat([batch_logits, late_logits])
            continue
        if turn == 3:  # the longest leaves
            kept = [i for i, row in enumerate(rows) if row != 3]
            batch.keep(kept)
            rows = [rows[i] for i in kept]
        logits = model.step(batch, [told[row][-1] for row in rows])
    for row in (0, 1, 2):
        assert told[row][:6] == alone[row]
    assert told[3] == alone[3][: len(told[3])]


def test_a_batch_drops_the_columns_that_nobody_needs(model: Model) -> None:
    _, batch = model.prefill([[1] * 9, [1, 2, 3]])
    batch.keep([1])
    assert isinstance(batch, Batch)
    assert batch.mask.tolist() == [[1, 1, 1]]
    assert batch.positions.tolist() == [[3]]


def test_an_unloaded_adapter_leaves_the_others(tiny: Tiny) -> None:
    model = Model(tiny.base, threads=1)
    for name, folder in tiny.students.items():
        model.load(name, folder)
    model.activate("colour-0002")
    before = _greedy(model, [1, 5, 9], 4)
    model.unload("colour-0001")
    model.activate("colour-0002")
    assert _greedy(model, [1, 5, 9], 4) == before
    model.unload("colour-0002")
    model.load("again", tiny.students["colour-0002"])
    model.activate("again")
    assert _greedy(model, [1, 5, 9], 4) == before


def test_an_adapter_is_replaced_in_place(tiny: Tiny) -> None:
    model = Model(tiny.base, threads=1)
    one, other = tiny.students.values()
    for folder in (one, other):
        model.load("student", folder)
    alone = Model(tiny.base, threads=1)
    alone.load("other", other)
    for served, name in ((model, "student"), (alone, "other")):
        served.activate(name)
    assert _greedy(model, [1, 5, 9], 4) == _greedy(alone, [1, 5, 9], 4)


def test_parts_of_text_are_joined_as_in_training(model: Model) -> None:
    parts = [{"type": "text", "text": word} for word in ("sky", "apple")]
    as_parts, as_text = (
        render(model.tokenizer, [{"role": "user", "content": content}], None, {})
        for content in (parts, "sky\napple")
    )
    assert as_parts == as_text


def test_the_template_is_asked_as_in_training(model: Model) -> None:
    spoken = "{{ 'thinking' if enable_thinking else 'plain' }}"
    asked = ChatRequest(model="base", messages=[{"role": "user", "content": "x"}])
    students = Students("base", model, {"enable_thinking": False})
    before, model.tokenizer.chat_template = model.tokenizer.chat_template, spoken
    try:
        prompt = Chat(students, asked).prompt
        assert model.tokenizer.decode(prompt) == "plain"
    finally:
        model.tokenizer.chat_template = before
        students.worker.close()


def _greedy(model: Model, prompt: list[int], count: int) -> list[int]:
    logits, batch = model.prefill([prompt])
    tokens = [int(logits.argmax())]
    while len(tokens) < count:
        tokens.append(int(model.step(batch, tokens[-1:]).argmax()))
    return tokens


_LOADED: list[Tokenizer] = []


def _tokenizer() -> Tokenizer:
    """A byte-level tokenizer without merges: every byte is a token of its own."""
    if not _LOADED:
        from tokenizers import decoders, models, pre_tokenizers

        vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        _LOADED.append(tokenizer)
    return _LOADED[0]
