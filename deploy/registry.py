"""The registry of students: MLflow's model registry, with aliases and their mirror in the lake.

A workload is the registered model `understudy-<workload>`; a version points to a student's folder
and is tagged with its served name, hashes and metrics. `candidate`, `champion` and `previous` are
aliases. What is in force is the lake's copy of them, which proxies and servers read and rollouts
change without MLflow; so every method first brings MLflow in line with it, and writes it last.
Importing MLflow takes seconds: import this module where it is used.
"""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from deploy.serving.student import Student, read_student
from understudy import documents
from understudy.errors import ServingError
from understudy.lake import Lake

log = logging.getLogger(__name__)

ALIASES = ("candidate", "champion", "previous")
_TAG = "understudy."


class Registered(NamedTuple):
    """One version in the registry, newest facts first."""

    name: str
    workload: str
    version: int
    folder: Path
    aliases: tuple[str, ...]
    tags: dict[str, str]


class Registry:
    """The students of all workloads."""

    def __init__(self, lake: Lake, tracking_uri: str | None = None) -> None:
        self._lake = lake
        lake.root.mkdir(parents=True, exist_ok=True)
        uri = tracking_uri or f"sqlite:///{lake.root.resolve()}/mlflow.db"
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def workloads(self) -> list[str]:
        """Every workload that has a student."""
        found = self._client.search_registered_models(filter_string="name LIKE 'understudy-%'")
        return sorted(model.name.removeprefix("understudy-") for model in found)

    def students(self, workload: str) -> list[Registered]:
        """The workload's students, newest first; empty where nothing was registered."""
        self._adopt(workload)
        return self._students(workload)

    def _students(self, workload: str) -> list[Registered]:
        versions = self._client.search_model_versions(f"name = '{_model(workload)}'")
        aliases = self._aliases(workload)
        found = [_registered(workload, version, aliases) for version in versions]
        return sorted(found, key=lambda student: -student.version)

    def student(self, workload: str, name: str) -> Registered:
        """One student by its served name."""
        for student in self.students(workload):
            if student.name == name:
                return student
        known = ", ".join(s.name for s in self.students(workload)) or "none"
        raise ServingError(
            f"no student {name!r} of workload {workload!r} is registered (known: {known}); "
            "register its folder with `understudy students register DIR`"
        )

    def register(self, folder: Path) -> Registered:
        """Register a trained student and make it the candidate; its folder must be complete."""
        student = read_student(folder)
        workload = student.card.workload
        if not workload:
            raise ServingError(f"{folder}/student.json names no workload; train it again")
        known = next((s for s in self.students(workload) if s.name == student.name), None)
        if known and known.folder != student.folder:
            raise ServingError(
                f"student {student.name!r} is registered already, from "
                f"{known.folder}; give the new one another name"
            )
        version = known.version if known else self._create(workload, student)
        self._point(workload, "candidate", version)
        return self._mirrored(workload, student.name)

    def promote(self, workload: str, name: str | None = None, *, force: bool = False) -> Registered:
        """Make the candidate (or `name`) champion, the champion previous.

        Needs a PASS of the student's newest gate verdict; `force` goes without and is recorded.
        """
        chosen = self.student(workload, name) if name else self._aliased(workload, "candidate")
        if "champion" in chosen.aliases:
            raise ServingError(f"{chosen.name!r} is the champion already")
        passed = documents.gate_passed(self._lake, workload, chosen.name)
        if not passed and not force:
            raise ServingError(
                f"the newest gate verdict on {chosen.name!r} is not PASS; run `understudy "
                "evaluate`, or promote it with --force, which is recorded"
            )
        champion = self._aliases(workload).get("champion")
        if champion is not None:
            self._point(workload, "previous", champion)
        self._point(workload, "champion", chosen.version)
        if "candidate" in chosen.aliases:
            self._client.delete_registered_model_alias(_model(workload), "candidate")
        self._tag(chosen, promoted_at=f"{time.time():.3f}", promoted_without_pass=str(not passed))
        return self._mirrored(workload, chosen.name)

    def rollback(self, workload: str) -> Registered:
        """Make the previous champion champion again; the one it replaces keeps its version only."""
        previous = self._aliased(workload, "previous")
        fallen = self._aliases(workload).get("champion")
        self._point(workload, "champion", previous.version)
        self._client.delete_registered_model_alias(_model(workload), "previous")
        for student in self._students(workload):
            if student.version == fallen:
                self._tag(student, rolled_back_at=f"{time.time():.3f}")
        return self._mirrored(workload, previous.name)

    def _create(self, workload: str, student: Student) -> int:
        if workload not in self.workloads():
            self._client.create_registered_model(_model(workload))
        card = student.card
        facts = {
            "name": student.name,
            "base": card.base,
            "base_hash": card.base_hash,
            "dataset_hash": card.dataset_hash,
            "rank": student.rank,
            "metrics": json.dumps(card.metrics, sort_keys=True),
        }
        version = self._client.create_model_version(
            _model(workload),
            source=student.folder.as_uri(),
            run_id=card.run_id or None,
            tags={_TAG + key: str(value) for key, value in facts.items()},
        )
        return int(version.version)

    def _aliased(self, workload: str, alias: str) -> Registered:
        for student in self.students(workload):
            if alias in student.aliases:
                return student
        raise ServingError(
            f"workload {workload!r} has no {alias}; "
            "see `understudy students list` for what is registered"
        )

    def _aliases(self, workload: str) -> dict[str, int]:
        if workload not in self.workloads():
            return {}
        model = self._client.get_registered_model(_model(workload))
        return {alias: int(version) for alias, version in model.aliases.items()}

    def _point(self, workload: str, alias: str, version: int) -> None:
        self._client.set_registered_model_alias(_model(workload), alias, str(version))

    def _tag(self, student: Registered, **facts: str) -> None:
        for key, value in facts.items():
            self._client.set_model_version_tag(
                _model(student.workload), str(student.version), _TAG + key, value
            )

    def _adopt(self, workload: str) -> None:
        """Move MLflow's aliases to where a rollout has put them in the lake."""
        document = documents.aliases(self._lake, workload)
        if document == documents.Aliases():
            return
        versions = {s.name: s.version for s in self._students(workload)}
        wanted = {a: versions[n] for a in ALIASES if (n := getattr(document, a)) in versions}
        held = self._aliases(workload)
        for alias in ALIASES:
            if alias in held and alias not in wanted:
                self._client.delete_registered_model_alias(_model(workload), alias)
            elif wanted.get(alias) != held.get(alias):
                self._point(workload, alias, wanted[alias])

    def _mirrored(self, workload: str, name: str) -> Registered:
        """Write the lake's copy, then the student as it is registered now."""
        students = self._students(workload)
        named: dict[str, str] = {alias: s.name for s in students for alias in s.aliases}
        documents.write_aliases(
            self._lake,
            workload,
            documents.Aliases(
                candidate=named.get("candidate"),
                champion=named.get("champion"),
                previous=named.get("previous"),
                students={s.name: _written(self._lake, s.folder) for s in students},
            ),
        )
        return next(s for s in students if s.name == name)


def _registered(workload: str, version: ModelVersion, aliases: Mapping[str, int]) -> Registered:
    tags: dict[str, Any] = version.tags
    own = {
        key.removeprefix(_TAG): str(value) for key, value in tags.items() if key.startswith(_TAG)
    }
    number = int(version.version)
    held = tuple(a for a in ALIASES if aliases.get(a) == number)
    folder = Path(str(version.source).removeprefix("file://"))
    return Registered(own["name"], workload, number, folder, held, own)


def _model(workload: str) -> str:
    return f"understudy-{workload}"


def _written(lake: Lake, folder: Path) -> str:
    """Relative to the lake where it lies in it, so that a lake mounted elsewhere still works."""
    root = lake.root.resolve()
    return str(folder.relative_to(root) if folder.is_relative_to(root) else folder)
