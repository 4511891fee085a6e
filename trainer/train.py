"""The training loop: LoRA on a dataset's answers, flat, from first step to best weights.

CPU or GPU, one process. The loss is normalised by the trained tokens of the whole batch, however it
is split for accumulation. A run that is killed goes on from its last checkpoint to the same end.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import torch

from trainer import checkpoint
from trainer.batches import plan, split
from trainer.dataset.read import Dataset, Row
from trainer.loss import NOTHING, Score, score, summed_loss
from trainer.model import Base, add_lora, logits_of
from trainer.recipe import Recipe, rate
from trainer.render import Example
from understudy.errors import DatasetError, TrainingError

Metrics: TypeAlias = dict[str, float]
_CHECKPOINT_S = 30.0


@dataclass(frozen=True)
class Prepared:
    """A dataset rendered for a base: training and validation examples, rows left out."""

    train: list[Example]
    validation: list[Example]
    too_long: int


@dataclass(frozen=True)
class Trained:
    """The outcome: the model with its best weights in place, and the figures."""

    lora: Any
    metrics: Metrics
    finished: bool


def prepare(base: Base, dataset: Dataset, recipe: Recipe) -> Prepared:
    """Render every row (the preflight: each must train its answer and its end token)."""
    pinned = dataset.manifest["recipe"].get("template_hash")
    if pinned not in (None, base.renderer.template_hash):
        raise TrainingError(
            f"{dataset.folder} was rendered with template {pinned[:12]}, {base.name} has "
            f"{base.renderer.template_hash[:12]}; build the dataset again with --base {base.name}"
        )
    limit = min(recipe.max_tokens, int(base.model.config.max_position_embeddings))
    rendered = [_rendered(base, dataset.sides[side]) for side in ("train", "validation")]
    kept = [[e for e in examples if len(e.ids) <= limit] for examples in rendered]
    too_long = sum(map(len, rendered)) - sum(map(len, kept))
    if not kept[0]:
        raise DatasetError(
            f"all {too_long} rows of {dataset.folder} are longer than {limit} tokens; "
            "raise --max-tokens or choose a base with a longer context"
        )
    return Prepared(kept[0], kept[1], too_long)


def fingerprint(base: Base, dataset: Dataset, recipe: Recipe) -> str:
    """What a run is: with the same fingerprint a checkpoint may be continued."""
    parts = [dataset.manifest["hash"], base.hash, base.renderer.template_hash, recipe.as_dict()]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def train(
    base: Base,
    prepared: Prepared,
    recipe: Recipe,
    run: Path,
    identity: str,
    report: Callable[[Metrics], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train to the end, to early stopping, or until `stop`, which leaves a checkpoint behind."""
    lora = add_lora(base, recipe)
    weights = {name: p for name, p in lora.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        weights.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    at = checkpoint.restore(run, weights, optimizer, identity)
    per_epoch = math.ceil(len(prepared.train) / recipe.batch_size)
    steps = max(1, round(recipe.epochs * per_epoch))
    batches = plan(prepared.train, recipe.batch_size, recipe.seed, at.step // per_epoch)
    saved = time.monotonic()
    metrics: Metrics = {}
    while at.step < steps and at.stale < recipe.patience:
        began = time.perf_counter()
        epoch, index = divmod(at.step, per_epoch)
        if index == 0:
            batches = plan(prepared.train, recipe.batch_size, recipe.seed, epoch)
        parts = split(batches[index], recipe.accumulate, base.vocabulary)
        pieces = [base.batch(part) for part in parts]
        trained_tokens = sum(piece.trained_tokens for piece in pieces)
        loss = 0.0
        for piece in pieces:
            share = summed_loss(logits_of(lora, piece), piece.labels) / trained_tokens
            share.backward()
            loss += share.item()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), recipe.clip)
        if not math.isfinite(loss) or not torch.isfinite(norm):
            raise TrainingError(
                f"the loss is {loss} at step {at.step + 1}; lower --lr {recipe.learning_rate:g}"
            )
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate(at.step, steps, recipe.warmup)
        optimizer.step()
        optimizer.zero_grad()
        at = at._replace(step=at.step + 1, fingerprint=identity)
        tokens = sum(piece.tokens for piece in pieces)
        metrics = {
            "step": at.step,
            "steps": steps,
            "epoch": at.step / per_epoch,
            "loss": loss,
            "gradient_norm": norm.item(),
            "learning_rate": optimizer.param_groups[0]["lr"],
            "tokens_per_s": tokens / (time.perf_counter() - began),
        }
        if prepared.validation and (at.step % per_epoch == 0 or at.step == steps):
            found = evaluate(base, lora, prepared.validation, recipe.batch_size)
            metrics |= _validation(found)
            merit = (found.right_rows / found.rows, -found.loss / found.tokens)
            if at.best is None or merit > at.best:
                checkpoint.save_best(run, weights)
                at = at._replace(best=merit, best_step=at.step, stale=0)
            else:
                at = at._replace(stale=at.stale + 1)
        report(metrics)
        stopping = stop()
        if stopping or time.monotonic() - saved > _CHECKPOINT_S or "validation_loss" in metrics:
            checkpoint.save(run, weights, optimizer, at)
            saved = time.monotonic()
        if stopping:
            return Trained(lora, metrics, finished=False)
    if at.best is not None and checkpoint.load_best(run, weights):
        metrics |= {"validation_exact": at.best[0], "validation_loss": -at.best[1]}
        metrics["best_step"] = at.best_step
    return Trained(lora.eval(), metrics, finished=True)


@torch.inference_mode()
def evaluate(base: Base, model: Any, examples: Sequence[Example], batch_size: int) -> Score:
    """Teacher-forced score over examples; the order does not matter."""
    total = NOTHING
    for rows in plan(examples, batch_size, 0, 0):
        batch = base.batch(rows)
        total += score(logits_of(model, batch), batch.labels)
    return total


def _rendered(base: Base, rows: Sequence[Row]) -> list[Example]:
    return [base.renderer.example(row) for row in rows]


def _validation(found: Score) -> Metrics:
    return {
        "validation_loss": found.loss / found.tokens,
        "validation_exact": found.right_rows / found.rows,
        "validation_token_accuracy": found.right_tokens / found.tokens,
    }
