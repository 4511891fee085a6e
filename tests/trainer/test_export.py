"""The student's folder: peft loads it, its probe is what the reloaded adapter says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from tests.trainer.conftest import row
from trainer.export import export, export_next
from trainer.loss import token_logprobs
from trainer.model import Base, add_lora, load_base, logits_of
from trainer.recipe import Recipe
from trainer.render import Example
from understudy.errors import TrainingError
from understudy.lake import Lake

CARD: dict[str, Any] = {"workload": "colours", "metrics": {}, "dataset_hash": "d", "run_id": None}


@pytest.fixture
def lora(tiny: Base) -> Any:
    """An adapter that changes something."""
    made = add_lora(tiny, Recipe(rank=8, alpha=16))
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(2))
    return made.eval()


@pytest.fixture
def examples(tiny: Base) -> list[Example]:
    return [tiny.renderer.example(row(number)) for number in range(5)]


def test_the_probe_is_what_a_reloaded_adapter_says(
    tiny: Base, tiny_folder: Path, lora: Any, examples: list[Example], tmp_path: Path
) -> None:
    export(tiny, lora, examples, {**CARD, "name": "colours-0001"}, tmp_path / "s")
    fresh = load_base(str(tiny_folder), "cpu")
    items = json.loads((tmp_path / "s" / "probe.json").read_text())["items"]
    plain = [_logprobs(fresh, fresh.model, item) for item in items]
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        adapted = PeftModel.from_pretrained(fresh.model, str(tmp_path / "s")).eval()
    for item, base_logprobs in zip(items, plain, strict=True):
        assert item["base_logprobs"] == pytest.approx(base_logprobs, abs=1e-5)
        assert item["logprobs"] == pytest.approx(_logprobs(fresh, adapted, item), abs=1e-5)
        assert item["logprobs"] != pytest.approx(base_logprobs, abs=1e-2)
        assert item["completion_ids"][-1] in tiny.renderer.stop_ids
        assert len(item["logprobs"]) == len(item["completion_ids"])


@torch.inference_mode()
def _logprobs(base: Base, model: Any, item: dict[str, Any]) -> list[float]:
    """Over the whole sequence at once, without the trainer's batches."""
    ids = torch.tensor([item["prompt_ids"] + item["completion_ids"]])
    logs = model(input_ids=ids).logits[0].float().log_softmax(-1)
    start = len(item["prompt_ids"])
    return [logs[at - 1, ids[0, at]].item() for at in range(start, ids.shape[1])]


def test_batched_logprobs_are_those_of_single_rows(
    tiny: Base, lora: Any, examples: list[Example]
) -> None:
    batch = tiny.batch(examples)
    with torch.inference_mode():
        together = token_logprobs(logits_of(lora, batch), batch.labels)
        for example, values in zip(examples, together, strict=True):
            item = {"prompt_ids": example.ids[: example.prompt], "completion_ids": example.trained}
            assert values == pytest.approx(_logprobs(tiny, lora, item), abs=1e-5)


def test_the_card_says_what_the_student_rests_on(
    tiny: Base, lora: Any, examples: list[Example], tmp_path: Path
) -> None:
    folder = export_next(Lake(tmp_path), tiny, lora, examples, CARD)
    card = json.loads((folder / "student.json").read_text())
    assert card["name"] == folder.name == "colours-0001"
    assert card["base_hash"] == tiny.hash
    assert card["template_hash"] == tiny.renderer.template_hash
    assert card["stop_ids"] == tiny.renderer.stop_ids
    assert (card["lora"]["rank"], card["lora"]["alpha"]) == (8, 16)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert not config["use_dora"]
    assert not config["modules_to_save"]
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "probe.json", "student.json"
    }  # fmt: skip


def test_names_are_numbered_and_never_taken_twice(
    tiny: Base, lora: Any, examples: list[Example], tmp_path: Path
) -> None:
    names = [export_next(Lake(tmp_path), tiny, lora, examples, CARD).name for _ in range(2)]
    (tmp_path / "students/colours/colours-0041").mkdir()
    names.append(export_next(Lake(tmp_path), tiny, lora, examples, CARD).name)
    assert names == ["colours-0001", "colours-0002", "colours-0042"]


def test_an_existing_student_is_left_as_it_is(
    tiny: Base, lora: Any, examples: list[Example], tmp_path: Path
) -> None:
    card = {**CARD, "name": "mine"}
    export(tiny, lora, examples, card, tmp_path / "mine")
    before = (tmp_path / "mine/student.json").read_bytes()
    with pytest.raises(TrainingError, match="cannot write the student"):
        export(tiny, lora, examples, card, tmp_path / "mine")
    assert (tmp_path / "mine/student.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "no temporary folder is left"
