"""The small base model: grammar, corpus, tokenizer, pre-training; the result lies in `model/`."""

from pathlib import Path

BUILTIN = Path(__file__).with_name("model")
