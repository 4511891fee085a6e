"""The wheel holds what the parts need at run time, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.need import ROOT

PACKAGES = ("understudy", "proxy", "collector", "trainer", "evaluator", "deploy")
NOT_SHIPPED = ("deploy/docker/", "deploy/grafana/", "deploy/helm/", "deploy/prometheus/")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-c", BUILD, target], cwd=source, check=True, capture_output=True
    )
    with zipfile.ZipFile(next(target.glob("*.whl"))) as opened:
        yield opened


def test_the_wheel_holds_every_file_of_the_packages_but_deployment_files(
    wheel: zipfile.ZipFile,
) -> None:
    here = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted = {name for name in here if not name.startswith(NOT_SHIPPED)}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_the_wheel_carries_the_licence_and_the_command(wheel: zipfile.ZipFile) -> None:
    names = {Path(name).name for name in wheel.namelist()}
    assert {"LICENSE", "entry_points.txt"} <= names
