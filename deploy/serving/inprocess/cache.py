"""The key-value cache of a batch whose rows come and go: left-padded, merged, thinned out.

Rows are aligned at their right end, so that one forward pass extends all of them; the mask says
which columns are a row's own. Keys carry their rotary position already, therefore padding a row on
the left does not move it. For models whose layers all attend to the full context.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache


class Batch:
    """Keys and values of some rows, and which of the columns count for each row."""

    def __init__(self, cache: DynamicCache, mask: Tensor) -> None:
        self.cache, self.mask = cache, mask

    @property
    def positions(self) -> Tensor:
        """The position of each row's next token, as a column: [rows, 1]."""
        return self.mask.sum(dim=1, keepdim=True)

    def extend(self) -> None:
        """Make room for one more token in every row."""
        self.mask = pad(self.mask, (0, 1), value=1)

    def merge(self, other: "Batch") -> None:
        """Take over the rows of `other`, after our own."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        for mine, theirs in zip(self._layers(), other._layers(), strict=True):
            mine.keys = torch.cat([_widened(mine.keys, width), _widened(theirs.keys, width)])
            mine.values = torch.cat([_widened(mine.values, width), _widened(theirs.values, width)])
        left = width - self.mask.shape[1], width - other.mask.shape[1]
        self.mask = torch.cat([pad(self.mask, (left[0], 0)), pad(other.mask, (left[1], 0))])

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, and the columns that none of them needs."""
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        first = int(mask.argmax(dim=1).min())
        self.mask = mask[:, first:]
        for layer in self._layers():
            layer.keys = layer.keys[index, :, first:]
            layer.values = layer.values[index, :, first:]

    def _layers(self) -> list[Any]:  # transformers types a union of which only one kind is here
        return list(self.cache.layers)


def _widened(states: Tensor, width: int) -> Tensor:
    return pad(states, (0, 0, width - states.shape[2], 0))
