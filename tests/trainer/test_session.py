"""`understudy train` as a person calls it: student, run folder, MLflow, and refusals."""

import json
from pathlib import Path

import pytest

from understudy.cli import main

# mlflow 3.17 uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def _train(base: Path | str, dataset: Path, lake: Path, *more: str) -> int:
    words = ["train", "--dataset", str(dataset), "--base", str(base), "--lake", str(lake)]
    quick = ["--epochs", "1", "--rank", "8", "--threads", "1", "--json"]
    return main([*words, *quick, *more])


def test_a_run_leaves_a_student_its_figures_and_an_mlflow_run(
    tiny_folder: Path, dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = tmp_path / "lake"
    assert _train(tiny_folder, dataset_folder, lake, "--experiment-name", "colours") == 0
    printed = json.loads(capsys.readouterr().out)
    student, run = Path(printed["path"]), Path(printed["run"])
    assert student == lake / "students/colours/colours-0001"
    assert {"validation_exact", "validation_loss"} <= printed["metrics"].keys()
    resolved = json.loads((run / "run.json").read_text())
    assert resolved["recipe"]["rank"] == 8
    assert resolved["code"]["version"]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))
    assert not (run / "checkpoint").exists()
    _check_mlflow(lake, json.loads((student / "student.json").read_text())["run_id"])
    assert {path.name for path in lake.iterdir()} >= {"mlflow.db", "runs", "students"}


def _check_mlflow(lake: Path, run_id: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{lake}/mlflow.db")
    run = client.get_run(run_id)
    experiment = client.get_experiment_by_name("colours")
    assert experiment is not None
    assert run.info.experiment_id == experiment.experiment_id
    assert experiment.artifact_location.endswith(f"{lake}/mlflow")
    assert run.info.status == "FINISHED"
    assert run.data.params["rank"] == "8"
    assert run.data.metrics["validation_loss"] > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--base", "nowhere"], "no base model 'nowhere'"),
        (["--rank", "12"], "rank 12 cannot be served"),
        (["--dataset", "/nowhere"], "holds no dataset"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--lr", "0"], "learning_rate"),
    ],
)
def test_what_cannot_work_is_one_line_with_a_remedy(
    words: list[str],
    told: str,
    tiny_folder: Path,
    dataset_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quiet = ["--tracking-uri", "none", *words]
    assert _train(tiny_folder, dataset_folder, tmp_path / "lake", *quiet) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert told in error


def test_a_taken_name_is_refused_before_training(
    tiny_folder: Path, dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lake/students/colours/mine").mkdir(parents=True)
    quiet = ["--tracking-uri", "none", "--name", "mine"]
    assert _train(tiny_folder, dataset_folder, tmp_path / "lake", *quiet) == 1
    assert "exists already" in capsys.readouterr().err
    assert not (tmp_path / "lake/runs").exists()


def test_a_folder_that_is_no_model_is_refused(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert _train(tmp_path / "empty", dataset_folder, tmp_path / "lake") == 1
    assert "holds no base model" in capsys.readouterr().err
