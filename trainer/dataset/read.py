"""Read a dataset folder back: manifest and the rows of each side."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.dataset.split import SIDES, Side
from understudy.errors import DatasetError

Row = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """A dataset as `understudy dataset build` wrote it."""

    folder: Path
    manifest: dict[str, Any]
    sides: dict[Side, list[Row]]

    @property
    def workload(self) -> str:
        """The workload that its students belong to."""
        return str(self.manifest["recipe"]["workload"])


def read_dataset(folder: Path) -> Dataset:
    """The folder's rows; DatasetError names what is missing, damaged or empty."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        sides = {side: _rows(folder / f"{side}.jsonl") for side in SIDES}
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{folder} holds no dataset ({error}); name a folder of `understudy dataset build`"
        ) from error
    if not sides["train"]:
        raise DatasetError(f"{folder}/train.jsonl has no rows; build it from a wider window")
    return Dataset(folder, manifest, sides)


def _rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
