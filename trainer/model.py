"""Load a base with its tokenizer, and put a LoRA on it: the only place that knows peft.

The base is found by `understudy.base_model` and loaded as any Hugging Face causal model; nothing
here is special to the built-in one. No remote code is run and only safetensors are read.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from trainer.batches import Batch, collate
from trainer.recipe import MODULES, Recipe
from trainer.render import Example, Renderer
from understudy.base_model import base_hash, find_base
from understudy.errors import TrainingError


@dataclass(frozen=True)
class Base:
    """A base model ready to be trained on, with what its students have to remember of it."""

    name: str
    folder: Path
    hash: str
    model: Any
    renderer: Renderer
    device: torch.device

    @property
    def hidden(self) -> int:
        """Width of the model."""
        return int(self.model.config.hidden_size)

    @property
    def vocabulary(self) -> int:
        """Rows of its head."""
        return int(self.model.config.vocab_size)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """The examples as tensors on the base's device."""
        tokenizer = self.renderer.tokenizer
        # What fills a batch never matters, the mask hides it.
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        # Caches of other kinds of layers (state space, sliding windows) are not spread over rows.
        layers = getattr(self.model.config, "layer_types", None) or ["full_attention"]
        plain = set(layers) == {"full_attention"}
        return collate(examples, int(pad), share_prefix=plain).to(self.device)


def load_base(name: str, device: str = "auto") -> Base:
    """The base's weights (float32 on CPU, bfloat16 on a GPU) and its renderer."""
    folder = find_base(name)
    place = choose_device(device)
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if place.type == "cpu" else torch.bfloat16,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{folder} cannot be loaded as a base model: {reason}") from error
    renderer = Renderer(tokenizer, _stop_ids(model))
    return Base(name, folder, base_hash(folder), model.to(place).eval(), renderer, place)


def load_renderer(name: str) -> Renderer:
    """The renderer of a base, without its weights."""
    folder = find_base(name)
    try:
        return Renderer(AutoTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder} has no usable tokenizer: {str(error)[:200]}") from error


def choose_device(wanted: str) -> torch.device:
    """`auto` takes a GPU if there is one; TrainingError for one that is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(f"device {wanted} is not available here; use --device cpu")
    try:
        return torch.device(wanted)
    except RuntimeError as error:
        raise TrainingError(f"no device {wanted!r}; use auto, cpu or cuda") from error


def add_lora(base: Base, recipe: Recipe) -> PeftModel:
    """A fresh LoRA on the linear layers of the base; the seed decides its A matrices."""
    torch.manual_seed(recipe.seed)
    names = {name.rsplit(".", 1)[-1] for name, _ in base.model.named_modules()}
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules=list(MODULES) if names.issuperset(MODULES) else "all-linear",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks for an attribute that transformers 5.23 has renamed.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        lora: PeftModel = get_peft_model(base.model, config)
    return lora


def logits_of(model: Any, batch: Batch) -> torch.Tensor:
    """Logits [rows, keep, vocabulary] at the positions before the labels; no others are computed.

    The shared prefix is run once and its keys and values are spread over the rows; gradients flow
    back through them, so loss and gradients are those of the whole rows.
    """
    cache = None
    if batch.prefix.numel():
        cache = model(input_ids=batch.prefix, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(batch.ids))
    logits: torch.Tensor = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        past_key_values=cache,
        logits_to_keep=batch.labels.shape[1],
        use_cache=cache is not None,
    ).logits
    return logits


def _stop_ids(model: Any) -> list[int]:
    ids = model.generation_config.eos_token_id if model.generation_config else None
    return ids if isinstance(ids, list) else [] if ids is None else [ids]
