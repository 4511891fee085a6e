"""What a test needs from the machine: found, or the test is skipped at home and fails when CI=true.

A test that quietly skips in CI is a test that nobody runs.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing(name: str, remedy: str) -> NoReturn:
    """Skip this test at home, fail it in CI."""
    reason = f"{name} is not here: {remedy}"
    if in_ci():
        pytest.fail(f"{reason} (CI must have it)", pytrace=False)
    pytest.skip(reason)


def need(program: str, remedy: str | None = None) -> Path:
    """The path of a program of this machine, for example `need("nginx")`."""
    found = shutil.which(program)
    if found is None:
        missing(program, remedy or f"install it with the system's package manager ({program})")
    return Path(found)


def need_file(path: Path, remedy: str) -> Path:
    """A file that a make target or a download puts there, for example build/kafka."""
    if not path.exists():
        missing(str(path), remedy)
    return path
