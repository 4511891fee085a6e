"""One call of `understudy train`: from arguments to a student's folder, with all that goes along.

Puts together base, dataset, recipe, run folder, tracker, display, loop and export, and answers
SIGTERM and SIGINT by a checkpoint. What is learnt and how is in `train.py`.
"""

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.checkpoint import discard
from trainer.dataset.read import Dataset, read_dataset
from trainer.display import Display
from trainer.export import Card, export, export_next
from trainer.model import Base, load_base
from trainer.recipe import Recipe, resolve
from trainer.run import MetricsFile, Tracker, open_run, resumed_step, several
from trainer.train import Prepared, Trained, fingerprint, prepare, train
from understudy import config
from understudy.datasets import newest
from understudy.errors import TrainingError
from understudy.lake import Lake

log = logging.getLogger(__name__)
_STOPPED = 130


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command's arguments; None where a default depends on base or config."""

    dataset: Path | None
    workload: str | None
    base: str
    lake: Path | None
    out: Path | None
    name: str | None
    epochs: float | None
    rank: int
    alpha: int | None
    lr: float | None
    batch_size: int | None
    accumulate: int
    max_tokens: int
    patience: int
    seed: int
    device: str
    threads: int | None
    experiment_name: str
    tracking_uri: str | None
    resume: bool
    config: Path
    json: bool


