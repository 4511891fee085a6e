"""A student's folder as the trainer wrote it, and whether its adapter fits a base, before loading.

The checks need no torch: shapes are read from the headers of the safetensors files. What vLLM
cannot serve (DoRA, saved modules, biases) is refused for both engines, so that a student that
works on a laptop works in production.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from understudy.errors import ServingError

T = TypeVar("T")
Shapes = dict[str, tuple[int, ...]]
_PREFIX = "base_model.model."


class ProbeItem(msgspec.Struct, frozen=True):
    """One prompt and answer with the trainer's log-probabilities, with and without the adapter."""

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    base_logprobs: list[float]


class _Probe(msgspec.Struct, frozen=True):
    items: list[ProbeItem]


class _Card(msgspec.Struct, frozen=True):
    name: str
    base: str
    base_hash: str
    workload: str = ""
    dataset_hash: str = ""
    run_id: str | None = None
    stop_ids: list[int] = []
    template_kwargs: dict[str, Any] = {}
    metrics: dict[str, Any] = {}


class _Lora(msgspec.Struct, frozen=True):
    r: int
    peft_type: str = "LORA"
    bias: str = "none"
    use_dora: bool = False
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] = {}


class Student(msgspec.Struct, frozen=True):
    """What serving needs to know of a student."""

    name: str
    folder: Path
    card: _Card
    rank: int
    items: list[ProbeItem]


def read_student(folder: Path) -> Student:
    """Read the folder; ServingError names what is missing or cannot be served."""
    card = _read(folder / "student.json", _Card)
    lora = _read(folder / "adapter_config.json", _Lora)
    items = _read(folder / "probe.json", _Probe).items
    if not items or not any(item.completion_ids for item in items):
        raise ServingError(f"{folder}/probe.json has no items; export the student again")
    if not (folder / "adapter_model.safetensors").is_file():
        raise ServingError(f"{folder} has no adapter_model.safetensors; export the student again")
    _check_kind(folder, lora)
    return Student(
        card.name, folder.resolve(), card, max([lora.r, *lora.rank_pattern.values()]), items
    )


def check_fit(student: Student, base: Path, base_hash: str) -> None:
    """ServingError unless the adapter was trained on this base and its shapes fit."""
    shapes = {
        name: s
        for path in sorted(base.glob("*.safetensors"))
        for name, s in tensor_shapes(path).items()
    }
    for module, (rank_in, rank_out) in _pairs(student.folder / "adapter_model.safetensors"):
        weight = shapes.get(f"{module}.weight")
        if weight is None:
            raise ServingError(
                f"student {student.name!r} does not fit {base}: the base has no "
                f"{module}; serve it with its own base {student.card.base!r}"
            )
        if (rank_out[0], rank_in[1]) != weight:
            raise ServingError(
                f"student {student.name!r} does not fit {base}: {module} is {weight[0]}x{weight[1]}"
                f" there, the adapter is for {rank_out[0]}x{rank_in[1]}; "
                f"serve it with its own base {student.card.base!r}"
            )
    if student.card.base_hash != base_hash:
        raise ServingError(
            f"student {student.name!r} was trained on other weights of {student.card.base!r} (hash "
            f"{student.card.base_hash[:12]}) than {base} holds ({base_hash[:12]}); train it again"
        )


def tensor_shapes(path: Path) -> Shapes:
    """Names and shapes of a safetensors file, from its header alone."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        return {n: tuple(t["shape"]) for n, t in header.items() if n != "__metadata__"}
    except (OSError, ValueError, KeyError, struct.error, MemoryError, OverflowError) as error:
        raise ServingError(f"{path} is no safetensors file: {error}; write it again") from error


def _pairs(path: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Each adapted module with the shapes of its A [rank, in] and B [out, rank]."""
    shapes = tensor_shapes(path)
    for name, shape in shapes.items():
        if not name.endswith(".lora_A.weight"):
            continue
        stem = name.removesuffix(".lora_A.weight")
        other = shapes.get(f"{stem}.lora_B.weight")
        if other is None or len(shape) != 2 or len(other) != 2 or shape[0] != other[1]:
            raise ServingError(f"{path}: {stem} has no matching pair of A and B; export it again")
        yield stem.removeprefix(_PREFIX), (shape, other)


def _check_kind(folder: Path, lora: _Lora) -> None:
    odd = {
        "peft_type": lora.peft_type != "LORA",
        "use_dora": lora.use_dora,
        "modules_to_save": bool(lora.modules_to_save),
        "bias": lora.bias != "none",
    }
    if found := [name for name, is_odd in odd.items() if is_odd]:
        raise ServingError(
            f"{folder}: {', '.join(found)} of adapter_config.json cannot be served; "
            "train a plain LoRA"
        )


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ServingError(
            f"cannot read {path}: {error.strerror}; is this a folder that `understudy train` made?"
        ) from error
    except msgspec.DecodeError as error:
        raise ServingError(f"{path} cannot be read: {error}; export the student again") from error
