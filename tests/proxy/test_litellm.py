"""A teacher that speaks Anthropic, through LiteLLM's real adapter, against a stand-in server."""

import json
from pathlib import Path

import openai
import pytest

from tests.proxy.origin import Line, Origin, Received, sized
from tests.proxy.running import Proxy, ask, chat, post

MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
    "content": [{"type": "text", "text": "bonjour"}], "stop_reason": "end_turn",
    "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 2},
}  # fmt: skip
EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "bon"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "jour"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


async def anthropic(request: Received, line: Line) -> None:
    """Anthropic's messages API, as far as it is needed."""
    assert request.line.startswith(b"POST /v1/messages ")
    asked = json.loads(request.body)
    if "overload" in json.dumps(asked):
        error = {"type": "error", "error": {"type": "rate_limit_error", "message": "too fast"}}
        await line.send(sized(json.dumps(error).encode(), "429 Too Many Requests"))
    elif asked.get("stream"):
        await line.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )
        for event in EVENTS:
            text = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
            await line.send(text.encode(), pause_s=0.01)
        line.close()
    else:
        await line.send(sized(json.dumps(MESSAGE).encode()))


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pydantic.PydanticDeprecatedSince20"
)
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_anthropic_teacher_answers_openai_clients(tmp_path: Path) -> None:
    with Origin(anthropic) as origin:
        teacher = {
            "litellm": "anthropic/claude-x",
            "litellm_api_base": f"http://127.0.0.1:{origin.port}",
        }
        with Proxy(tmp_path, teacher=teacher) as proxy:
            with openai.OpenAI(base_url=proxy.url, api_key="sk-caller", max_retries=0) as client:
                said = [{"role": "user", "content": "hello"}]
                answer = client.chat.completions.create(model="gpt-4o", messages=said, max_tokens=9)
                assert answer.choices[0].message.content == "bonjour"
                assert answer.usage is not None
                assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 2)
                stream = client.chat.completions.create(model="gpt-4o", messages=said, stream=True)
                text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
                assert text == "bonjour"
                with pytest.raises(openai.RateLimitError, match="too fast"):
                    client.chat.completions.create(
                        model="gpt-4o", messages=[{"role": "user", "content": "overload"}]
                    )
            # Nothing in a body may steer LiteLLM itself.
            for field in ("api_base", "base_url", "api_key", "custom_llm_provider", "user_config"):
                evil = ask(proxy.port, post(chat(**{field: "http://169.254.169.254/"})))
                assert evil.status == 400
                assert field in evil.json["error"]["message"]
            assert ask(proxy.port, post(b"{")).status == 400
            assert ask(proxy.port, post(b"{}", "/v1/embeddings")).status == 400
            attempts = proxy.ended(10)
    assert len(origin.requests) == 3
    assert origin.requests[0].header("x-api-key") == b"sk-caller"
    first, streamed, limited = attempts[:3]
    assert first.request["provider"] == "litellm:anthropic"
    assert first.request["model_sent"] == "anthropic/claude-x"
    assert json.loads(first.response_body)["choices"][0]["message"]["content"] == "bonjour"
    assert streamed.response_body.endswith(b"data: [DONE]\n\n")
    assert limited.response is not None
    assert limited.response["status"] == 429
