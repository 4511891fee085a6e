"""Write a student's folder: adapter, card and probe, whole or not at all.

The adapter is unmerged safetensors, what vLLM and peft load. The probe holds teacher-forced
log-probabilities with and without the adapter; by them a server proves what it serves.
"""

import json
import re
import secrets
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from trainer.loss import token_logprobs
from trainer.model import Base, logits_of
from trainer.render import Example
from understudy.errors import TrainingError
from understudy.lake import Lake

Card = dict[str, Any]
_PROBES = 8
_TRIES = 100


def export(base: Base, lora: Any, examples: Sequence[Example], card: Card, folder: Path) -> None:
    """Write adapter, `student.json` and `probe.json` into `folder`, which must not exist yet."""
    tmp = folder.with_name(f".{folder.name}.tmp-{secrets.token_hex(4)}")
    try:
        _write(base, lora, examples, {**card, "name": card.get("name", folder.name)}, tmp)
        tmp.rename(folder)
    except OSError as error:
        raise TrainingError(
            f"cannot write the student to {folder}: {error.strerror}; name another place"
        ) from error
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def export_next(lake: Lake, base: Base, lora: Any, examples: Sequence[Example], card: Card) -> Path:
    """Export as `<workload>-NNNN`, the next number that nobody has taken."""
    parent = lake.path(f"students/{card['workload']}")
    for _ in range(_TRIES):
        folder = parent / f"{card['workload']}-{_highest(parent, card['workload']) + 1:04d}"
        try:
            export(base, lora, examples, card, folder)
        except TrainingError:
            if not folder.exists():
                raise
        else:
            return folder
    raise TrainingError(f"no free student name in {parent}; is another trainer looping?")


@torch.inference_mode()
def probe_items(base: Base, lora: Any, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Prompts and answers with the log-probabilities of each answer's token."""
    items = []
    for example in examples[:_PROBES]:
        with lora.disable_adapter():
            plain = _logprobs(base, lora, example)
        items.append(
            {
                "prompt_ids": example.ids[: example.prompt],
                "completion_ids": example.trained,
                "logprobs": _logprobs(base, lora, example),
                "base_logprobs": plain,
            }
        )
    return items


def _write(base: Base, lora: Any, examples: Sequence[Example], card: Card, folder: Path) -> None:
    folder.mkdir(parents=True)
    lora.peft_config["default"].base_model_name_or_path = base.name
    lora.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card says nothing
    probe = {"items": probe_items(base, lora, examples)}
    (folder / "probe.json").write_text(json.dumps(probe))
    (folder / "student.json").write_text(json.dumps(_card(base, lora, card), indent=1))


def _card(base: Base, lora: Any, card: Card) -> Card:
    config = lora.peft_config["default"]
    return {
        **card,
        "base": base.name,
        "base_hash": base.hash,
        "template_hash": base.renderer.template_hash,
        "template_kwargs": base.renderer.kwargs,
        "stop_ids": base.renderer.stop_ids,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "lora": {
            "rank": config.r,
            "alpha": config.lora_alpha,
            "modules": sorted(config.target_modules),
        },
    }


def _logprobs(base: Base, model: Any, example: Example) -> list[float]:
    batch = base.batch([example])
    return token_logprobs(logits_of(model, batch), batch.labels)[0]


def _highest(parent: Path, workload: str) -> int:
    taken = re.compile(re.escape(workload) + r"-(\d+)$")
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    return max((int(found[1]) for name in names if (found := taken.match(name))), default=0)
