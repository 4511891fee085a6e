"""Pre-train the small base model on the generated corpus; one flat loop, CPU or GPU.

Whole documents are packed into rows of `row_tokens` and padded. Prompts count less than answers
in the loss: what a random customer says next is noise, what it means is what should be learnt.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from trainer.base.corpus import document
from trainer.base.tokenizer import END, PAD, ROLES


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the artefact, together with the grammar."""

    seed: int = 7
    vocabulary: int = 4608
    hidden: int = 256
    layers: int = 4
    intermediate: int = 768
    heads: int = 4
    kv_heads: int = 2
    steps: int = 1500
    rows: int = 16
    row_tokens: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    prompt_weight: float = 0.3


class Step(NamedTuple):
    """What a progress display may show."""

    number: int
    loss: float
    tokens_per_s: float


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A freshly initialised Qwen3 of the recipe's size."""
    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=_token(tokenizer, END),
        pad_token_id=_token(tokenizer, PAD),
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def _token(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    found = tokenizer.convert_tokens_to_ids(text)
    assert isinstance(found, int)
    return found


def pretrain(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    model: Qwen3ForCausalLM,
    device: str = "cpu",
    on_step: Callable[[Step], None] = lambda _: None,
) -> None:
    """Train `model` in place for the recipe's steps."""
    net: Any = model  # its `to` and `compile` are typed for methods, not for modules
    net.to(device).train()
    forward: Any = torch.compile(net)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in model.parameters() if p.ndim > 1],
                "weight_decay": recipe.weight_decay,
            },
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: _rate(n, recipe.steps))
    batches = _batches(recipe, tokenizer)
    for number in range(recipe.steps):
        began = time.perf_counter()
        ids, weights = (part.to(device) for part in next(batches))
        logits = forward(input_ids=ids[:, :-1], use_cache=False).logits
        losses = cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        on_step(Step(number + 1, loss.item(), ids.numel() / (time.perf_counter() - began)))
    model.eval()


def _rate(step: int, steps: int) -> float:
    """Warm-up over 5 %, then a linear descent to zero."""
    warm = max(1, steps // 20)
    return min((step + 1) / warm, (steps - step) / (steps - warm))


def _batches(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of whole documents with their loss weights, without end."""
    rows = _rows(recipe, tokenizer)
    pad = tokenizer.pad_token_id
    while True:
        ids = torch.full((recipe.rows, recipe.row_tokens), pad)
        weights = torch.zeros(recipe.rows, recipe.row_tokens)
        for line in range(recipe.rows):
            row_ids, row_weights = next(rows)
            ids[line, : len(row_ids)] = torch.tensor(row_ids)
            weights[line, : len(row_ids)] = torch.tensor(row_weights)
        yield ids, weights


def _rows(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[list[int], list[float]]]:
    ids: list[int] = []
    weights: list[float] = []
    for doc_ids, doc_weights in _encoded(recipe, tokenizer):
        if ids and len(ids) + len(doc_ids) > recipe.row_tokens:
            yield ids, weights
            ids, weights = [], []
        ids = (ids + doc_ids)[: recipe.row_tokens]
        weights = (weights + doc_weights)[: recipe.row_tokens]


def _encoded(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[list[int], list[float]]]:
    """The chat template's rendering, message by message, so that each token knows its role."""
    rng = random.Random(recipe.seed + 1)  # noqa: S311
    opening = {role: _token(tokenizer, token) for role, token in ROLES.items()}
    end = _token(tokenizer, END)
    while True:
        ids: list[int] = []
        weights: list[float] = []
        for message in document(rng):
            content = tokenizer.encode(message["content"], add_special_tokens=False)
            ids += [opening[message["role"]], *content, end]
            weight = 1.0 if message["role"] == "assistant" else recipe.prompt_weight
            weights += [0.0, *[weight] * (len(content) + 1)]
        yield ids, weights
