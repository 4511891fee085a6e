"""Chat and text completions of a stand-in teacher: answers rendered whole or as stream events.

Events come one token at a time; a tool call's id and name stand only in its first fragment. Every
choice of `n` is the same answer (the teacher is deterministic) under its own index. No IO.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from deploy.openai_api import Json, StreamOptions
from deploy.teacher.answer import Answer, pieces


class ChatRequest(msgspec.Struct):
    """The fields of `POST /v1/chat/completions` that change the answer."""

    messages: list[Json]
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Json] | None = None
    tool_choice: Any = None
    response_format: Json | None = None


class CompletionRequest(msgspec.Struct):
    """The fields of `POST /v1/completions` that change the answer."""

    model: str
    prompt: str | list[Any] = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    echo: bool = False


def stops(stop: str | list[str] | None) -> list[str]:
    """`stop` as a list."""
    return [stop] if isinstance(stop, str) else stop or []


def prompts(prompt: str | list[Any]) -> list[str]:
    """The prompts of a completion or embedding; token ids become words of their own."""
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [" ".join(map(str, prompt))]
    return [p if isinstance(p, str) else " ".join(map(str, p)) for p in prompt]


def chat_choice(index: int, answer: Answer) -> Json:
    """One choice of a whole chat completion."""
    message = answer.as_message() | {"refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish}


def chat_deltas(index: int, answer: Answer) -> Iterator[Json]:
    """The choices of a chat stream, in order: role, tokens, fragments of calls, finish reason."""
    yield _delta(index, {"role": "assistant", "content": "" if answer.content else None})
    for piece in pieces(answer.content or ""):
        yield _delta(index, {"content": piece})
    for number, call in enumerate(answer.tool_calls):
        head = {"index": number} | call._replace(arguments="").as_json()
        yield _delta(index, {"tool_calls": [head]})
        for piece in pieces(call.arguments):
            fragment = {"index": number, "function": {"arguments": piece}}
            yield _delta(index, {"tool_calls": [fragment]})
    yield _delta(index, {}, answer.finish)


def text_choice(index: int, answer: Answer) -> Json:
    """One choice of a whole text completion."""
    return {
        "index": index,
        "text": answer.content or "",
        "logprobs": None,
        "finish_reason": answer.finish,
    }


def text_deltas(index: int, answer: Answer) -> Iterator[Json]:
    """The choices of a text stream."""
    for piece in pieces(answer.content or ""):
        yield text_choice(index, answer._replace(content=piece)) | {"finish_reason": None}
    yield text_choice(index, answer._replace(content=""))


def _delta(index: int, delta: Json, finish: str | None = None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
