"""`understudy serve` as a process: signals, refusals, its engine's death."""

import signal
import stat
from pathlib import Path

import httpx
import pytest

from tests.deploy.command import Command
from tests.deploy.conftest import Tiny
from understudy import documents
from understudy.lake import Lake

IN_PROCESS = ("--engine", "transformers", "--threads", 1, "--port", 0)


def ask(url: str, model: str, text: str) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 20,
    }
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def content(url: str, model: str, text: str) -> str:
    return str(ask(url, model, text).json()["choices"][0]["message"]["content"])


def test_students_of_the_lake_are_served_until_sigterm(tiny: Tiny, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    documents.write_aliases(
        lake,
        "colour",
        documents.Aliases(
            champion="colour-0001", students={n: str(f) for n, f in tiny.students.items()}
        ),
    )
    arguments = ("--lake", lake.root, "--workload", "colour", "--base", tiny.base)
    with Command("serve", *IN_PROCESS, *arguments, log=tmp_path / "log") as command:
        url = command.started().url
        served = [card["id"] for card in httpx.get(f"{url}/v1/models").json()["data"]]
        assert served == [str(tiny.base), "colour-0001"]
        assert content(url, "colour-0001", "apple") == "red"
        command.process.send_signal(signal.SIGTERM)
        assert command.ended() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--base", "/nowhere"), 1, "no base model '/nowhere'"),
        (("--students", "folder"), 1, "write NAME=DIR"),
        (("--students", "a=/nowhere"), 1, "is this a folder that `understudy train` made?"),
        (("--lake", "somewhere"), 1, "--lake needs --workload"),
        (("--engine", "vllm", "--vllm-python", "/nowhere/python"), 1, "no Python at /nowhere"),
    ],
)
def test_a_command_that_cannot_work_says_why(
    tiny: Tiny, tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    base = () if "--base" in arguments else ("--base", tiny.base)
    with Command("serve", "--port", 0, *base, *arguments, log=tmp_path / "log") as command:
        assert command.ended() == status
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[-1].startswith("error: ")
    assert words in lines[-1]


def test_a_server_without_one_sound_student_ends(tiny: Tiny, tmp_path: Path) -> None:
    (name, folder), (_, other) = tiny.students.items()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for source, file in (
        (folder, "adapter_model.safetensors"),
        (folder, "adapter_config.json"),
        (folder, "student.json"),
        (other, "probe.json"),
    ):
        (mixed / file).write_bytes((source / file).read_bytes())
    arguments = ("--students", f"{name}={mixed}")
    with Command("serve", *IN_PROCESS, *arguments, log=tmp_path / "log") as command:
        assert command.ended() == 1
    log = (tmp_path / "log").read_text()
    assert "differ from the trained ones" in log
    assert "error: none of colour-0001 may be served" in log


def test_the_death_of_vllm_is_ours_with_its_last_words(tiny: Tiny, tmp_path: Path) -> None:
    impostor = tmp_path / "python"
    impostor.write_text("#!/bin/sh\necho 'No kernel image is available' >&2\nexit 3\n")
    impostor.chmod(impostor.stat().st_mode | stat.S_IXUSR)
    arguments = ("--engine", "vllm", "--vllm-python", impostor, "--base", tiny.base, "--port", 0)
    with Command("serve", *arguments, log=tmp_path / "log") as command:
        assert command.ended() == 1
    log = (tmp_path / "log").read_text()
    assert "error: vLLM exited with status 3; its last lines:" in log
    assert "No kernel image is available" in log
