"""One running stand-in teacher: its answers, the conditions it pretends, and what it remembers.

Every request waits `latency_ms`, each token `token_latency_ms`; a share of requests fails with a
500, 503 or 429 before any answer. Chance comes from one seeded generator. Usage counts as cached
what led the conversation (system prompt) once it has been seen. Speaks no HTTP.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from deploy.openai_api import DONE, ApiError, Envelope, Json, Usage, sse
from deploy.teacher.answer import Question, Teacher, pieces, prompt_tokens, text_of

KEPT_RESPONSES = 1000  # for previous_response_id; a stand-in forgets the oldest
KEPT_PREFIXES = 1000

V = TypeVar("V")


@dataclass(frozen=True)
class Conditions:
    """What the network and the model's size would do; `model` renames every answer if given."""

    latency_ms: float = 0.0
    token_latency_ms: float = 0.0
    error_rate: float = 0.0
    seed: int = 0
    model: str | None = None


@dataclass
class Stage:
    """One running teacher: its answers, its conditions, and what it remembers."""

    teacher: Teacher
    conditions: Conditions
    chance: random.Random = field(init=False)
    kept: OrderedDict[str, list[Json]] = field(default_factory=OrderedDict)
    prefixes: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.conditions.seed)  # noqa: S311 - weather, not secrets

    def model(self, requested: str) -> str:
        """The model that an answer names: ours if we have a name, else the one asked for."""
        return self.conditions.model or requested

    async def begin(self) -> None:
        """The wait before the first byte, then perhaps an error."""
        await asyncio.sleep(self.conditions.latency_ms / 1000)
        if self.chance.random() < self.conditions.error_rate:
            status = self.chance.choice((500, 503, 429))
            retry = {"retry-after": "1", "retry-after-ms": "200"} if status == 429 else None
            raise ApiError(
                status,
                f"injected by --error-rate {self.conditions.error_rate}",
                code="injected",
                headers=retry,
            )

    async def token(self, count: int = 1) -> None:
        """The time that `count` tokens take."""
        if self.conditions.token_latency_ms:
            await asyncio.sleep(count * self.conditions.token_latency_ms / 1000)

    def usage(self, question: Question, completion: int) -> Usage:
        """Counted tokens; a leading system prompt that was seen before is cached."""
        prefix = _prefix(question.messages)
        cached = len(pieces(prefix)) if prefix in self.prefixes else 0
        _remember(self.prefixes, prefix, None, KEPT_PREFIXES)
        return Usage(prompt_tokens(question), completion, cached)

    def keep(self, response_id: str, conversation: list[Json]) -> None:
        """Remember a conversation under its response's id."""
        _remember(self.kept, response_id, conversation, KEPT_RESPONSES)

    def conversation(self, response_id: str | None) -> list[Json]:
        """What a `previous_response_id` stands for."""
        if response_id is None:
            return []
        if response_id not in self.kept:
            raise ApiError(
                404,
                f"Response with id '{response_id}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return self.kept[response_id]

    async def paced(
        self, choices: Iterator[Json], envelope: Envelope, usage: Usage, include_usage: bool
    ) -> AsyncIterator[bytes]:
        """A completion's stream, one token per event and tick."""
        for choice in choices:
            yield sse(envelope.chunk(choice, include_usage=include_usage))
            await self.token()
        if include_usage:
            yield sse(envelope.usage_chunk(usage))
        yield DONE

    async def named(self, events: Iterator[Json]) -> AsyncIterator[bytes]:
        """A response's stream, one token per event and tick."""
        for event in events:
            yield sse(event, event["type"])
            if event["type"].endswith(".delta"):
                await self.token()

    def fingerprint(self) -> str:
        """The `system_fingerprint`: which kind of teacher answered."""
        return f"fp_{type(self.teacher).__name__.lower()}"


def _prefix(messages: list[Json]) -> str:
    first = messages[0] if messages else {}
    return text_of(first.get("content")) if first.get("role") in ("system", "developer") else ""


def _remember(memory: OrderedDict[str, V], key: str, value: V, limit: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > limit:
        memory.popitem(last=False)
