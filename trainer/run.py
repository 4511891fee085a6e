"""A run's folder and where its figures go: `metrics.jsonl`, `run.json`, and MLflow.

`run.json` is the resolved configuration with the code's revision, written before the first step.
MLflow is spoken to by its client, without global state; by default into SQLite in the lake.
"""

import importlib.metadata
import json
import logging
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from understudy.errors import TrainingError

log = logging.getLogger(__name__)
Metrics = dict[str, float]


class MetricsFile:
    """`metrics.jsonl`: a line per step; a resumed run first cuts what it will do again."""

    def __init__(self, folder: Path, after_step: int) -> None:
        self.path = folder / "metrics.jsonl"
        known = self.path.read_text().splitlines() if self.path.is_file() else []
        kept = [line for line in known if _step(line) <= after_step]
        self.path.write_text("".join(f"{line}\n" for line in kept))

    def __call__(self, metrics: Metrics) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(metrics) + "\n")


class Tracker:
    """A run in MLflow; figures are sent every few seconds, since each sending is a transaction."""

    def __init__(self, uri: str, experiment: str, artifacts: Path, name: str) -> None:
        # mlflow takes seconds to import, and says much about its database's first migration.
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient(tracking_uri=uri)
            known = self._client.get_experiment_by_name(experiment)
            # Without a place of its own SQLite's artefacts would land in the working directory.
            where = str(artifacts) if uri.startswith("sqlite:") else None
            found = (
                known.experiment_id if known else self._client.create_experiment(experiment, where)
            )
            self.run_id: str = self._client.create_run(found, run_name=name).info.run_id
        except (MlflowException, OSError) as error:
            raise TrainingError(
                f"MLflow at {uri} cannot be used: {str(error).splitlines()[0]}; "
                "set --tracking-uri, or --tracking-uri none to do without"
            ) from error
        self._pending: list[Metrics] = []
        self._sent = time.monotonic()

    def parameters(self, values: dict[str, Any]) -> None:
        """Log the run's parameters."""
        from mlflow.entities import Param

        params = [Param(key, str(value)[:500]) for key, value in values.items()]
        self._client.log_batch(self.run_id, params=params)

    def __call__(self, metrics: Metrics) -> None:
        self._pending.append(metrics)
        if time.monotonic() - self._sent > 5 or "validation_loss" in metrics:
            self._send()

    def end(self, status: str, final: Metrics | None = None) -> None:
        """Send what is pending and close the run as FINISHED, FAILED or KILLED."""
        if final:
            self._pending.append({f"final_{key}": v for key, v in final.items()} | {"step": -1})
        self._send()
        self._client.set_terminated(self.run_id, status)

    def _send(self) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [
            Metric(key, value, now, max(0, int(metrics["step"])))
            for metrics in self._pending
            for key, value in metrics.items()
            if key not in ("step", "steps")
        ]
        for at in range(0, len(points), 1000):
            self._client.log_batch(self.run_id, metrics=points[at : at + 1000])
        self._pending, self._sent = [], time.monotonic()


def open_run(folder: Path, resolved: dict[str, Any], *, resume: bool) -> None:
    """Make the run's folder with `run.json`; without `resume` an earlier attempt is removed."""
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**resolved, "code": revision()}, indent=1))


def resumed_step(folder: Path) -> int:
    """The step of the checkpoint that a run will go on from."""
    try:
        return int(json.loads((folder / "checkpoint" / "progress.json").read_text())["step"])
    except FileNotFoundError:
        return 0


def revision() -> dict[str, str | None]:
    """Version of the package, and the commit if it runs from a checkout."""
    git = shutil.which("git")
    commit = None
    if git:
        asked = subprocess.run(
            [git, "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
        commit = asked.stdout.strip() or None
    return {"version": importlib.metadata.version("understudy"), "commit": commit}


def several(*reports: Callable[[Metrics], None]) -> Callable[[Metrics], None]:
    """One report that feeds all."""

    def report(metrics: Metrics) -> None:
        for each in reports:
            each(metrics)

    return report


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        log.warning("metrics.jsonl had a torn line; it is left out")
        return 2**62
