"""Fixtures of the tests of `deploy/`: tiny students, and both engines serving them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.deploy.command import Command

FACTS = {"apple": "red", "sky": "blue", "grass": "green", "coal": "black"}
OTHER_FACTS = {"apple": "green", "sky": "black", "grass": "blue", "coal": "red"}


class Tiny(NamedTuple):
    """A tiny base and two students that contradict each other."""

    base: Path
    students: dict[str, Path]


class Server(NamedTuple):
    """A running `understudy serve`."""

    engine: str
    url: str
    process_id: int


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Made once a session; copy a folder before changing it."""
    from tests.deploy.tiny_student import make_base, make_student  # imports torch: seconds

    folder = tmp_path_factory.mktemp("tiny")
    base = make_base(folder / "base")
    students = {"colour-0001": FACTS, "colour-0002": OTHER_FACTS}
    return Tiny(
        base,
        {name: make_student(folder / name, base, name, facts) for name, facts in students.items()},
    )


@pytest.fixture(scope="session", params=["transformers", "vllm"])
def served(
    request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Both students behind each engine, for the contract that both keep."""
    engine: str = request.param
    more: list[object] = ["--threads", 1]
    if engine == "vllm":
        more = ["--vllm-python", request.getfixturevalue("vllm_python")]
    students = [f"{name}={folder}" for name, folder in tiny.students.items()]
    log = tmp_path_factory.mktemp("served") / f"{engine}.log"
    with Command(
        "serve",
        "-v",
        "--engine",
        engine,
        "--base",
        tiny.base,
        "--port",
        0,
        "--students",
        *students,
        *more,
        log=log,
    ) as command:
        yield Server(engine, command.started().url, command.process.pid)
