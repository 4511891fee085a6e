"""The OpenAI wire format as our own servers speak it: the stand-in teacher and the student server.

Requests are read by partial structs (unknown fields are ignored, as OpenAI ignores none of ours);
answers are plain dicts rendered here, once, whole or as server-sent events; an error has OpenAI's
shape whatever raised it. Pure but for the two ASGI adapters at the end: no tokens, no models.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.errors import ServingError
from understudy.ids import uuid7

Json = dict[str, Any]
T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}

_KIND = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
}


class ApiError(ServingError):
    """An answer in OpenAI's error shape; headers are such as `retry-after`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = dict(headers or {})

    def body(self) -> Json:
        """`{"error": {...}}`; the type follows from the status, as the clients map it."""
        kind = _KIND.get(self.status, "server_error" if self.status >= 500 else "api_error")
        about = {"type": kind, "param": self.param, "code": self.code}
        return {"error": {"message": str(self)} | about}


class StreamOptions(msgspec.Struct, frozen=True):
    """`stream_options`: whether the stream ends with a chunk of usage."""

    include_usage: bool = False


def read(body: bytes, kind: type[T]) -> T:
    """Decode a request into `kind`; bad JSON or a wrong type is a 400 that names the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise ApiError(400, f"the request body cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Usage:
    """Counted tokens of one answer; `cached` of the prompt were served from a cache."""

    prompt: int
    completion: int
    cached: int = 0

    def as_chat(self) -> Json:
        """The `usage` object of completions."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every object and chunk of one answer repeats."""

    id: str
    created: int
    model: str
    system_fingerprint: str | None
    family: Literal["chat.completion", "text_completion"] = "chat.completion"

    def whole(self, choices: list[Json], usage: Usage) -> Json:
        """The answer as one object."""
        return self._object(self.family, choices) | {"usage": usage.as_chat()}

    def chunk(self, choice: Json, *, include_usage: bool) -> Json:
        """One event of a stream; with `include_usage` every chunk but the last has a null usage."""
        event = self._object(self._chunk_kind(), [choice])
        return event | {"usage": None} if include_usage else event

    def usage_chunk(self, usage: Usage) -> Json:
        """The extra last event that `stream_options.include_usage` asks for."""
        return self._object(self._chunk_kind(), []) | {"usage": usage.as_chat()}

    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.family == "chat.completion" else self.family

    def _object(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": self.system_fingerprint,
        }


def chat_envelope(model: str, fingerprint: str | None) -> Envelope:
    """A fresh identity for a chat completion."""
    return Envelope(f"chatcmpl-{uuid7()}", int(time.time()), model, fingerprint)


def text_envelope(model: str, fingerprint: str | None) -> Envelope:
    """A fresh identity for a text completion."""
    return Envelope(f"cmpl-{uuid7()}", int(time.time()), model, fingerprint, "text_completion")


def model_card(model: str, **more: Any) -> Json:
    """One entry of `GET /v1/models`."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "understudy"} | more


def sse(event: Any, name: str | None = None) -> bytes:
    """One server-sent event; `name` adds the `event:` line that the Responses API has."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(event) + b"\n\n"


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`body` as JSON, encoded by msgspec."""
    return Response(
        msgspec.json.encode(body), status, dict(headers or {}), media_type="application/json"
    )


def speak_openai(app: FastAPI) -> None:
    """Give `app` OpenAI's manners: error shape, `x-request-id`, `openai-processing-ms`."""

    async def on_api_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return json_response(error.body(), error.status, error.headers)

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{error.detail}: {request.method} {request.url.path}"
        return json_response(ApiError(error.status_code, message).body(), error.status_code)

    async def on_fault(_: Request, error: Exception) -> Response:
        return json_response(ApiError(500, f"{type(error).__name__}: {error}").body(), 500)

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_fault)
    app.add_middleware(RequestHeaders)


class RequestHeaders:
    """Plain ASGI: every answer gets a request id and the time that its first byte took."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = f"req_{uuid7().replace('-', '')}"
                headers["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
            await send(message)

        await self._app(scope, receive, send_with_headers)
