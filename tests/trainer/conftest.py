"""A base of a few thousand parameters, made once, and datasets of a few rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.base.pretrain import Recipe as BaseRecipe
from trainer.base.pretrain import build_model
from trainer.base.tokenizer import build_tokenizer
from trainer.model import Base, load_base

torch.set_num_threads(1)  # the models are too small to share

COLOURS = ("red", "green", "blue", "white")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base's folder with random weights and a real tokenizer and template."""
    folder = tmp_path_factory.mktemp("tiny")
    recipe = BaseRecipe(
        vocabulary=512, hidden=32, layers=2, intermediate=64, heads=2, kv_heads=1, seed=3
    )
    tokenizer = build_tokenizer(recipe.seed, recipe.vocabulary, documents=500)
    model = build_model(recipe, tokenizer)
    model.model.embed_tokens.weight.data *= 5  # so that logits reach far enough to learn
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path) -> Base:
    """The tiny base, loaded afresh: training wraps its modules."""
    return load_base(str(tiny_folder), "cpu")


def row(number: int) -> dict[str, Any]:
    """A row whose answer is the colour that the question names."""
    colour = COLOURS[number % len(COLOURS)]
    words = " ".join(["really"] * (number % 5))
    return {
        "messages": [
            {"role": "system", "content": "Which colour is it? Answer by one word, please."},
            {"role": "user", "content": f"My {words} {colour} box number {number}."},
            {"role": "assistant", "content": colour},
        ],
        "meta": {"exchange_id": str(number)},
    }


def write_dataset(
    folder: Path, train: int = 24, validation: int = 8, template_hash: str | None = None
) -> Path:
    """A dataset's folder as `understudy dataset build` would have written it."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": train, "validation": validation, "test": 4}
    for side, size in sizes.items():
        lines = [json.dumps(row(number)) + "\n" for number in range(size)]
        (folder / f"{side}.jsonl").write_text("".join(lines))
    recipe = {"workload": "colours", "template_hash": template_hash}
    (folder / "manifest.json").write_text(json.dumps({"hash": "c0" * 32, "recipe": recipe}))
    return folder


@pytest.fixture
def dataset_folder(tmp_path: Path) -> Path:
    """24 rows to train on, 8 to validate."""
    return write_dataset(tmp_path / "dataset")
