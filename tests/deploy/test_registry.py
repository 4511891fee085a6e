"""The registry on a real MLflow (SQLite): aliases move as they should, and the lake knows."""

import json
from pathlib import Path

import pytest

from deploy.registry import Registry
from tests.deploy.command import Command
from understudy import documents
from understudy.errors import ServingError
from understudy.lake import Lake

# MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates; goes when MLflow has moved on.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NAMES = ("triage-0001", "triage-0002", "triage-0003")


def make_folder(folder: Path, name: str, workload: str = "triage") -> Path:
    """A student's folder with all that the registry looks at; nothing of it is ever loaded."""
    folder.mkdir(parents=True)
    card = {
        "name": name,
        "workload": workload,
        "base": "builtin",
        "base_hash": "b" * 64,
        "dataset_hash": "d" * 64,
        "metrics": {"loss": 0.5},
    }
    item = {"prompt_ids": [1], "completion_ids": [2], "logprobs": [-0.1], "base_logprobs": [-3.0]}
    (folder / "student.json").write_text(json.dumps(card))
    (folder / "probe.json").write_text(json.dumps({"items": [item]}))
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").write_bytes(b"not read here")
    return folder


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database whose tables exist: making them takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    Registry(Lake(folder)).workloads()
    return folder / "mlflow.db"


@pytest.fixture
def lake(tmp_path: Path, database: Path) -> Lake:
    root = tmp_path / "lake"
    root.mkdir()
    (root / "mlflow.db").write_bytes(database.read_bytes())
    return Lake(root)


@pytest.fixture
def registry(lake: Lake) -> Registry:
    registry = Registry(lake)
    for name in NAMES:
        registry.register(make_folder(lake.root / "students" / "triage" / name, name))
        gate(lake, name, "PASS")
    return registry


def gate(lake: Lake, name: str, word: documents.Word) -> None:
    documents.write_verdict(
        lake,
        documents.Verdict(
            workload="triage", student=name, kind="gate", signal="exact", verdict=word, evidence={}
        ),
    )


def aliases(lake: Lake) -> tuple[str | None, str | None, str | None]:
    found = documents.aliases(lake, "triage")
    return found.candidate, found.champion, found.previous


def test_the_newest_registered_student_is_the_candidate(registry: Registry, lake: Lake) -> None:
    assert aliases(lake) == ("triage-0003", None, None)
    assert [s.version for s in registry.students("triage")] == [3, 2, 1]
    folders = documents.aliases(lake, "triage").students
    assert folders == {name: f"students/triage/{name}" for name in NAMES}
    tags = registry.student("triage", "triage-0001").tags
    assert (tags["dataset_hash"], json.loads(tags["metrics"])) == ("d" * 64, {"loss": 0.5})


def test_promotion_and_rollback_move_the_aliases(registry: Registry, lake: Lake) -> None:
    registry.promote("triage")
    assert aliases(lake) == (None, "triage-0003", None)
    registry.promote("triage", "triage-0001")
    assert aliases(lake) == (None, "triage-0001", "triage-0003")
    restored = registry.rollback("triage")
    assert restored.name == "triage-0003"
    assert aliases(lake) == (None, "triage-0003", None)
    assert "rolled_back_at" in registry.student("triage", "triage-0001").tags
    with pytest.raises(ServingError, match="has no previous"):
        registry.rollback("triage")


@pytest.mark.parametrize("words", [["FAIL"], ["UNDERPOWERED"], ["PASS", "FAIL"]])
def test_without_a_pass_nobody_is_promoted_but_by_force(
    lake: Lake, words: list[documents.Word]
) -> None:
    registry = Registry(lake)
    registry.register(make_folder(lake.root / "s", "triage-0009"))
    for word in words:
        gate(lake, "triage-0009", word)
    with pytest.raises(ServingError, match="not PASS"):
        registry.promote("triage")
    assert aliases(lake) == ("triage-0009", None, None)
    forced = registry.promote("triage", force=True)
    assert forced.tags["promoted_without_pass"] == "True"
    assert aliases(lake) == (None, "triage-0009", None)


def test_what_a_rollout_changed_in_the_lake_is_taken_over(registry: Registry, lake: Lake) -> None:
    written = documents.aliases(lake, "triage")
    documents.write_aliases(
        lake,
        "triage",
        documents.Aliases(
            champion="triage-0002", previous="triage-0001", students=written.students
        ),
    )
    held = {s.name: s.aliases for s in registry.students("triage")}
    assert held == {"triage-0001": ("previous",), "triage-0002": ("champion",), "triage-0003": ()}
    registry.rollback("triage")
    assert aliases(lake) == (None, "triage-0001", None)


def test_registering_twice_is_one_version_and_a_name_is_taken_once(
    registry: Registry, lake: Lake, tmp_path: Path
) -> None:
    again = registry.register(lake.root / "students" / "triage" / "triage-0001")
    assert (again.version, again.aliases) == (1, ("candidate",))
    with pytest.raises(ServingError, match="registered already"):
        registry.register(make_folder(tmp_path / "other", "triage-0001"))


def test_workloads_do_not_mix(registry: Registry, lake: Lake, tmp_path: Path) -> None:
    registry.register(make_folder(tmp_path / "other", "routing-0001", "routing"))
    assert registry.workloads() == ["routing", "triage"]
    assert [s.name for s in registry.students("routing")] == ["routing-0001"]
    assert aliases(lake)[0] == "triage-0003"


def test_mistakes_are_explained(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"known: triage-0003, triage-0002, triage-0001"):
        registry.student("triage", "nobody")
    with pytest.raises(ServingError, match="has no candidate"):
        registry.promote("nothing")
    with pytest.raises(ServingError, match="is this a folder that `understudy train` made"):
        registry.register(tmp_path)
    registry.promote("triage")
    with pytest.raises(ServingError, match="is the champion already"):
        registry.promote("triage", "triage-0003")


def test_the_command_lists_and_shows(registry: Registry, lake: Lake, tmp_path: Path) -> None:
    config = ("--config", tmp_path / "none.yaml", "--lake", lake.root)
    with Command("students", *config, "list", "--json", log=tmp_path / "log") as command:
        assert command.ended() == 0
        listed = json.loads(command.line())
    assert [(s["name"], s["aliases"]) for s in listed] == [
        ("triage-0003", ["candidate"]),
        ("triage-0002", []),
        ("triage-0001", []),
    ]
    promote = ("promote", "triage", "--json")
    with Command("students", *config, *promote, log=tmp_path / "log") as command:
        assert command.ended() == 0
        promoted = json.loads(command.line())
    assert (promoted["aliases"], promoted["verdicts"][0]["verdict"]) == (["champion"], "PASS")
    assert aliases(lake) == (None, "triage-0003", None)
