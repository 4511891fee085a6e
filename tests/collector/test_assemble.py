"""Bodies to columns: whole answers, streams cut anywhere, every dialect, and rubbish."""

import gzip
import json
import zlib
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.assemble import Answer, Request, read_answer, read_request
from collector.assemble.body import events

CHAT = "chat.completions"
SSE = "text/event-stream; charset=utf-8"
JSON = "application/json"


def stream(*chunks: Any, done: bool = True, line_end: str = "\n") -> bytes:
    """Server-sent events as providers send them."""
    lines = [f"data: {json.dumps(chunk, ensure_ascii=False)}{line_end * 2}" for chunk in chunks]
    return ("".join(lines) + (f"data: [DONE]{line_end * 2}" if done else "")).encode()


def delta(index: int = 0, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chat chunk with one choice."""
    choice = {"index": index, "delta": fields, "finish_reason": finish}
    return {"id": "chatcmpl-7", "model": "gpt-x", "choices": [choice]}


CALLS = stream(
    delta(role="assistant", content=None),
    delta(reasoning_content="hm"),
    delta(content="Grüße "),
    delta(content="🎉"),
    delta(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}]),
    delta(tool_calls=[{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '{"x"'}}]),
    delta(tool_calls=[{"index": 1, "function": {"name": "g", "arguments": "{}"}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
    delta(1, content="second", finish="length"),
    delta(finish="tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}},
)


def test_a_stream_is_assembled_with_tool_calls_by_their_index() -> None:
    answer = read_answer(CHAT, CALLS, None, SSE)
    assert answer.choices
    first, second = answer.choices
    assert (first.content, first.reasoning, first.role) == ("Grüße 🎉", "hm", "assistant")
    assert first.finish_reason == "tool_calls"
    assert json.loads(first.tool_calls_json or "") == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert (second.index, second.content, second.finish_reason) == (1, "second", "length")
    assert (answer.usage.prompt, answer.usage.completion) == (3, 9)
    assert (answer.id, answer.model) == ("chatcmpl-7", "gpt-x")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_kind_are_read(line_end: str) -> None:
    body = stream(delta(content="a"), delta(content="b"), line_end=line_end)
    assert read_answer(CHAT, body, None, SSE).choices[0].content == "ab"  # type: ignore[index]


def test_a_stream_cut_at_every_byte_gives_a_growing_beginning() -> None:
    whole = read_answer(CHAT, CALLS, None, SSE).choices[0].content  # type: ignore[index]
    assert whole
    before = ""
    for length in range(len(CALLS) + 1):
        choices = read_answer(CHAT, CALLS[:length], None, SSE).choices or []
        content = (choices[0].content if choices else None) or ""
        assert content.startswith(before)
        assert whole.startswith(content)
        before = content
    assert before == whole


def test_an_event_in_the_middle_that_is_no_json_makes_no_answer() -> None:
    body = stream(delta(content="a"), done=False) + b"data: {oops\n\n" + stream(delta(content="b"))
    assert events(body) is None
    assert read_answer(CHAT, body, None, SSE) == Answer()


def test_logprobs_and_refusals_of_streams_are_joined() -> None:
    one, two = ({"token": token, "logprob": -0.5} for token in "ab")
    chunks = [delta(refusal="No"), delta(refusal=", sorry")]
    for chunk, entry in zip(chunks, (one, two), strict=True):
        chunk["choices"][0]["logprobs"] = {"content": [entry], "refusal": None}
    choice = read_answer(CHAT, stream(*chunks), None, SSE).choices[0]  # type: ignore[index]
    assert choice.refusal == "No, sorry"
    assert json.loads(choice.logprobs_json or "") == {"content": [one, two]}


def test_a_whole_chat_answer_has_all_columns() -> None:
    body = {
        "id": "c1",
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": {"content": []},
                "message": {"role": "assistant", "content": "hi", "tool_calls": [{"id": "t"}]},
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
    }
    answer = read_answer(CHAT, json.dumps(body).encode(), None, JSON)
    assert answer.system_fingerprint == "fp"
    assert answer.choices
    assert answer.choices[0].tool_calls_json == '[{"id":"t"}]'
    assert answer.choices[0].logprobs_json == '{"content":[]}'
    usage = answer.usage
    assert (usage.prompt, usage.completion, usage.cached, usage.reasoning) == (10, 20, 4, 7)


def test_an_error_inside_a_stream_is_named() -> None:
    body = stream(delta(content="a"), {"error": {"type": "server_error", "message": "x"}})
    assert read_answer(CHAT, body, None, SSE).error_type == "server_error"


def test_a_request_keeps_what_has_no_column() -> None:
    body = {
        "model": "m",
        "stream": True,
        "temperature": 0,
        "messages": [
            {"role": "system", "content": "be brief", "cache_control": {"type": "ephemeral"}},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "t"}]},
            {"role": "tool", "content": "42", "tool_call_id": "t"},
        ],
        "tools": [{"type": "function"}],
        "response_format": {"type": "json_object"},
    }
    request = read_request(CHAT, json.dumps(body).encode(), None)
    assert request.messages
    system, user, assistant, tool = request.messages
    assert (system.content, system.extra_json) == (
        "be brief",
        '{"cache_control":{"type":"ephemeral"}}',
    )
    assert user.content == '[{"type":"text","text":"hi"}]'
    assert (assistant.content, assistant.tool_calls_json) == (None, '[{"id":"t"}]')
    assert (tool.content, tool.tool_call_id) == ("42", "t")
    assert request.params_json == '{"temperature":0}'
    assert request.tools_json == '[{"type":"function"}]'
    assert request.response_format_json == '{"type":"json_object"}'


def test_completions_and_embeddings_have_their_prompt_as_a_message() -> None:
    asked = read_request("completions", b'{"model":"m","prompt":"once"}', None)
    assert asked.messages
    assert (asked.messages[0].role, asked.messages[0].content) == ("user", "once")
    body = stream(
        {"choices": [{"index": 0, "text": "upon "}]},
        {"choices": [{"index": 0, "text": "a time", "finish_reason": "length"}]},
    )
    told = read_answer("completions", body, None, SSE)
    assert told.choices
    assert (told.choices[0].content, told.choices[0].finish_reason) == ("upon a time", "length")
    asked = read_request("embeddings", b'{"model":"m","input":["a","b"]}', None)
    assert asked.messages
    assert asked.messages[0].content == '["a","b"]'
    body = b'{"model":"m","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":2}}'
    vectors = read_answer("embeddings", body, None, JSON)
    assert (vectors.choices, vectors.usage.prompt) == (None, 2)


RESPONSE = {
    "id": "resp_1",
    "model": "m",
    "status": "completed",
    "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "thought"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Hello there"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ],
    "usage": {
        "input_tokens": 5,
        "output_tokens": 6,
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens_details": {"reasoning_tokens": 2},
    },
}
RESPONSE_EVENTS: list[dict[str, Any]] = [
    {
        "type": "response.created",
        "response": {"id": "resp_1", "model": "m", "status": "in_progress"},
    },
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
    {
        "type": "response.output_text.delta",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hello ",
    },
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "there"},
    {"type": "response.completed", "response": RESPONSE},
]


def test_responses_whole_and_streamed_are_the_same() -> None:
    whole = read_answer("responses", json.dumps(RESPONSE).encode(), None, JSON)
    assert read_answer("responses", stream(*RESPONSE_EVENTS, done=False), None, SSE) == whole
    assert whole.choices
    choice = whole.choices[0]
    assert (choice.content, choice.reasoning) == ("Hello there", "thought")
    assert choice.finish_reason == "tool_calls"
    assert json.loads(choice.tool_calls_json or "")[0]["name"] == "f"
    usage = whole.usage
    assert (usage.prompt, usage.completion, usage.cached, usage.reasoning) == (5, 6, 1, 2)


def test_a_cut_response_has_the_text_that_arrived() -> None:
    answer = read_answer("responses", stream(*RESPONSE_EVENTS[:-2], done=False), None, SSE)
    assert answer.choices
    assert (answer.id, answer.choices[0].content) == ("resp_1", "Hello ")
    assert answer.choices[0].finish_reason is None


def test_a_response_request_has_its_instructions_and_items_as_messages() -> None:
    body = {"model": "m", "instructions": "be brief", "input": "hi", "temperature": 1}
    request = read_request("responses", json.dumps(body).encode(), None)
    assert request.messages
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "be brief"),
        ("user", "hi"),
    ]
    assert request.params_json == '{"temperature":1}'


def test_anthropic_messages_whole_and_streamed_are_the_same() -> None:
    whole = {
        "id": "msg_1",
        "model": "claude",
        "role": "assistant",
        "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "Let me look"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
        ],
        "usage": {"input_tokens": 5, "output_tokens": 6, "cache_read_input_tokens": 3},
    }
    chunks: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "thinking_delta", "thinking": "hm"},
        },
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "text_delta", "text": "Let me "},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "text_delta", "text": "look"},
        },
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": '{"x":1}'},
        },
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use"},
            "usage": {"output_tokens": 6},
        },
        {"type": "message_stop"},
    ]
    one = read_answer("messages", json.dumps(whole).encode(), None, JSON)
    assert read_answer("messages", stream(*chunks, done=False), None, SSE) == one
    assert one.choices
    assert (one.choices[0].content, one.choices[0].reasoning) == ("Let me look", "hm")
    assert one.choices[0].finish_reason == "tool_calls"
    assert json.loads(one.choices[0].tool_calls_json or "")[0]["function"]["arguments"] == '{"x":1}'
    assert (one.usage.prompt, one.usage.cached, one.usage.completion) == (8, 3, 6)


def raw_deflate(data: bytes) -> bytes:
    """Deflate without zlib's header, as some servers send it."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("br", brotli.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
        ("identity", bytes),
        ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    ],
)
def test_content_encodings_are_undone_on_the_copy(name: str, encode: Any) -> None:
    plain = read_answer(CHAT, CALLS, None, SSE)
    assert read_answer(CHAT, encode(CALLS), name, SSE) == plain
    for body in (encode(CALLS)[:-6], b"\x00garbage" + encode(CALLS)):  # cut, damaged: no error
        assert isinstance(read_answer(CHAT, body, name, SSE), Answer)


