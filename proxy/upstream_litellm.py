"""A teacher that does not speak OpenAI, translated by LiteLLM behind the same four events.

Importing this module imports litellm (2 s, 300k objects): only `teacher.litellm` leads here.
Nothing of a request may steer LiteLLM itself (api_base, credentials, callbacks): fields pass by an
allow-list, and one beyond it is a 400 that says so. Its logging, retries and cost map stay unused.
"""

import asyncio
import logging
import os
from typing import Any

import msgspec

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else fetched at import
import litellm

from proxy.message import Head
from proxy.upstream import END, Event, Failure, FailureKind, Listener, Outgoing

log = logging.getLogger(__name__)
litellm.suppress_debug_info = True
litellm.telemetry = False

_CHAT = frozenset(
    [
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "n",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "user",
        "response_format",
        "seed",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "logprobs",
        "top_logprobs",
        "functions",
        "function_call",
        "metadata",
        "store",
        "reasoning_effort",
        "thinking",
        "modalities",
        "prediction",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "verbosity",
        "web_search_options",
    ]
)
_NOT_FOR_LITELLM = frozenset({"model", "metadata", "store", "safety_identifier"})
_JSON = b"content-type: application/json\r\n"
_SSE = b"content-type: text/event-stream\r\ncache-control: no-cache\r\n"


class LiteLLMUpstream:
    """One LiteLLM model as a teacher."""

    def __init__(self, model: str, api_base: str | None, key: str | None) -> None:
        self.model: str | None = model
        self.name = f"litellm:{model.partition('/')[0]}"
        self.api_base, self.key = api_base, key

    def call(self, outgoing: Outgoing, listener: Listener) -> "LiteLLMCall":
        return LiteLLMCall(self, outgoing, listener)


class LiteLLMCall:
    """One translated request under way."""

    def __init__(self, upstream: LiteLLMUpstream, outgoing: Outgoing, listener: Listener) -> None:
        self._upstream, self._outgoing, self._listener = upstream, outgoing, listener
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def write(self, data: bytes) -> None:
        pass  # a streamed body belongs to an endpoint that cannot be translated: already refused

    def write_end(self) -> None:
        pass

    def pause(self) -> None:
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    def abort(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        try:
            arguments = self._arguments()
        except ValueError as error:
            self._answer_error(400, str(error), "invalid_request_error")
            return
        try:
            answer = await litellm.acompletion(**arguments)
            if arguments.get("stream"):
                await self._stream(answer)
            else:
                body = answer.model_dump_json(exclude_none=True).encode()
                self._listener.receive([_head(200, _JSON, len(body)), body, END])
        except (litellm.exceptions.APIConnectionError, litellm.exceptions.Timeout) as error:
            kind: FailureKind = (
                "timeout" if isinstance(error, litellm.exceptions.Timeout) else "connect"
            )
            self._listener.receive([Failure(kind, _said(error))])
        except Exception as error:  # LiteLLM's and its providers' errors have no common base
            status = getattr(error, "status_code", None)
            if isinstance(status, int) and 400 <= status < 600:
                self._answer_error(status, _said(error), getattr(error, "type", None))
            else:
                log.exception("litellm failed")
                self._listener.receive([Failure("provider", type(error).__name__)])

    async def _stream(self, answer: Any) -> None:
        first = True
        try:
            async for chunk in answer:
                await self._may_read.wait()
                text = chunk.model_dump_json(exclude_none=True, exclude_unset=True)
                event = b"data: %b\n\n" % text.encode()
                self._listener.receive([_head(200, _SSE, None), event] if first else [event])
                first = False
        except Exception as error:
            if first:
                raise
            log.warning("litellm stream broke off: %s", type(error).__name__)
            self._listener.receive([Failure("closed", _said(error))])
            return
        start: list[Event] = [_head(200, _SSE, None)] if first else []
        self._listener.receive([*start, b"data: [DONE]\n\n", END])

    def _arguments(self) -> dict[str, Any]:
        """The request as LiteLLM's arguments; ValueError says what cannot be translated."""
        outgoing = self._outgoing
        if outgoing.endpoint != "chat.completions" or outgoing.body is None:
            path = outgoing.request.path
            raise ValueError(f"{path}: this teacher is translated for /v1/chat/completions only")
        try:
            body = msgspec.json.decode(outgoing.body)
        except msgspec.DecodeError as error:
            raise ValueError(f"request body is no JSON: {error}") from error
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            raise ValueError("request body needs `messages`")
        unknown = sorted(set(body) - _CHAT - _NOT_FOR_LITELLM)
        if unknown:
            raise ValueError(f"{unknown[0]!r} cannot be translated for {self._upstream.name}")
        arguments = {key: value for key, value in body.items() if key not in _NOT_FOR_LITELLM}
        return arguments | {
            "model": self._upstream.model,
            "api_base": self._upstream.api_base,
            "api_key": self._upstream.key or _bearer(outgoing),
            "num_retries": 0,
            "max_retries": 0,
            "timeout": 600,
        }

    def _answer_error(self, status: int, message: str, kind: str | None) -> None:
        error = {"message": message, "type": kind or "upstream_error", "param": None, "code": None}
        body = msgspec.json.encode({"error": error})
        self._listener.receive([_head(status, _JSON, len(body)), body, END])


def _head(status: int, block: bytes, length: int | None) -> Head:
    kind = block.partition(b"\r\n")[0].partition(b": ")[2].decode()
    return Head(status, b"", block, length, length is None, kind, None, None)


def _bearer(outgoing: Outgoing) -> str | None:
    """The caller's key, which the provider gets where the operator set none."""
    value = outgoing.request.header(b"authorization") or ""
    return value.partition(" ")[2] or outgoing.request.header(b"x-api-key")


def _said(error: Exception) -> str:
    return str(getattr(error, "message", "") or type(error).__name__)
