"""Requests of the in-process server: OpenAI's fields and the extensions of vLLM's that are served.

Defaults are OpenAI's (temperature 1), whatever the base's generation config says; vLLM is started
so that it agrees. Limits are checked here and refused with a 400 that names the field.
"""

from typing import Any

import msgspec

from deploy.openai_api import ApiError, Json, StreamOptions
from deploy.serving.inprocess.sequence import Sampling

MAX_LOGPROBS = 20  # OpenAI's limit, and vLLM's default
MAX_CHOICES = 128


class _Common(msgspec.Struct):
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None

    @property
    def choices(self) -> int:
        """How many answers."""
        n = 1 if self.n is None else self.n
        if not 1 <= n <= MAX_CHOICES:
            raise ApiError(400, f"'n' is {n}; it must be between 1 and {MAX_CHOICES}", param="n")
        return n

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(_Common, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: list[Json]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    tools: list[Json] | None = None
    tool_choice: Any = None
    chat_template_kwargs: Json | None = None

    @property
    def alternatives(self) -> int | None:
        """How many alternatives per token, None for no logprobs at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(_Common, kw_only=True):
    """The body of `POST /v1/completions`; `prompt` may be token ids."""

    prompt: str | list[Any] = ""
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    echo: bool = False

    @property
    def alternatives(self) -> int | None:
        """How many alternatives per token, None for no logprobs at all."""
        return self.logprobs


def sampling(
    request: ChatRequest | CompletionRequest, room: int, end_ids: frozenset[int], asked: int
) -> Sampling:
    """How to generate: `asked` tokens at most; refused if the context has no such room."""
    temperature = 1.0 if request.temperature is None else request.temperature
    top_p = 1.0 if request.top_p is None else request.top_p
    of_prompt = request.prompt_logprobs if isinstance(request, CompletionRequest) else None
    _within("temperature", temperature, 0, 2)
    _within("top_p", top_p, 1e-6, 1)
    _within("max_tokens", asked, 1, max(room, 1))
    _within("logprobs", request.alternatives or 0, 0, MAX_LOGPROBS)
    _within("prompt_logprobs", of_prompt or 0, 0, MAX_LOGPROBS)
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    ends = frozenset() if request.ignore_eos else end_ids
    return Sampling(
        max_tokens=asked,
        temperature=temperature,
        top_p=top_p,
        top_k=max(request.top_k or 0, 0),
        seed=request.seed,
        stop=tuple(s for s in stop if s),
        stop_ids=ends | frozenset(request.stop_token_ids or ()),
        logprobs=request.alternatives,
        prompt_logprobs=of_prompt,
    )


def check_context(limit: int, prompt: int, asked: int | None) -> int:
    """The tokens that may be generated; OpenAI's error if prompt and answer exceed the context."""
    wanted = 1 if asked is None else asked
    if prompt + wanted > limit:
        raise ApiError(
            400,
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{prompt + wanted} tokens ({prompt} in the messages, {wanted} in the completion). "
            "Please reduce the length of the messages or completion.",
            code="context_length_exceeded",
            param="messages",
        )
    return limit - prompt if asked is None else asked


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ApiError(400, f"'{name}' is {value}; it must be in {low} to {high}", param=name)