def test_an_unknown_encoding_is_left_alone() -> None:
    assert read_answer(CHAT, CALLS, "rot13", SSE) == Answer()


RUBBISH = [
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"choices": 7, "usage": [], "id": {}}',
    b'{"choices": [null, 7, {"message": 3, "index": -1}]}',
    b'{"choices": [{"index": 99999999999999999999999999}], "usage": {"prompt_tokens": 1e400}}',
    b'{"choices": NaN}',
    b'"\\ud800"',
    b'{"id": "\xff"}',
    b"[" * 100_000,
    b"data: " * 1000,
    b"data: [1,2]\n\ndata: 5\n\n",
]


@pytest.mark.parametrize("body", RUBBISH)
@pytest.mark.parametrize("endpoint", [CHAT, "completions", "responses", "messages", "moderations"])
def test_rubbish_never_raises(body: bytes, endpoint: str) -> None:
    assert isinstance(read_request(endpoint, body, None), Request)
    for content_type in (JSON, SSE, None):
        assert isinstance(read_answer(endpoint, body, None, content_type), Answer)


FIELDS = st.sampled_from(
    [
        *("choices", "delta", "message", "content", "tool_calls", "index", "usage", "type"),
        *("output", "item", "response", "function", "text", "error", "logprobs", "summary"),
    ]
)
KINDS = st.sampled_from(
    [
        *("response.created", "response.output_text.delta", "response.output_item.added"),
        *("message_start", "content_block_delta", "message_delta", "content_block_start", "error"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


def event(kind: str, value: Any) -> dict[str, Any]:
    """An event of a known type with anything in its fields."""
    fields = ("delta", "response", "message", "content_block", "item", "index")
    return {"type": kind, "output_index": 0, **dict.fromkeys(fields, value)}


@given(st.lists(VALUES | st.builds(event, KINDS, VALUES), max_size=4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_in_any_place_never_raises(chunks: list[Any]) -> None:
    for endpoint in (CHAT, "responses", "messages"):
        assert isinstance(read_answer(endpoint, stream(*chunks), None, SSE), Answer)
        for chunk in chunks:
            body = json.dumps(chunk).encode()
            assert isinstance(read_answer(endpoint, body, None, JSON), Answer)
            assert isinstance(read_request(endpoint, body, None), Request)
