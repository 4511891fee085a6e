"""Losses and scores as pure functions of logits and labels (-100: not trained)."""

from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy


class Score(NamedTuple):
    """Sums over a batch, so that they can be added up."""

    loss: float
    tokens: int
    right_tokens: int
    right_rows: int
    rows: int

    def __add__(self, other: "Score") -> "Score":  # type: ignore[override]
        return Score(
            loss=self.loss + other.loss,
            tokens=self.tokens + other.tokens,
            right_tokens=self.right_tokens + other.right_tokens,
            right_rows=self.right_rows + other.right_rows,
            rows=self.rows + other.rows,
        )


NOTHING = Score(0.0, 0, 0, 0, 0)


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in float32, summed over the trained tokens; the caller divides by their count.

    Dividing each micro-batch by its own count weighs accumulation wrongly (transformers#34191).
    """
    return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")


def score(logits: torch.Tensor, labels: torch.Tensor) -> Score:
    """A row is right if every trained token is the most likely one.

    That is what greedy decoding would have to write to match it, so no generation is needed.
    """
    trained = labels != -100
    right = (logits.argmax(-1) == labels) | ~trained
    return Score(
        loss=summed_loss(logits, labels).item(),
        tokens=int(trained.sum()),
        right_tokens=int((right & trained).sum()),
        right_rows=int(right.all(-1).sum()),
        rows=len(labels),
    )


def token_logprobs(logits: torch.Tensor, labels: torch.Tensor) -> list[list[float]]:
    """Natural log-probabilities of the labels, one list per row, untrained positions left out."""
    logs = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return [row[kept].tolist() for row, kept in zip(logs, labels != -100, strict=True)]
