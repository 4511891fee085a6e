"""Checkpoints of a run: adapter, Adam's moments and counters, as safetensors and JSON.

A checkpoint is a folder that is renamed into place when it is whole, so a kill at any moment leaves
the last good one. Nothing else is needed to go on: the order of the batches follows from the seed.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from understudy.errors import TrainingError

_LATEST, _BEST = "checkpoint", "best"
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Progress(NamedTuple):
    """How far a run has come; `best` is the (rows right, -loss) of the best validation so far."""

    step: int = 0
    best: tuple[float, float] | None = None
    best_step: int = 0
    stale: int = 0
    fingerprint: str = ""


def save(
    run: Path,
    trained: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    at: Progress,
) -> None:
    """Replace the run's latest checkpoint."""
    tensors = {f"weight.{name}": weight.detach().cpu() for name, weight in trained.items()}
    for name, weight in trained.items():
        state = optimizer.state[weight]
        tensors |= {f"{moment}.{name}": state[moment].cpu() for moment in _MOMENTS if state}
    fresh = run / f"{_LATEST}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(tensors, fresh / "state.safetensors")
    (fresh / "progress.json").write_text(json.dumps(at._asdict()))
    old = run / f"{_LATEST}.old"
    shutil.rmtree(old, ignore_errors=True)
    if (run / _LATEST).exists():
        (run / _LATEST).rename(old)
    fresh.rename(run / _LATEST)


def restore(
    run: Path,
    trained: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
) -> Progress:
    """Bring both to the latest checkpoint; TrainingError if it is another run's."""
    folder = next((run / n for n in (_LATEST, f"{_LATEST}.old") if (run / n).is_dir()), None)
    if folder is None:
        return Progress(fingerprint=fingerprint)
    try:
        at = Progress(**json.loads((folder / "progress.json").read_text()))
        tensors = load_file(folder / "state.safetensors")
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{folder} is damaged ({error}); remove it to begin anew") from error
    if at.fingerprint != fingerprint:
        raise TrainingError(
            f"{folder} belongs to a run with another dataset, base, template or recipe; "
            "repeat that run's arguments, or name a new --out"
        )
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(tensors[f"weight.{name}"])
            optimizer.state[weight] = _moments(tensors, name, weight, at.step)
    return at._replace(best=None if at.best is None else (at.best[0], at.best[1]))


def save_best(run: Path, trained: dict[str, torch.nn.Parameter]) -> None:
    """Keep these weights as the best so far."""
    fresh = run / f"{_BEST}.new"
    save_file({name: weight.detach().cpu() for name, weight in trained.items()}, fresh)
    fresh.rename(run / f"{_BEST}.safetensors")


def load_best(run: Path, trained: dict[str, torch.nn.Parameter]) -> bool:
    """Bring the weights to the best validation's, if there was one."""
    path = run / f"{_BEST}.safetensors"
    if not path.is_file():
        return False
    tensors = load_file(path)
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(tensors[name])
    return True


def discard(run: Path) -> None:
    """Remove what only a resumed run needs."""
    for name in (_LATEST, f"{_LATEST}.old", f"{_LATEST}.new"):
        shutil.rmtree(run / name, ignore_errors=True)
    (run / f"{_BEST}.safetensors").unlink(missing_ok=True)


def _moments(
    tensors: dict[str, torch.Tensor], name: str, weight: torch.nn.Parameter, step: int
) -> dict[str, Any]:
    moments = {moment: tensors[f"{moment}.{name}"].to(weight.device) for moment in _MOMENTS}
    return {"step": torch.tensor(float(step)), **moments}
