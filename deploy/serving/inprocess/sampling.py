"""From logits to tokens: greedy or sampled per row, with log-probabilities where they were asked.

Log-probabilities are of the raw distribution (before temperature and nucleus), as vLLM reports
them. A seeded request has a generator of its own, so that its answer does not depend on its batch.
"""

import torch
from torch import Tensor

from deploy.serving.inprocess.sequence import Sampling, Sequence, Token


def choose(logits: Tensor, rows: list[Sequence]) -> list[Token]:
    """One token for each row of `logits` [rows, vocabulary]."""
    best = logits.argmax(dim=-1).tolist()
    return [
        _with_logprobs(
            best[i] if row.sampling.greedy else _sample(logits[i], row), logits[i], row.sampling
        )
        for i, row in enumerate(rows)
    ]


def described(token: int, logprobs: Tensor, count: int) -> Token:
    """`token` with its log-probability, its rank (1 is the best) and the `count` best ones."""
    own = logprobs[token]
    rank = int((logprobs > own).sum()) + 1
    values, ids = logprobs.topk(count)
    top = zip(ids.tolist(), values.tolist(), strict=True)
    return Token(token, float(own), rank, tuple(top))


def _with_logprobs(token: int, logits: Tensor, sampling: Sampling) -> Token:
    if sampling.logprobs is None:
        return Token(token)
    return described(token, logits.float().log_softmax(-1), sampling.logprobs)


def _sample(logits: Tensor, row: Sequence) -> int:
    if row.generator is None and row.sampling.seed is not None:
        row.generator = torch.Generator(logits.device).manual_seed(row.sampling.seed)
    scaled = logits.float() / row.sampling.temperature
    ordered, ids = scaled.softmax(-1).sort(descending=True)
    if row.sampling.top_k > 0:
        ordered = ordered[: row.sampling.top_k]
    # The nucleus holds the tokens before which less than top_p has been gathered.
    kept = ordered[ordered.cumsum(0) - ordered < row.sampling.top_p]
    drawn = torch.multinomial(kept, 1, generator=row.generator)
    return int(ids[drawn])
