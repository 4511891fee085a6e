"""One answer being generated: what was asked, which tokens came, what text may already go out.

Text is held back while it may still become a stop string or while a character is incomplete, so
that what was sent never has to be taken back. Touched by the worker thread only, but for
`cancelled`, which the event loop sets when the client has left. Knows no tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

Finish = Literal["stop", "length", "error"]


class Token(NamedTuple):
    """A token with its natural-log probability and the most probable ones beside it, if asked."""

    id: int
    logprob: float | None = None
    rank: int | None = None
    top: tuple[tuple[int, float], ...] = ()


class Piece(NamedTuple):
    """What a sequence hands out at once; the last one has a finish reason."""

    text: str
    tokens: tuple[Token, ...]
    finish: Finish | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose tokens and when to stop; `logprobs` counts alternatives, None means none."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < 1e-5

    def for_choice(self, index: int) -> "Sampling":
        """The same for one of several choices: each has a seed of its own."""
        return self if self.seed is None else replace(self, seed=self.seed + index)


@dataclass(eq=False)
class Sequence:
    """A prompt on its way through the engine; `emit` is called on the worker's thread."""

    prompt: list[int]
    adapter: str | None
    sampling: Sampling
    tokenizer: Tokenizer
    emit: Callable[[Piece], None]
    stream: bool = False
    cancelled: bool = False
    prompt_tokens: list[Token | None] = field(default_factory=list)
    generator: Any = None  # a torch.Generator, made and used by sampling.py
    tokens: list[Token] = field(default_factory=list)
    _unsent: list[Token] = field(default_factory=list)
    _held: str = ""
    _decoded: int = 0

    def __post_init__(self) -> None:
        self._decoder = DecodeStream(skip_special_tokens=True)

    def add(self, token: Token) -> bool:
        """Take the next token; emits what is ready and says whether the sequence has ended."""
        self.tokens.append(token)
        self._unsent.append(token)
        if token.id in self.sampling.stop_ids:
            return self._end("stop")
        text = self._decoder.step(self.tokenizer, token.id) or ""
        self._decoded += len(text)
        self._held += text
        cut = min((at for s in self.sampling.stop if (at := self._held.find(s)) >= 0), default=-1)
        if cut >= 0:
            self._held = self._held[:cut]
            return self._end("stop", complete=False)
        if len(self.tokens) >= self.sampling.max_tokens:
            return self._end("length")
        if self.stream:
            self._send(self._safe_length(), None)
        return False

    def fail(self, reason: str) -> None:
        """End with an error that the caller will see."""
        self.emit(Piece("", (), "error", reason))

    def _end(self, finish: Finish, *, complete: bool = True) -> bool:
        if complete:  # bytes of an unfinished character that the decoder still keeps
            ids = [token.id for token in self.tokens if token.id not in self.sampling.stop_ids]
            self._held += self.tokenizer.decode(ids)[self._decoded :]
        self._send(len(self._held), finish)
        return True

    def _safe_length(self) -> int:
        """Characters that cannot be the beginning of a stop string any more."""
        for start in range(len(self._held)):
            if any(stop.startswith(self._held[start:]) for stop in self.sampling.stop):
                return start
        return len(self._held)

    def _send(self, length: int, finish: Finish | None) -> None:
        if not length and finish is None:
            return
        text, self._held = self._held[:length], self._held[length:]
        self.emit(Piece(text, tuple(self._unsent), finish))
        self._unsent = []
