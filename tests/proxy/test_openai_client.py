"""The real openai client against the proxy, and byte equality of direct and relayed answers."""

from pathlib import Path

import openai
import pytest

from tests.proxy.origin import (
    CHAT,
    DONE,
    SSE_HEAD,
    STREAM,
    Line,
    Origin,
    Received,
    chunked,
    sized,
)
from tests.proxy.running import Proxy, ask, chat, post

TOOL_STREAM = (
    b"".join(
        b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
        b'"choices":[{"index":0,"delta":%b,"finish_reason":null}]}\n\n' % delta
        for delta in (
            b'{"tool_calls":[{"index":0,"id":"t0","type":"function","function":{"name":"f","arguments":""}}]}',
            b'{"tool_calls":[{"index":1,"id":"t1","type":"function","function":{"name":"g","arguments":""}}]}',
            b'{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":"}}]}',
            b'{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}',
            b'{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}',
        )
    )
    + DONE
)
RESPONSES_STREAM = b"".join(
    b'event: %b\ndata: {"type":"%b","sequence_number":%d%b}\n\n' % (kind, kind, i, more)
    for i, (kind, more) in enumerate(
        [
            (b"response.created", b',"response":{"id":"r1"}'),
            (
                b"response.output_text.delta",
                b',"item_id":"i","output_index":0,"content_index":0,"delta":"hi","logprobs":[]',
            ),
            (b"response.completed", b',"response":{"id":"r1","status":"completed"}'),
        ]
    )
)
EMBEDDING = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAEA="}],'
    b'"model":"e","usage":{"prompt_tokens":1,"total_tokens":1}}'
)
MODELS = b'{"object":"list","data":[{"id":"gpt-4o","object":"model","created":1,"owned_by":"o"}]}'
RATE = b'{"error":{"message":"slow down","type":"rate_limit","param":null,"code":"rate"}}'


async def teacher(request: Received, line: Line) -> None:
    """Enough of OpenAI for the client."""
    path = request.line.split(b" ")[1]
    stream = b'"stream":true' in request.body
    if path == b"/v1/embeddings":
        await line.send(sized(EMBEDDING))
    elif path == b"/v1/models":
        await line.send(sized(MODELS))
    elif path == b"/v1/responses":
        await line.send(SSE_HEAD, chunked(RESPONSES_STREAM) + b"0\r\n\r\n")
    elif b"please fail" in request.body:
        await line.send(
            sized(RATE, "429 Too Many Requests", b"retry-after: 0\r\nx-should-retry: false\r\n")
        )
    elif b'"tools"' in request.body and stream:
        await line.send(SSE_HEAD, *[chunked(e + b"\n\n") for e in TOOL_STREAM.split(b"\n\n")[:-1]])
        await line.send(b"0\r\n\r\n")
    elif stream:
        await line.send(
            SSE_HEAD,
            b": ping\n\n".join([b"", b""])[:0],
            chunked(b": keep-alive\n\n" + STREAM) + b"0\r\n\r\n",
        )
    else:
        await line.send(sized(CHAT))


def test_chat_stream_tools_responses_embeddings_models_and_errors(tmp_path: Path) -> None:
    with Origin(teacher) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with openai.OpenAI(base_url=proxy.url, api_key="sk-x", max_retries=0) as client:
            said = [{"role": "user", "content": "hi"}]
            raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=said)
            assert raw.headers["x-understudy-arm"] == "teacher"
            answer = raw.parse()
            assert answer.choices[0].message.content == "hello"
            assert answer.model_extra["x_odd"] == {"kept": True}

            stream = client.chat.completions.create(model="gpt-4o", messages=said, stream=True)
            assert "".join(c.choices[0].delta.content for c in stream) == "Hello you"

            tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
            calls: dict[int, str] = {}
            for chunk in client.chat.completions.create(
                model="gpt-4o", messages=said, tools=tools, stream=True
            ):
                for call in chunk.choices[0].delta.tool_calls or []:
                    calls[call.index] = calls.get(call.index, "") + call.function.arguments
            assert calls == {0: '{"a":1}', 1: "{}"}

            events = client.responses.create(model="gpt-4o", input="hi", stream=True)
            assert [e.sequence_number for e in events] == [0, 1, 2]
            vector = client.embeddings.create(model="e", input="x").data[0].embedding
            assert vector == [1.0, 2.0]
            assert [m.id for m in client.models.list()] == ["gpt-4o"]
            with pytest.raises(openai.RateLimitError, match="slow down"):
                client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": "please fail"}]
                )
        attempts = proxy.ended(7)
    endpoints = [a.request["endpoint"] for a in attempts]
    assert endpoints == [
        *["chat.completions"] * 3,
        "responses",
        "embeddings",
        "models",
        "chat.completions",
    ]
    assert [a.response["outcome"] for a in attempts if a.response] == [*["complete"] * 6, "error"]


def test_our_own_errors_are_the_clients_exceptions(tmp_path: Path) -> None:
    with (
        Proxy(tmp_path, teacher="http://127.0.0.1:9/v1", listen={"max_body_mb": 0.001}) as proxy,
        openai.OpenAI(base_url=proxy.url, api_key="x", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError) as down:
            client.chat.completions.create(model="m", messages=[])
        with pytest.raises(openai.APIStatusError) as large:
            client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x" * 3000}]
            )
    assert down.value.status_code == 502
    assert large.value.status_code == 413
    assert large.value.code == "request_too_large"


def test_relayed_answers_are_byte_equal_to_direct_ones(tmp_path: Path) -> None:
    corpus = [
        post(chat()),
        post(chat(stream=True)),
        post(chat(stream=True, tools=[{}])),
        post(b'{"input":"x"}', "/v1/responses"),
        post(b'{"input":"x"}', "/v1/embeddings"),
        post(chat("please fail")),
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
    ]
    with Origin(teacher) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        for request in corpus:
            direct, relayed = ask(origin.port, request), ask(proxy.port, request)
            assert relayed.status == direct.status
            assert relayed.body == direct.body
            ours = [h for h in relayed.headers if not h[0].startswith("x-understudy-")]
            framing = ("content-length", "transfer-encoding")
            assert [h for h in ours if h[0] not in framing] == [
                h for h in direct.headers if h[0] not in framing
            ]
        recorded = [a.response_body for a in proxy.ended(len(corpus))]
        understood = [r for r, q in zip(recorded, corpus, strict=True) if not q.startswith(b"GET")]
        assert understood == [ask(origin.port, q).body for q in corpus if not q.startswith(b"GET")]
