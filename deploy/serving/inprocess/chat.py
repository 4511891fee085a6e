"""Chat completions of the in-process server: template in, message or stream of deltas out."""

from collections.abc import AsyncIterator

from fastapi import Request

from deploy.openai_api import DONE, Json, Usage, chat_envelope, sse
from deploy.serving.inprocess.logprobs import chat_logprobs
from deploy.serving.inprocess.protocol import ChatRequest, check_context, sampling
from deploy.serving.inprocess.running import Ask, pieces, unless_gone
from deploy.serving.inprocess.sequence import Piece
from deploy.serving.inprocess.students import Students
from deploy.serving.inprocess.template import ToolText, render


class Chat:
    """One request; raises its ApiErrors when made, before any byte has gone out."""

    def __init__(self, students: Students, request: ChatRequest) -> None:
        self._students, self._request = students, request
        adapter = students.adapter(request.model)
        tools = None if request.tool_choice == "none" else request.tools
        self._splits = bool(tools) and students.tool_calls
        more = students.template_kwargs | (request.chat_template_kwargs or {})
        self.prompt = prompt = render(students.model.tokenizer, request.messages, tools, more)
        limit = request.max_completion_tokens or request.max_tokens
        room = students.model.max_length - len(prompt)
        asked = check_context(students.model.max_length, len(prompt), limit)
        how = sampling(request, room, students.end_ids, asked)
        self._asks = [Ask(prompt, adapter, how.for_choice(i)) for i in range(request.choices)]
        self._envelope = chat_envelope(request.model, None)
        self._generated = 0

    async def whole(self, http: Request) -> Json:
        """The completion as one object."""
        answers = await unless_gone(http, self._collect())
        choices = [self._choice(i, answers[i]) for i in range(len(self._asks))]
        return self._envelope.whole(choices, self._usage())

    async def stream(self) -> AsyncIterator[bytes]:
        """The completion as server-sent events."""
        texts = [ToolText() for _ in self._asks]
        for i in range(len(self._asks)):
            yield self._event(i, {"role": "assistant", "content": ""})
        async for i, piece in self._pieces(stream=True):
            text = texts[i].feed(piece.text) if self._splits else piece.text
            calls: list[Json] = []
            if piece.finish and self._splits:
                rest, calls = texts[i].finish()
                text += rest
            if text or self._request.logprobs:
                yield self._event(i, {"content": text}, piece)
            for number, call in enumerate(calls):
                yield self._event(i, {"tool_calls": [{"index": number} | call]})
            if piece.finish:
                yield self._event(i, {}, None, "tool_calls" if calls else piece.finish)
        if self._request.include_usage:
            yield sse(self._envelope.usage_chunk(self._usage()))
        yield DONE

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
        content = piece.text
        calls: list[Json] = []
        if self._splits:
            split = ToolText()
            content = split.feed(piece.text)
            rest, calls = split.finish()
            content += rest
        message: Json = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message |= {"content": content.strip() or None, "tool_calls": calls}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(piece),
            "finish_reason": "tool_calls" if calls else piece.finish,
        }

    def _event(
        self, index: int, delta: Json, piece: Piece | None = None, finish: str | None = None
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": piece and self._logprobs(piece),
            "finish_reason": finish,
        }
        return sse(self._envelope.chunk(choice, include_usage=self._request.include_usage))

    def _logprobs(self, piece: Piece) -> Json | None:
        if not self._request.logprobs:
            return None
        return chat_logprobs(piece.tokens, self._students.decode)

    def _usage(self) -> Usage:
        return Usage(len(self._asks[0].prompt), self._generated)
