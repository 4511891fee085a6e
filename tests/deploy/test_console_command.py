"""`understudy console` as a process: it says where it listens and is not open by accident."""

import hashlib
import re
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from tests.deploy import console_lake
from understudy.lake import Lake

COMMAND = (sys.executable, "-m", "understudy", "console")


def _refused(*words: str) -> str:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


def test_it_says_where_it_listens_and_stops_when_told(tmp_path: Path) -> None:
    console_lake.put_policy(Lake(tmp_path), 1, 1.0, "first", mode="shadow")
    words = [*COMMAND, "--lake", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert re.fullmatch(r"listening on http://127\.0\.0\.1:\d+\n", line)
    page = httpx.get(line.split()[-1], timeout=60)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert page.status_code == 200
    assert "triage" in page.text
    assert process.returncode in (0, -signal.SIGTERM)
    assert errors == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "console.example"])
def test_it_is_not_open_by_accident(tmp_path: Path, host: str) -> None:
    said = _refused("--lake", str(tmp_path), "--host", host)
    assert host in said
    assert "--allow-open" in said


def test_without_a_lake_or_a_file_it_says_which_to_name(tmp_path: Path) -> None:
    assert "--config" in _refused("--config", str(tmp_path / "none.yaml"))


def test_the_kept_library_is_the_one_that_its_note_names() -> None:
    vendor = files("deploy.console") / "static" / "vendor"
    note = (vendor / "README.txt").read_text()
    digest = hashlib.sha256((vendor / "htmx.min.js").read_bytes()).hexdigest()
    assert digest in note
    assert "Zero-Clause BSD" in (vendor / "htmx.LICENSE.txt").read_text()
