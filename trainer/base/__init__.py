"""The small base model: its grammar, corpus, tokenizer, pre-training, and the committed result in `model/`."""

from pathlib import Path

BUILTIN = Path(__file__).with_name("model")
