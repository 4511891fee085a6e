"""The watched file: a good version is taken, a bad one is said once and changes nothing."""

import logging
from pathlib import Path

import pytest

from understudy.config_file import ConfigFile
from understudy.errors import ConfigError

GOOD = "teacher: {base_url: 'http://one:1/v1'}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "u.yaml"
    found.write_text(GOOD)
    return found


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


def test_only_a_changed_text_is_a_change(path: Path) -> None:
    file = ConfigFile(path)
    before = file.hash
    assert not file.poll()
    path.write_text(GOOD)
    assert not file.poll()
    path.write_text(GOOD.replace("one", "two"))
    assert file.poll()
    assert file.config.teacher.base_url == "http://two:1/v1"
    assert file.hash != before


@pytest.mark.parametrize("bad", ["teacher: [", "teachr: {}", "", None])
def test_a_bad_or_missing_file_is_said_once_and_the_last_good_stays(
    path: Path, bad: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = ConfigFile(path)
    before = file.config, file.hash
    if bad is None:
        path.unlink()
    else:
        path.write_text(bad)
    assert not any(file.poll() for _ in range(3))
    assert (file.config, file.hash) == before
    assert len(errors(caplog)) == 1
    assert "the last good version stays in force" in errors(caplog)[0]
    path.write_text(GOOD.replace("one", "three"))
    assert file.poll()
    assert file.config.teacher.base_url == "http://three:1/v1"


def test_a_bad_file_at_the_start_is_an_error(path: Path) -> None:
    path.write_text("x")
    with pytest.raises(ConfigError):
        ConfigFile(path)
