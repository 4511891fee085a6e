"""The stand-in teacher under the real OpenAI client: every endpoint, its conditions, its replay."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from tests.deploy.command import Command
from understudy import triage

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            },
        },
    }
    for name in ("get_weather", "book_hotel")
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("teacher") / "log"
    with Command("teacher", "--port", 0, log=log) as command:
        yield command.started().url


@pytest.fixture
def client(teacher: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{teacher}/v1", api_key="any", max_retries=0) as client:
        yield client


def hello(**more: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": "hello my friend"}], **more}


def test_triage_is_answered_by_the_rules(client: openai.OpenAI) -> None:
    rng = random.Random(7)
    for _ in range(20):
        ticket = triage.ticket(rng)
        answer = client.chat.completions.create(**triage.request(ticket, "gpt-x"))
        assert answer.choices[0].message.content == ticket.answer
        assert (answer.model, answer.choices[0].finish_reason) == ("gpt-x", "stop")


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    request = triage.request(triage.ticket(random.Random(1)), "m") | {"n": 2}
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True))
    texts = {0: "", 1: ""}
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(texts.values()) == [choice.message.content for choice in whole.choices]
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_in_a_stream_only_when_it_is_asked_for(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**hello())
    chunks = list(
        client.chat.completions.create(
            **hello(), stream=True, stream_options={"include_usage": True}
        )
    )
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_a_system_prompt_seen_before_counts_as_cached(client: openai.OpenAI) -> None:
    messages = [
        {"role": "system", "content": "Speak like a pirate of old."},
        {"role": "user", "content": "hi"},
    ]
    seen = [
        client.chat.completions.create(model="m", messages=messages).usage.prompt_tokens_details
        for _ in range(2)
    ]
    assert [details.cached_tokens for details in seen] == [0, 7]


def test_stop_and_max_tokens_cut_the_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**hello()).choices[0]
    stopped = client.chat.completions.create(**hello(stop=["beginning"])).choices[0]
    cut = client.chat.completions.create(**hello(max_tokens=3))
    assert stopped.message.content == whole.message.content.split("beginning")[0]
    assert (whole.finish_reason, stopped.finish_reason) == ("stop", "stop")
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 3)
    assert whole.message.content.startswith(cut.choices[0].message.content)


def test_tools_are_called_in_both_forms_alike(client: openai.OpenAI) -> None:
    request = {
        "model": "m",
        "tools": TOOLS,
        "messages": [{"role": "user", "content": "get_weather and book_hotel for Rome"}],
    }
    calls = client.chat.completions.create(**request).choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "book_hotel"]
    rebuilt: dict[int, dict[str, str]] = {}
    finish = None
    for chunk in client.chat.completions.create(**request, stream=True):
        finish = chunk.choices[0].finish_reason or finish
        for part in chunk.choices[0].delta.tool_calls or ():
            call = rebuilt.setdefault(part.index, {"arguments": ""})
            if part.id:
                call |= {"id": part.id, "name": part.function.name}
            call["arguments"] += part.function.arguments
    assert finish == "tool_calls"
    assert [rebuilt[i]["id"] for i in (0, 1)] == [call.id for call in calls]
    assert [rebuilt[i]["arguments"] for i in (0, 1)] == [c.function.arguments for c in calls]
    assert json.loads(calls[0].function.arguments)["days"] == 1


def test_after_a_tool_result_comes_text(client: openai.OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    answer = client.chat.completions.create(
        model="m",
        tools=TOOLS,
        messages=[
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    ).choices[0]
    assert (answer.message.tool_calls, answer.finish_reason) == (None, "stop")


def test_a_json_schema_is_obeyed(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "tag": {"enum": ["a", "b"]}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    answer = client.chat.completions.create(**hello(response_format=form))
    assert json.loads(answer.choices[0].message.content) == {"ok": True, "tag": "a"}


def test_text_completions_take_several_prompts(client: openai.OpenAI) -> None:
    request = {"model": "m", "prompt": ["one two", "three"], "max_tokens": 4}
    whole = client.completions.create(**request)
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(**request, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert list(texts.values()) == [choice.text for choice in whole.choices]
    assert whole.usage.completion_tokens == 8


def test_embeddings_are_the_same_as_floats_and_as_base64(client: openai.OpenAI) -> None:
    texts = ["the red router", "the red camera", "something else"]
    default = client.embeddings.create(model="e", input=texts, dimensions=64)  # the SDK's base64
    floats = client.embeddings.create(
        model="e", input=texts, dimensions=64, encoding_format="float"
    )
    vectors = [row.embedding for row in default.data]
    assert vectors == [pytest.approx(row.embedding) for row in floats.data]
    assert {len(vector) for vector in vectors} == {64}
    near, far = (sum(a * b for a, b in zip(vectors[0], v, strict=True)) for v in vectors[1:])
    assert near > far


def test_a_response_streams_named_events_without_holes(client: openai.OpenAI, teacher: str) -> None:
    whole = client.responses.create(model="m", input="hello my friend")
    body = {"model": "m", "input": "hello my friend", "stream": True}
    raw = httpx.post(f"{teacher}/v1/responses", json=body).text
    blocks = [block.split("\n") for block in raw.strip().split("\n\n")]
    names = [lines[0].removeprefix("event: ") for lines in blocks]
    events = [json.loads(lines[1].removeprefix("data: ")) for lines in blocks]
    assert names == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (names[0], names[-1]) == ("response.created", "response.completed")
    deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert deltas == whole.output_text == events[-1]["response"]["output"][0]["content"][0]["text"]


def test_a_response_continues_another_and_calls_tools(client: openai.OpenAI) -> None:
    tools = [{"type": "function", **TOOLS[0]["function"]}]
    first = client.responses.create(model="m", input="get_weather of Oslo", tools=tools)
    call = first.output[0]
    assert (call.type, call.name) == ("function_call", "get_weather")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = client.responses.create(
        model="m", input=[result], tools=tools, previous_response_id=first.id
    )
    assert second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens
    with pytest.raises(openai.NotFoundError, match="resp_nowhere"):
        client.responses.create(model="m", input="x", previous_response_id="resp_nowhere")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/chat/completions", b"{", 400, "cannot be read"),
        ("/v1/chat/completions", b'{"model": "m", "messages": 3}', 400, "messages"),
        ("/v1/chat/completions", b'{"model": "m", "messages": []}', 400, "empty"),
        ("/v1/chat/completions", b'{"messages": []}', 400, "model"),
        ("/v1/nothing", b"{}", 404, "/v1/nothing"),
    ],
)
def test_errors_have_openais_shape(
    teacher: str, path: str, body: bytes, status: int, words: str
) -> None:
    answer = httpx.post(teacher + path, content=body)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert error.keys() == {"message", "type", "param", "code"}
    assert words in error["message"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_errors_are_injected_at_their_rate_and_repeatably(tmp_path: Path) -> None:
    seen = []
    for run in range(2):
        arguments = ("teacher", "--port", 0, "--error-rate", 0.5, "--seed", 3)
        with Command(*arguments, log=tmp_path / f"log{run}") as command:
            url = f"{command.started().url}/v1/chat/completions"
            seen.append([httpx.post(url, json=hello()).status_code for _ in range(60)])
    assert seen[0] == seen[1]
    assert set(seen[0]) == {200, 500, 503, 429}
    assert 15 < seen[0].count(200) < 45


def test_replay_answers_what_was_recorded_and_nothing_else(tmp_path: Path) -> None:
    call = {"id": "c9", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    asked = [[{"role": "user", "content": text}] for text in ("one", "two")]
    rows = [
        {"request": {"model": "t", "messages": asked[0], "temperature": 0}, "answer": "first"},
        {"request": {"messages": asked[0]}, "answer": "second"},
        {
            "request": {"messages": asked[1], "tools": TOOLS},
            "answer_message": {"role": "assistant", "content": None, "tool_calls": [call]},
        },
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    log = tmp_path / "log"
    with (
        Command("teacher", "--port", 0, "--replay", file, log=log) as command,
        openai.OpenAI(base_url=f"{command.started().url}/v1", api_key="k") as client,
    ):
        parts = [{"role": "user", "content": [{"type": "text", "text": "one"}], "name": None}]
        for messages in (asked[0], parts):
            answer = client.chat.completions.create(model="x", messages=messages, temperature=1)
            assert answer.choices[0].message.content == "first"
        answer = client.chat.completions.create(model="x", messages=asked[1], tools=TOOLS)
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert [c.model_dump() for c in choice.message.tool_calls] == [call]
        with pytest.raises(openai.NotFoundError, match=r"not in the replayed file rows\.jsonl"):
            client.chat.completions.create(model="x", messages=asked[1])
    assert "3 rows, 1 duplicate" in log.read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "has no rows"), ("{", "rows.jsonl:1"), ('{"request": {}}', "neither answer nor")],
)
def test_a_bad_replay_file_is_refused_with_its_line(
    tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with Command("teacher", "--replay", file, log=tmp_path / "log") as command:
        assert command.ended() == 1
    assert words in (tmp_path / "log").read_text()


def test_many_clients_at_once_get_their_own_answers(client: openai.OpenAI) -> None:
    rng = random.Random(5)
    tickets = [triage.ticket(rng) for _ in range(100)]

    def ask(ticket: triage.Ticket) -> str | None:
        made = client.chat.completions.create(**triage.request(ticket, "m"))
        return made.choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, tickets)) == [ticket.answer for ticket in tickets]
