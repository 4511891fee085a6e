"""A tiny Qwen3 with a LoRA student, made here in seconds: small, yet trained until it answers.

The student says `red` to "apple" and so on and stops; its folder has what docs/contracts.md asks.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.deploy.conftest import FACTS
from understudy.base_model import base_hash

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }} "
    'Call one by <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\n{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    '{% for c in m.tool_calls or [] %}<tool_call>{"name": {{ c.function.name | tojson }}, '
    '"arguments": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}<|im_end|>\n'
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 256


def make_base(folder: Path, *, hidden: int = 64, seed: int = 0) -> Path:
    """A random base with tokenizer and chat template."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.3,  # tied embeddings bound the logits; 0.02 could never be sure
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_student(
    folder: Path,
    base: Path,
    name: str,
    facts: dict[str, str] = FACTS,
    *,
    rank: int = 8,
    ends: bool = True,
) -> Path:
    """Train a LoRA on the facts and write the student's folder; `ends=False` forgets to stop."""
    torch.manual_seed(1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    net: Any = Qwen3ForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5 by a deprecated name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        model: Any = get_peft_model(
            net, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=MODULES)
        )
    rows = [_row(tokenizer, asked, said, ends) for asked, said in facts.items()]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=1e-2)
    for _ in range(60):
        loss: Any = sum(-_logprobs(model, *row).mean() for row in rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss.item() < 0.02:
            break
    model.eval().save_pretrained(folder)
    _write_cards(folder, base, name, model, rows, rank)
    return folder


def _write_cards(
    folder: Path, base: Path, name: str, model: Any, rows: list[Any], rank: int
) -> None:
    items = []
    with torch.no_grad():
        for prompt, completion in rows:
            with model.disable_adapter():
                untrained = _logprobs(model, prompt, completion).tolist()
            trained = _logprobs(model, prompt, completion).tolist()
            items.append(
                {
                    "prompt_ids": prompt,
                    "completion_ids": completion,
                    "logprobs": trained,
                    "base_logprobs": untrained,
                }
            )
    (folder / "probe.json").write_text(json.dumps({"items": items}))
    (folder / "student.json").write_text(
        json.dumps(
            {
                "name": name,
                "workload": name.rsplit("-", 1)[0],
                "base": str(base),
                "base_hash": base_hash(base),
                "dataset": "facts",
                "dataset_hash": "f" * 64,
                "template_hash": "0" * 64,
                "metrics": {"loss": 0.01},
                "created_at": 0.0,
                "run_id": None,
                "stop_ids": [rows[0][1][-1]],
                "lora": {"r": rank},
            }
        )
    )


def _row(tokenizer: Any, asked: str, said: str, ends: bool) -> tuple[list[int], list[int]]:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True, return_dict=False
    )
    completion = [*tokenizer(said)["input_ids"], tokenizer.eos_token_id]
    return list(prompt), completion if ends else completion[:-1]


def _logprobs(model: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt + completion])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1)[range(len(completion)), completion]


def _tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    text = [f"{a} {b} user assistant system tool" for a, b in FACTS.items()] * 4
    raw.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer
