"""What is installed is what constraints.txt says, and nothing runs at start-up that we do not know.

A stolen release of litellm ran its payload from a `.pth` file, at every start of Python.
"""

import importlib.metadata
import re
import site
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from tests.servers.need import ROOT

CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PINNED = re.compile(r"^([a-z0-9._-]+)==([^ ;\\]+)(.*?)(?=^[a-z0-9]|\Z)", re.MULTILINE | re.DOTALL)
# setuptools' own, and the one by which our code is found where it lies.
KNOWN_PTH = {
    "distutils-precedence.pth": r"import os; var = 'SETUPTOOLS_USE_DISTUTILS'; .{0,120}",
    "__editable__.understudy-*.pth": r"import __editable___understudy_\w+_finder; "
    r"__editable___understudy_\w+_finder\.install\(\)",
}


def pins() -> dict[str, str]:
    return {match[1]: match[2] for match in PINNED.finditer(CONSTRAINTS)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_pth_file_runs_code_that_we_do_not_know() -> None:
    for path in (path for folder in site.getsitepackages() for path in Path(folder).glob("*.pth")):
        pattern = next((text for name, text in KNOWN_PTH.items() if path.match(name)), None)
        assert pattern is not None, f"{path} is new: look at it before anything else"
        assert re.fullmatch(pattern, path.read_text().strip()), f"{path} has changed"


def test_every_pin_has_its_hashes() -> None:
    bare = [match[1] for match in PINNED.finditer(CONSTRAINTS) if "--hash=sha256:" not in match[3]]
    assert pins()
    assert bare == []


def test_every_package_of_pyproject_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = chain(project["dependencies"], *extras)
    names = {normal(re.split(r"[\[ <>=;!~]", text)[0]) for text in wanted} - {"understudy"}
    assert names - pins().keys() == set(), "run `make lock`"


@pytest.mark.parametrize("name", ["litellm", "torch", "transformers", "fastapi", "pyarrow"])
def test_the_installed_version_is_the_pinned_one(name: str) -> None:
    assert importlib.metadata.version(name) == pins()[name]


def test_each_part_has_an_extra_and_the_proxy_holds_no_torch() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert {"proxy", "collector", "trainer", "evaluator", "deploy", "all", "dev"} == extras.keys()
    for part in ("proxy", "collector", "evaluator"):
        assert not {"torch", "transformers", "mlflow", "peft"} & set(extras[part])
