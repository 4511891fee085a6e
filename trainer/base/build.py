"""Build the base's folder: tokenizer, weights in bfloat16, and the card that says how."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from trainer.base.pretrain import Recipe, Step, build_model, pretrain
from trainer.base.tokenizer import build_tokenizer
from understudy.errors import TrainingError

_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# Understudy's small base

A causal language model of {parameters:,} parameters (Qwen3 architecture, bfloat16, byte-level BPE
of {vocabulary:,} tokens, chat template with tool calls) for demos, tests and machines without a
GPU. It is a base to put a LoRA on, and knows little by itself. Any other causal model takes its
place with `--base`.

Made by `understudy base build --out DIR` of this repository and nothing else: its text comes from
the hand-written grammar `trainer/base/grammar.yaml` (intents of customers in 12 domains, extraction
to JSON, copying, look-up, replies, everyday prose). No data set, no other model's output. The
built-in triage task is not in it.

| | |
|---|---|
| tokens seen | {tokens:,} ({steps:,} steps of {rows} x {row_tokens}) |
| final loss (nats per token, answers weigh 1, prompts {prompt_weight}) | {loss:.3f} |
| time | {seconds:.0f} s, torch {torch}, {threads} thread(s), {device} |

Recipe: `{recipe}`
"""


def build(
    recipe: Recipe,
    out: Path,
    device: str = "cpu",
    threads: int | None = None,
    report: Callable[[dict[str, float]], None] = lambda _: None,
) -> dict[str, Any]:
    """Make and write the base; returns its figures. TrainingError if `out` holds something."""
    if out.exists() and any(out.iterdir()):
        raise TrainingError(f"{out} is not empty; name a new folder with --out")
    if threads:
        torch.set_num_threads(threads)
    began = time.monotonic()
    losses: list[float] = []

    def on_step(step: Step) -> None:
        losses.append(step.loss)
        report({**step._asdict(), "step": step.number, "steps": recipe.steps})

    tokenizer = build_tokenizer(recipe.seed, recipe.vocabulary)
    model = build_model(recipe, tokenizer)
    pretrain(recipe, tokenizer, model, device, on_step)
    net: Any = model
    net.to(device="cpu", dtype=torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    figures = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": sum(losses[-50:]) / len(losses[-50:]),
        "seconds": time.monotonic() - began,
        "tokens": recipe.steps * recipe.rows * recipe.row_tokens,
    }
    (out / "README.md").write_text(_card(recipe, figures, device))
    (out / "model.safetensors").chmod(0o644)  # written as 0600, but it is package data
    return figures


def _card(recipe: Recipe, figures: dict[str, Any], device: str) -> str:
    return _CARD.format(
        **{**asdict(recipe), **figures},
        recipe=json.dumps(asdict(recipe)),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        device=device,
    )
