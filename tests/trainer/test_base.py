"""The small base: the committed one is whole and small, its text never the test task."""

import json
import random
from pathlib import Path

import torch
from transformers import AutoConfig

from trainer.base import BUILTIN
from trainer.base.corpus import document
from trainer.base.grammar import expand, grammar
from trainer.base.tokenizer import ROLES
from trainer.model import Base, load_base
from understudy import triage
from understudy.base_model import find_base
from understudy.cli import main


def _documents(seed: int, count: int) -> list[list[dict[str, str]]]:
    rng = random.Random(seed)
    return [document(rng) for _ in range(count)]


def test_the_corpus_follows_from_the_seed() -> None:
    assert _documents(1, 300) == _documents(1, 300)
    assert _documents(1, 300) != _documents(2, 300)


def test_every_line_of_the_grammar_expands() -> None:
    known, rng = grammar(), random.Random(0)
    lines = [*known.contexts, *known.sentences, *known.tails, *known.openers, *known.replies]
    lines += [line for said in known.issues.values() for line in said]
    for line in lines:
        for _ in range(20):
            text = expand(line, rng, {"o": "card"})
            assert text
            assert not set("[]{}|") & set(text), line


def test_documents_end_with_an_answer_and_differ() -> None:
    documents = _documents(3, 2000)
    assert all(messages[-1]["role"] == "assistant" for messages in documents)
    assert all(message["content"] for messages in documents for message in messages)
    assert len({json.dumps(messages) for messages in documents}) > 1950


def test_the_test_task_is_not_in_the_corpus() -> None:
    """The demo must show learning: the base has seen neither the task nor its sentences."""
    text = json.dumps(_documents(4, 20_000)).casefold()
    assert triage.SYSTEM_PROMPT.casefold() not in text
    phrases = [words for words, _ in triage._rules(triage.INTENTS) if len(words) > 20]
    seen = [words for words in phrases if words in text]
    assert len(seen) < len(phrases) / 10, seen


def test_the_committed_base_is_small_and_whole() -> None:
    folder = find_base("builtin")
    assert folder == BUILTIN
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
    assert (folder / "README.md").read_text().startswith("---\n")
    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == "qwen3"


def test_the_committed_base_takes_any_text() -> None:
    tokenizer = load_base("builtin", "cpu").renderer.tokenizer
    odd = "Zażółć gęślą jaźń 😀\n\t{}[]<x>  2 spaces"
    assert tokenizer.decode(tokenizer.encode(odd, add_special_tokens=False)) == odd


def test_the_committed_base_follows_the_shape_of_a_task_before_any_training() -> None:
    base = load_base("builtin", "cpu")
    asked = "Name the intent. Write it like flight_late."
    for said, intent in (
        ("I lost my card in Paris.", "card_lost"),
        ("How do I cancel my hotel?", "hotel_cancel"),
        ("Someone stole my bicycle!", "bicycle_stolen"),
    ):
        assert _written(base, said, asked) == intent


def _written(base: Base, user: str, system: str) -> str:
    """Greedy answer of the base."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    text = base.renderer.text(messages, None, add_generation_prompt=True)
    ids = torch.tensor([base.renderer.tokenizer.encode(text, add_special_tokens=False)])
    written = base.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False
    )[0, ids.shape[1] :]
    return str(base.renderer.tokenizer.decode(written, skip_special_tokens=True))


def test_the_command_builds_a_base_that_loads(tmp_path: Path) -> None:
    out = tmp_path / "base"
    words = ["base", "build", "--out", str(out), "--steps", "2", "--hidden", "32", "--layers", "1"]
    assert main([*words, "--threads", "1", "--json"]) == 0
    base = load_base(str(out), "cpu")
    assert base.hidden == 32
    assert set(ROLES.values()) <= set(base.renderer.tokenizer.get_vocab())
    assert "2 steps" in (out / "README.md").read_text()
    assert main([*words]) == 1, "a folder that holds something is left alone"