class Session:
    """Resolves the settings, then trains and exports once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._began = time.monotonic()

    def run(self) -> int:
        """The command's exit status: 0, or 130 after a stop that left a checkpoint."""
        asked = self._settings
        if asked.threads:
            torch.set_num_threads(asked.threads)
        lake, tracking = self._places()
        dataset = read_dataset(asked.dataset or newest(lake.root, asked.workload or ""))
        self._refuse_taken(lake, dataset)
        base = load_base(asked.base, asked.device)
        recipe = self._recipe(base, dataset)
        prepared = prepare(base, dataset, recipe)
        identity = fingerprint(base, dataset, recipe)
        folder = (asked.out or lake.path("")) / f"runs/{dataset.workload}/{identity[:16]}"
        resolved = self._resolved(base, dataset, recipe, prepared)
        open_run(folder, resolved, resume=asked.resume)
        tracker = self._tracker(tracking, lake, folder, dataset)
        if tracker:
            tracker.parameters(
                {**recipe.as_dict(), "base": base.name, "dataset": dataset.manifest["hash"]}
            )
        trained = self._train(base, prepared, recipe, folder, identity, tracker)
        if not trained.finished:
            sys.stderr.write(f"stopped at step {trained.metrics['step']}; --resume goes on\n")
            return _STOPPED
        student = self._export(lake, dataset, base, prepared, trained, tracker)
        discard(folder)
        self._print(student, folder, trained)
        return 0

    def _places(self) -> tuple[Lake, str | None]:
        """The lake, and MLflow's address (None: no tracking)."""
        asked = self._settings
        configured = config.load(asked.config) if asked.config.is_file() or not asked.lake else None
        root = asked.lake or (configured.lake if configured else Path("lake"))
        address = asked.tracking_uri or (configured.mlflow_uri if configured else None)
        address = address or f"sqlite:///{root.resolve()}/mlflow.db"
        root.mkdir(parents=True, exist_ok=True)
        return Lake(root), None if address == "none" else address

    def _refuse_taken(self, lake: Lake, dataset: Dataset) -> None:
        """Say so before hours of training, not after."""
        taken = self._target(lake, dataset)
        if taken and taken.exists():
            raise TrainingError(f"{taken} exists already; choose another --name or --out")

    def _target(self, lake: Lake, dataset: Dataset) -> Path | None:
        asked = self._settings
        if asked.out:
            return asked.out / (asked.name or "student")
        return lake.path(f"students/{dataset.workload}/{asked.name}") if asked.name else None

    def _recipe(self, base: Base, dataset: Dataset) -> Recipe:
        asked = self._settings
        return resolve(
            hidden=base.hidden,
            rows=len(dataset.sides["train"]),
            epochs=asked.epochs,
            rank=asked.rank,
            alpha=asked.alpha,
            learning_rate=asked.lr,
            batch_size=asked.batch_size,
            accumulate=asked.accumulate,
            max_tokens=asked.max_tokens,
            patience=asked.patience,
            seed=asked.seed,
        )

    def _resolved(
        self, base: Base, dataset: Dataset, recipe: Recipe, prepared: Prepared
    ) -> dict[str, Any]:
        if prepared.too_long:
            log.warning("%d rows are too long and left out", prepared.too_long)
        return {
            "recipe": recipe.as_dict(),
            "base": base.name,
            "base_hash": base.hash,
            "template_hash": base.renderer.template_hash,
            "dataset": str(dataset.folder),
            "dataset_hash": dataset.manifest["hash"],
            "device": str(base.device),
            "threads": torch.get_num_threads(),
            "rows": {"train": len(prepared.train), "validation": len(prepared.validation)},
            "too_long": prepared.too_long,
        }

    def _tracker(
        self, uri: str | None, lake: Lake, folder: Path, dataset: Dataset
    ) -> Tracker | None:
        if uri is None:
            return None
        name = self._settings.name or f"{dataset.workload} {folder.name}"
        return Tracker(uri, self._settings.experiment_name, lake.path("mlflow"), name)

    def _train(
        self,
        base: Base,
        prepared: Prepared,
        recipe: Recipe,
        folder: Path,
        identity: str,
        tracker: Tracker | None,
    ) -> Trained:
        sinks: list[Any] = [MetricsFile(folder, resumed_step(folder))]
        sinks += [tracker] if tracker else []
        status = "FAILED"
        try:
            with (
                self._stopping_on_signals(),
                Display(f"training on {len(prepared.train):,} rows") as display,
            ):
                report = several(*sinks, display)
                trained = train(base, prepared, recipe, folder, identity, report, self._stop.is_set)
            status = "FINISHED" if trained.finished else "KILLED"
        finally:
            if tracker:
                tracker.end(status)
        return trained

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the loop after its step, with a checkpoint."""
        names = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(name, lambda *_: self._stop.set()) for name in names]
        try:
            yield
        finally:
            for name, handler in zip(names, before, strict=True):
                signal.signal(name, handler)

    def _export(
        self,
        lake: Lake,
        dataset: Dataset,
        base: Base,
        prepared: Prepared,
        trained: Trained,
        tracker: Tracker | None,
    ) -> Path:
        card: Card = {
            "workload": dataset.workload,
            "dataset": str(dataset.folder),
            "dataset_hash": dataset.manifest["hash"],
            "metrics": trained.metrics,
            "run_id": tracker.run_id if tracker else None,
        }
        examples = prepared.validation or prepared.train
        target = self._target(lake, dataset)
        if target is None:
            return export_next(lake, base, trained.lora, examples, card)
        name = self._settings.name or f"{dataset.workload}-0001"
        export(base, trained.lora, examples, {**card, "name": name}, target)
        return target

    def _print(self, student: Path, folder: Path, trained: Trained) -> None:
        name = json.loads((student / "student.json").read_text())["name"]
        seconds = time.monotonic() - self._began
        if self._settings.json:
            document = {
                "name": name,
                "path": str(student),
                "run": str(folder),
                "metrics": trained.metrics,
                "seconds": round(seconds, 1),
            }
            sys.stdout.write(json.dumps(document, indent=1) + "\n")
            return
        figures = {k: v for k, v in trained.metrics.items() if k.startswith("validation")}
        shown = ", ".join(f"{key} {value:.4f}" for key, value in figures.items()) or "no validation"
        sys.stdout.write(f"student {name}: {shown} ({seconds:.0f} s)\n{student}\n")
