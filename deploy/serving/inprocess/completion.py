"""Text completions of the in-process server: text or token ids in, `prompt_logprobs` as vLLM's."""

from collections.abc import AsyncIterator

from fastapi import Request

from deploy.openai_api import DONE, ApiError, Json, Usage, sse, text_envelope
from deploy.serving.inprocess.logprobs import prompt_logprobs, text_logprobs
from deploy.serving.inprocess.protocol import CompletionRequest, check_context, sampling
from deploy.serving.inprocess.running import Ask, pieces, unless_gone
from deploy.serving.inprocess.sequence import Piece
from deploy.serving.inprocess.students import Students

DEFAULT_MAX_TOKENS = 16  # OpenAI's default for this endpoint


class Completion:
    """One request, perhaps of several prompts; raises its ApiErrors when made."""

    def __init__(self, students: Students, request: CompletionRequest) -> None:
        self._students, self._request = students, request
        adapter = students.adapter(request.model)
        if request.echo:
            raise ApiError(400, "'echo' is not served; ask for 'prompt_logprobs'", param="echo")
        self._prompts = self._read_prompts(request.prompt)
        self._asks = [ask for prompt in self._prompts for ask in self._asks_for(prompt, adapter)]
        self._envelope = text_envelope(request.model, None)
        self._generated = 0

    async def whole(self, http: Request) -> Json:
        """The completion as one object."""
        answers = await unless_gone(http, self._collect())
        choices = [self._choice(i, answers[i]) for i in range(len(self._asks))]
        return self._envelope.whole(choices, self._usage())

    async def stream(self) -> AsyncIterator[bytes]:
        """The completion as server-sent events."""
        with_usage = self._request.include_usage
        async for i, piece in self._pieces(stream=True):
            yield sse(self._envelope.chunk(self._choice(i, piece), include_usage=with_usage))
        if with_usage:
            yield sse(self._envelope.usage_chunk(self._usage()))
        yield DONE

    def _asks_for(self, prompt: list[int], adapter: str | None) -> list[Ask]:
        request, limit = self._request, self._students.model.max_length
        wanted = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
        asked = check_context(limit, len(prompt), wanted)
        how = sampling(request, limit - len(prompt), self._students.end_ids, asked)
        return [Ask(prompt, adapter, how.for_choice(i)) for i in range(request.choices)]

    def _read_prompts(self, prompt: object) -> list[list[int]]:
        rows = prompt if isinstance(prompt, list) else [prompt]
        if rows and all(isinstance(item, int) for item in rows):
            rows = [rows]
        ids = [self._ids(row) for row in rows]
        if not ids or not all(ids):
            raise ApiError(400, "'prompt' is empty; give text or token ids", param="prompt")
        return ids

    def _ids(self, row: object) -> list[int]:
        if isinstance(row, str):
            return list(self._students.model.tokenizer(row)["input_ids"])
        size = self._students.model.vocabulary
        if isinstance(row, list) and all(isinstance(i, int) and 0 <= i < size for i in row):
            return row
        raise ApiError(400, f"'prompt' has to be text or token ids below {size}", param="prompt")

    async def _collect(self) -> dict[int, Piece]:
        return {i: piece async for i, piece in self._pieces(stream=False)}

    async def _pieces(self, *, stream: bool) -> AsyncIterator[tuple[int, Piece]]:
        students = self._students
        async for i, piece in pieces(
            students.worker, students.tokenizer, self._asks, stream=stream
        ):
            self._generated += len(piece.tokens)
            yield i, piece

    def _choice(self, index: int, piece: Piece) -> Json:
        request, decode = self._request, self._students.decode
        choice: Json = {
            "index": index,
            "text": piece.text,
            "finish_reason": piece.finish,
            "logprobs": None if request.logprobs is None else text_logprobs(piece.tokens, decode),
        }
        sequence = self._asks[index].sequence
        if request.prompt_logprobs is not None and sequence is not None:
            choice["prompt_logprobs"] = prompt_logprobs(sequence.prompt_tokens, decode)
        return choice

    def _usage(self) -> Usage:
        return Usage(sum(map(len, self._prompts)), self._generated)
