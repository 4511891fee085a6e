"""A causal language model with LoRA adapters in this process: prefill, step, load, unload.

Adapters stay unmerged, and peft itself applies them, so what is served is what was trained. One
adapter is active at a time; switching costs about a millisecond on a small model. Not thread-safe:
one worker thread owns it.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils.logging import disable_progress_bar

from deploy.serving.inprocess.cache import Batch
from deploy.serving.inprocess.sampling import described
from deploy.serving.inprocess.sequence import Token
from understudy.errors import ServingError

log = logging.getLogger(__name__)


class Model:
    """The base with its adapters; float32 on a CPU, bfloat16 on a GPU."""

    def __init__(self, base: Path, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        disable_progress_bar()
        gpu = torch.cuda.is_available()
        self.device, self.dtype = ("cuda", "bfloat16") if gpu else ("cpu", "float32")
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        net: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype=getattr(torch, self.dtype), use_safetensors=True
        )
        self._net = net.to(self.device).eval().requires_grad_(False)
        self.max_length = int(self._net.config.max_position_embeddings)
        self.vocabulary = int(self._net.config.vocab_size)
        self._peft: Any = None  # a PeftModel once there is an adapter; its modules are untyped
        self._slots: dict[str, str] = {}  # served name -> peft's name, which may hold no dots
        self._made = 0
        self._active: str | None = None

    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer: of the generation config and of the tokenizer."""
        config = self._net.generation_config.eos_token_id
        listed = config if isinstance(config, list) else [config]
        return frozenset(i for i in [*listed, self.tokenizer.eos_token_id] if i is not None)

    def load(self, name: str, folder: Path) -> None:
        """Add the adapter in `folder` under `name`, in place of one that has the name already."""
        before = self._slots.get(name)
        slot = f"slot{self._made}"
        self._made += 1
        try:
            with warnings.catch_warnings():  # peft 0.21 asks transformers 5 by a deprecated name
                warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
                self._add(slot, str(folder))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ServingError(f"adapter {folder} cannot be loaded: {error}") from error
        self._peft.eval().requires_grad_(False)
        self._slots[name] = slot
        self._active = name
        self._peft.base_model.enable_adapter_layers()
        self._peft.set_adapter(slot)
        if before is not None:
            self._peft.delete_adapter(before)

    def _add(self, slot: str, folder: str) -> None:
        if self._peft is None:
            self._peft = PeftModel.from_pretrained(
                self._net, folder, adapter_name=slot, autocast_adapter_dtype=False
            )
        else:
            self._peft.load_adapter(folder, slot, autocast_adapter_dtype=False)

    def unload(self, name: str) -> None:
        """Forget the adapter `name`."""
        self.activate(None)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Adapter .* was active")
            self._peft.delete_adapter(self._slots.pop(name))

    def activate(self, name: str | None) -> None:
        """Answer as adapter `name` from now on, or as the base."""
        if name == self._active or self._peft is None:
            return
        if name is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(self._slots[name])
        self._active = name

    @torch.inference_mode()
    def prefill(self, prompts: list[list[int]]) -> tuple[Tensor, Batch]:
        """Logits after each prompt [rows, vocabulary] and the cache to go on from."""
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device
        )
        batch = Batch(DynamicCache(), mask)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return self._forward(ids, positions, batch, 1)[:, -1], batch

    @torch.inference_mode()
    def step(self, batch: Batch, tokens: list[int]) -> Tensor:
        """Append one token to every row; logits for the next [rows, vocabulary]."""
        positions = batch.positions
        batch.extend()
        ids = torch.tensor(tokens, device=self.device).unsqueeze(1)
        return self._forward(ids, positions, batch, 1)[:, -1]

    @torch.inference_mode()
    def score(self, prompt: list[int], count: int) -> list[Token | None]:
        """The prompt's tokens with their log-probabilities; the first has none."""
        ids = torch.tensor([prompt], device=self.device)
        logits = self._net(input_ids=ids, use_cache=False).logits[0]
        logprobs = logits.float().log_softmax(-1)
        return [
            None,
            *(described(t, logprobs[i], count) for i, t in enumerate(prompt[1:])),
        ]

    def _forward(self, ids: Tensor, positions: Tensor, batch: Batch, keep: int) -> Tensor:
        output = self._net(
            input_ids=ids,
            attention_mask=batch.mask,
            position_ids=positions,
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits
        return logits
