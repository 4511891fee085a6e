"""Batches of examples: sorted by length so that little is padding, in an order that a seed decides.

Batches are formed once, of neighbours in length; an epoch only shuffles their order, by seed and
epoch alone. So a resumed run meets the same batches without having stored anything.
Padding is on the left: answers end together, and the model's head runs on their positions only.
What all prompts of a batch begin with (a system prompt, as a rule) is kept once, as its prefix.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from trainer.render import Example

_MOST_LOGITS = 2**28  # 1 GiB of float32, and as much again for their gradient
_LEAST_PREFIX = 8  # a shorter shared beginning is not worth a pass of its own


@dataclass(frozen=True)
class Batch:
    """`prefix` [1, P] stands before each row; `ids` [rows, length] are the rest, padded left.

    `mask` [rows, P + length] and `positions` [rows, length] place them; `labels` [rows, keep]
    belong to the logits at the last `keep` positions, -100 where nothing is trained.
    """

    prefix: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor

    @property
    def trained_tokens(self) -> int:
        """How many labels count in the loss."""
        return int((self.labels != -100).sum())

    @property
    def tokens(self) -> int:
        """Tokens of the rows, the shared prefix counted in each, padding in none."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        parts = (self.prefix, self.ids, self.mask, self.positions, self.labels)
        return Batch(*(part.to(device) for part in parts))


def plan(examples: Sequence[Example], size: int, seed: int, epoch: int) -> list[list[Example]]:
    """The epoch's batches. Ties in length are broken by the seed, anew in each epoch."""
    rng = random.Random(f"{seed}/{epoch}")  # noqa: S311
    ordered = sorted(examples, key=lambda example: (len(example.ids), rng.random()))
    batches = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    rng.shuffle(batches)
    return batches


def split(batch: Sequence[Example], parts: int, vocabulary: int = 1) -> Iterator[list[Example]]:
    """The batch in `parts` pieces for gradient accumulation, or in more if its logits are large."""
    logits = len(batch) * max(len(example.trained) for example in batch) * vocabulary
    parts = max(parts, math.ceil(logits / _MOST_LOGITS))
    size = math.ceil(len(batch) / min(parts, len(batch)))
    for at in range(0, len(batch), size):
        yield list(batch[at : at + size])


def collate(examples: Sequence[Example], pad_id: int, *, share_prefix: bool = True) -> Batch:
    """Cut the shared prefix, pad the rest, align labels with the logits before them."""
    shared = shared_prefix(examples) if share_prefix else 0
    # The last token predicts nothing: it is cut, and the logit before a label stands at its place.
    rests = [example.ids[shared:-1] for example in examples]
    length = max(map(len, rests))
    keep = max(len(example.trained) for example in examples)
    ids = torch.full((len(examples), length), pad_id)
    mask = torch.zeros((len(examples), shared + length), dtype=torch.long)
    mask[:, :shared] = 1
    labels = torch.full((len(examples), keep), -100)
    for row, (rest, example) in enumerate(zip(rests, examples, strict=True)):
        ids[row, length - len(rest) :] = torch.tensor(rest)
        mask[row, shared + length - len(rest) :] = 1
        labels[row, keep - len(example.trained) :] = torch.tensor(example.trained)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
    return Batch(torch.tensor([examples[0].ids[:shared]]), ids, mask, positions, labels)


def shared_prefix(examples: Sequence[Example]) -> int:
    """How many tokens all prompts begin with, leaving each its last one; 0 if that is too few."""
    first, last = min(e.ids for e in examples), max(e.ids for e in examples)
    limit = min(example.prompt for example in examples) - 1
    # What the least and the greatest list share, all between them share too.
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), limit)
    shared = min(same, limit)
    return shared if shared >= _LEAST_PREFIX and len(examples) > 1 else 0
