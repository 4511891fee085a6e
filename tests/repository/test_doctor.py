"""`understudy doctor` names what is wrong, with the remedy, and says so by its exit status."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from understudy.config import load
from understudy.installation import Finding, extras, names, room


def doctor(folder: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    return subprocess.run(
        [sys.executable, "-m", "understudy", "doctor", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def findings(answer: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {each["name"]: each for each in json.loads(answer.stdout)["findings"]}


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_folder_without_a_config_is_no_problem(tmp_path: Path) -> None:
    answer = doctor(tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines()[-1] == "no problems"
    assert "write `teacher: {base_url: https://...}`" in answer.stdout


def test_a_server_that_answers_is_ok_and_one_that_does_not_is_a_problem(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as living, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        path = write(
            tmp_path,
            f"teacher: {{base_url: 'http://127.0.0.1:{living.getsockname()[1]}/v1'}}\n"
            f"kafka: {{bootstrap_servers: '127.0.0.1:{dead.getsockname()[1]}'}}\n",
        )
        answer = doctor(tmp_path, "--json", "--config", str(path))
    found = findings(answer)
    assert found["teacher"]["state"] == "ok"
    assert found["kafka"]["state"] == "problem"
    assert found["kafka"]["remedy"]
    assert answer.returncode == 1


def test_an_invalid_config_is_a_problem_that_names_the_nearest_key(tmp_path: Path) -> None:
    answer = doctor(tmp_path, "--config", str(write(tmp_path, "teecher: {}\n")))
    assert answer.returncode == 1
    assert "✗ config" in answer.stdout
    assert "teacher" in answer.stdout


def test_a_config_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    assert doctor(tmp_path, "--config", str(tmp_path / "absent.yaml")).returncode == 1


def test_a_distribution_that_owns_one_of_our_names_is_a_problem(tmp_path: Path) -> None:
    info = tmp_path / "other_proxy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-proxy\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("proxy\n")
    answer = doctor(tmp_path, path=str(tmp_path))
    assert "proxy also belongs to other-proxy" in answer.stdout
    assert answer.returncode == 1


def test_a_folder_that_hides_a_part_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "evaluator").mkdir()
    (tmp_path / "evaluator" / "__init__.py").touch()
    answer = doctor(tmp_path)
    assert f"evaluator is taken from {tmp_path / 'evaluator'}" in answer.stdout
    assert answer.returncode == 1


def test_our_own_names_are_ours() -> None:
    assert list(names({"proxy": ["understudy", "understudy"]})) == []


def test_a_part_lists_the_packages_that_it_lacks() -> None:
    wanted = ["numpy", "no-such-package>=2; extra == 'proxy'", 'pyyaml; extra == "proxy"']
    proxy, collector, *_ = extras(wanted)
    assert proxy.state == "note"
    assert proxy.detail == "without no-such-package"
    assert "understudy[proxy]" in proxy.remedy
    assert collector == Finding("collector", "ok", "0 packages")


@pytest.mark.parametrize(
    ("limits", "state"),
    [
        ("{max_gb: 0.000001, min_free_gb: 0}", "ok"),
        ("{max_gb: 100000000}", "note"),
        ("{min_free_gb: 100000000}", "problem"),
    ],
)
def test_the_spool_needs_room(tmp_path: Path, limits: str, state: str) -> None:
    path = write(tmp_path, f"teacher: {{base_url: 'http://t/v1'}}\nspool: {limits}\n")
    assert room(load(path)).state == state
