"""The base model's tokenizer: byte-level BPE on the generated corpus, with its chat template.

Digits stand alone, so that numbers can be copied; roles and the end of a turn are one token each,
which keeps short exchanges short. Any text can be encoded and comes back exactly.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from trainer.base.corpus import document

PAD, END = "<|pad|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
# Plain tokens, visible to a server's tool parser after decoding.
TOOL_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
# GPT-4's split, digits one by one, "_" apart from words: labels share the words' tokens.
_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def build_tokenizer(seed: int, vocabulary: int, documents: int = 40_000) -> PreTrainedTokenizerFast:
    """Learn the merges from `documents` generated documents."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    special = [PAD, END, *ROLES.values()]
    learn = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TOOL_TAGS),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(seed, documents), learn)
    bpe.add_tokens([AddedToken(tag, normalized=False) for tag in TOOL_TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES.values()),
        chat_template=Path(__file__).with_name("chat_template.jinja").read_text("utf-8"),
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def _texts(seed: int, documents: int) -> Iterator[str]:
    rng = random.Random(seed)  # noqa: S311
    for _ in range(documents):
        yield from (message["content"] for message in document(rng))
