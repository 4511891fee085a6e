"""Tokens with their log-probabilities in the three shapes of the wire: chat, text, prompt (vLLM's).

A token that is a part of a character reads as U+FFFD, as elsewhere.
"""

from collections.abc import Callable, Sequence

from deploy.openai_api import Json
from deploy.serving.inprocess.sequence import Token

Decode = Callable[[int], str]


def chat_logprobs(tokens: Sequence[Token], decode: Decode) -> Json:
    """`choices[].logprobs` of a chat completion."""
    return {
        "content": [
            _entry(t.id, t.logprob, decode)
            | {"top_logprobs": [_entry(i, value, decode) for i, value in t.top]}
            for t in tokens
        ],
        "refusal": None,
    }


def text_logprobs(tokens: Sequence[Token], decode: Decode, offset: int = 0) -> Json:
    """`choices[].logprobs` of a text completion; `offset` is where these tokens' text begins."""
    words = [decode(token.id) for token in tokens]
    offsets = []
    for word in words:
        offsets.append(offset)
        offset += len(word)
    return {
        "tokens": words,
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [
            {decode(i): value for i, value in (*t.top, (t.id, t.logprob))} for t in tokens
        ],
        "text_offset": offsets,
    }


def prompt_logprobs(tokens: Sequence[Token | None], decode: Decode) -> list[Json | None]:
    """vLLM's `prompt_logprobs`: per prompt token a map from token id; null for the first."""
    return [None if token is None else _by_id(token, decode) for token in tokens]


def _by_id(token: Token, decode: Decode) -> Json:
    best = {
        str(i): {"logprob": value, "rank": rank, "decoded_token": decode(i)}
        for rank, (i, value) in enumerate(token.top, 1)
    }
    own = {"logprob": token.logprob, "rank": token.rank, "decoded_token": decode(token.id)}
    return {str(token.id): own} | {i: entry for i, entry in best.items() if i != str(token.id)}


def _entry(token: int, logprob: float | None, decode: Decode) -> Json:
    text = decode(token)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
