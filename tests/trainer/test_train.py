"""The loop: learns answer and end, goes on after a kill to the same weights, refuses nonsense."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.conftest import write_dataset
from trainer.dataset.read import read_dataset
from trainer.model import Base, add_lora, load_base
from trainer.recipe import Recipe, rate, resolve
from trainer.train import Trained, fingerprint, prepare, train
from understudy.cli import main
from understudy.errors import DatasetError, TrainingError

RECIPE = Recipe(epochs=3, rank=8, alpha=32, learning_rate=1e-2, batch_size=6, patience=99)


def _run(
    base: Base, dataset: Path, run: Path, recipe: Recipe = RECIPE, stop_at: int = 10**9
) -> tuple[Trained, list[dict[str, float]]]:
    run.mkdir(exist_ok=True)
    seen: list[dict[str, float]] = []
    read = read_dataset(dataset)
    identity = fingerprint(base, read, recipe)
    prepared = prepare(base, read, recipe)
    trained = train(
        base, prepared, recipe, run, identity, seen.append, lambda: len(seen) >= stop_at
    )
    return trained, seen


def _weights(trained: Trained) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trained.lora.named_parameters() if p.requires_grad}


def test_it_learns_the_answers_and_to_stop(
    tiny: Base, dataset_folder: Path, tmp_path: Path
) -> None:
    """Random weights of 32 dimensions learn four colours by their LoRA alone."""
    recipe = dataclasses.replace(RECIPE, epochs=12, rank=32)
    trained, seen = _run(tiny, dataset_folder, tmp_path / "run", recipe)
    assert trained.metrics["validation_exact"] > 0.6
    assert seen[-1]["loss"] < seen[0]["loss"]
    prompt = tiny.renderer.example(read_dataset(dataset_folder).sides["validation"][1])
    ids = torch.tensor([prompt.ids[: prompt.prompt]])
    written = trained.lora.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False
    )[0, ids.shape[1] :]
    assert written[-1].item() in tiny.renderer.stop_ids, "the student stops by itself"


def test_a_stopped_run_ends_as_the_uninterrupted_one(
    tiny_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    whole, _ = _run(load_base(str(tiny_folder), "cpu"), dataset_folder, tmp_path / "whole")
    first, _ = _run(
        load_base(str(tiny_folder), "cpu"), dataset_folder, tmp_path / "parts", stop_at=5
    )
    assert not first.finished
    second, seen = _run(load_base(str(tiny_folder), "cpu"), dataset_folder, tmp_path / "parts")
    assert seen[0]["step"] == 6
    for name, weight in _weights(whole).items():
        torch.testing.assert_close(_weights(second)[name], weight, rtol=1e-5, atol=1e-7)
    assert second.metrics["validation_loss"] == pytest.approx(whole.metrics["validation_loss"])


def test_accumulation_gives_the_same_run(
    tiny_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    recipes = [dataclasses.replace(RECIPE, epochs=1, accumulate=parts) for parts in (1, 6)]
    ends = [
        _run(load_base(str(tiny_folder), "cpu"), dataset_folder, tmp_path / str(at), recipe)
        for at, recipe in enumerate(recipes)
    ]
    assert [m["loss"] for m in ends[0][1]] == pytest.approx(
        [m["loss"] for m in ends[1][1]], rel=1e-3
    )


def test_the_best_validation_wins_and_patience_ends_a_run(
    tiny: Base, dataset_folder: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=50, learning_rate=1.0, patience=2)
    trained, seen = _run(tiny, dataset_folder, tmp_path / "run", recipe)
    assert seen[-1]["step"] < seen[-1]["steps"]
    merits = [
        (m["validation_exact"], -m["validation_loss"]) for m in seen if "validation_loss" in m
    ]
    assert (trained.metrics["validation_exact"], -trained.metrics["validation_loss"]) == max(merits)


def test_a_checkpoint_of_another_run_is_refused(
    tiny: Base, tiny_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    _run(tiny, dataset_folder, tmp_path / "run", stop_at=2)
    other = dataclasses.replace(RECIPE, learning_rate=5e-3)
    with pytest.raises(TrainingError, match="another dataset, base, template or recipe"):
        _run(load_base(str(tiny_folder), "cpu"), dataset_folder, tmp_path / "run", other)


def test_an_exploding_loss_is_an_error(tiny: Base, dataset_folder: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"lower --lr 1e\+30"):
        _run(tiny, dataset_folder, tmp_path / "run", recipe)


def test_a_dataset_of_another_template_is_refused(tiny: Base, tmp_path: Path) -> None:
    dataset = read_dataset(write_dataset(tmp_path / "d", template_hash="f" * 64))
    with pytest.raises(TrainingError, match="rendered with template ffffffffffff"):
        prepare(tiny, dataset, RECIPE)


def test_rows_that_are_too_long_are_left_out_and_counted(tiny: Base, dataset_folder: Path) -> None:
    dataset = read_dataset(dataset_folder)
    lengths = sorted(len(tiny.renderer.example(row).ids) for row in dataset.sides["train"])
    limit = lengths[len(lengths) // 2]
    prepared = prepare(tiny, dataset, dataclasses.replace(RECIPE, max_tokens=limit))
    assert len(prepared.train) == sum(length <= limit for length in lengths)
    assert prepared.too_long >= len(lengths) - len(prepared.train) > 0
    with pytest.raises(DatasetError, match="longer than 3 tokens"):
        prepare(tiny, dataset, dataclasses.replace(RECIPE, max_tokens=3))


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no rows"):
        read_dataset(write_dataset(tmp_path / "d", train=0))
    with pytest.raises(DatasetError, match="holds no dataset"):
        read_dataset(tmp_path / "nothing")


@pytest.mark.parametrize("rank", [1, 4, 12, 1024])
def test_a_rank_that_vllm_does_not_serve_is_refused(rank: int) -> None:
    with pytest.raises(TrainingError, match=f"rank {rank} cannot be served"):
        resolve(256, 100, rank=rank)


@pytest.mark.parametrize("name", ["learning_rate", "epochs", "batch_size"])
def test_a_recipe_without_progress_is_refused(name: str) -> None:
    with pytest.raises(TrainingError, match=name):
        resolve(256, 100, **{name: 0})


def test_the_rate_rises_falls_and_ends_at_zero() -> None:
    rates = [rate(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == 0


def test_every_linear_layer_is_adapted_and_nothing_else(tiny: Base) -> None:
    lora = add_lora(tiny, RECIPE)
    trained = {n.split(".lora_")[0].rsplit(".", 1)[-1] for n, p in lora.named_parameters()
               if p.requires_grad}  # fmt: skip
    assert trained == {
        *("q_proj", "k_proj", "v_proj", "o_proj"), *("gate_proj", "up_proj", "down_proj")
    }  # fmt: skip


def test_a_missing_gpu_is_refused(tiny_folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="cuda is not available"):
        load_base(str(tiny_folder), "cuda")
    with pytest.raises(TrainingError, match="no device 'toaster'"):
        load_base(str(tiny_folder), "toaster")


def _words(base: Path, dataset: Path, out: Path, lake: Path) -> list[str]:
    return [
        *("train", "--dataset", str(dataset)),
        *("--base", str(base), "--out", str(out), "--lake", str(lake), "--threads", "1"),
        *("--epochs", "30", "--rank", "8", "--lr", "0.01", "--batch-size", "6"),
        *("--patience", "99", "--tracking-uri", "none", "--json"),
    ]


def _adapter(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "student" / "adapter_model.safetensors")


def test_a_killed_run_goes_on_to_the_same_student(
    tiny_folder: Path, dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 in the middle, then --resume: the weights of the run that nobody disturbed."""
    lake = tmp_path / "lake"
    before = signal.getsignal(signal.SIGTERM)
    assert main(_words(tiny_folder, dataset_folder, tmp_path / "quiet", lake)) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    words = _words(tiny_folder, dataset_folder, tmp_path / "killed", lake)
    command = [sys.executable, "-m", "understudy", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        checkpoint = _wait_for(tmp_path / "killed" / "runs", process)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "killed" / "student").exists()
    assert checkpoint.parent.is_dir()
    capsys.readouterr()
    assert main([*words, "--resume"]) == 0
    run = Path(json.loads(capsys.readouterr().out)["run"])
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 121)), "each step stands once in metrics.jsonl"
    wanted, found = _adapter(tmp_path / "quiet"), _adapter(tmp_path / "killed")
    assert wanted.keys() == found.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-6)


def _wait_for(runs: Path, process: "subprocess.Popen[bytes]") -> Path:
    """A checkpoint of a run in `runs` that has not finished."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        if found := list(runs.glob("*/*/checkpoint/progress.json")):
            return found[0]
        time.sleep(0.005)
    raise AssertionError("no checkpoint in time")
