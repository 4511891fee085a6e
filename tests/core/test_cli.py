"""The console script: parses before it imports, errors are one line, statuses mean something."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from understudy import __version__, cli


def run(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "understudy", *map(str, words)],
        check=False, capture_output=True, text=True, cwd=cwd,
    )  # fmt: skip


def test_help_and_version_import_nothing_but_the_standard_library() -> None:
    script = (
        "import sys\n"
        "from understudy import cli\n"
        "assert cli.main(sys.argv[1:]) == 0\n"
        "own = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(own - set(sys.stdlib_module_names) - {'__main__', 'understudy'}))\n"
    )
    started = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    bare = subprocess.run(
        [sys.executable, "-c", started],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for word in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", script, word], check=True, capture_output=True, text=True
        )
        found = set(eval(done.stdout.splitlines()[-1])) - set(bare)  # noqa: S307 - our own list
        assert found == set()


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_the_overview_has_a_line_for_every_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in cli.COMMANDS)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"understudy {__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_keeps_the_contract(name: str) -> None:
    module = importlib.import_module(cli.COMMANDS[name].module)
    assert callable(module.configure)
    assert callable(module.run)
    assert module.__doc__


def test_an_unknown_command_is_a_usage_error_that_names_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["rolout"]) == 2
    assert capsys.readouterr().err == (
        "error: no command 'rolout'; did you mean 'rollout'? see `understudy --help`\n"
    )
    assert cli.main(["zzz"]) == 2
    assert capsys.readouterr().err == "error: no command 'zzz'; see `understudy --help`\n"


def test_a_usage_error_is_status_2() -> None:
    done = run("rollout", "start")
    assert done.returncode == 2
    assert "the following arguments are required" in done.stderr


def test_an_error_is_one_line_with_status_1(tmp_path: Path) -> None:
    done = run("rollout", "status", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    reason = "cannot read understudy.yaml: No such file or directory"
    assert done.stderr == f"error: {reason}; name another with --config\n"


def test_a_part_that_is_not_installed_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lazy_part.py").write_text(
        "def configure(parser): pass\ndef run(args): import no_such_library\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for module, missing in (("no_such_part", "no_such_part"), ("lazy_part", "no_such_library")):
        monkeypatch.setitem(cli.COMMANDS, "absent", cli.Command(module, ""))
        assert cli.main(["absent"]) == 1
        said = capsys.readouterr().err
        assert said == (
            f"error: `absent` needs {missing!r}; "
            f"install it with `pip install 'understudy[{module}]'`\n"
        )


def test_the_file_comes_from_the_environment_and_the_option_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("env", "option"):
        (tmp_path / f"{name}.yaml").write_text(f"{name}: 1\n")
    monkeypatch.setenv("UNDERSTUDY_CONFIG", str(tmp_path / "env.yaml"))
    assert cli.main(["config", "check"]) == 1
    assert "env.yaml:1: unknown key 'env'" in capsys.readouterr().err
    assert cli.main(["config", "check", "--config", str(tmp_path / "option.yaml")]) == 1
    assert "option.yaml:1: unknown key 'option'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--config", "other.yaml", "--json", "status"], ["status", "--config=other.yaml", "--json"]],
)
def test_the_shared_options_stand_before_or_behind_an_action(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("teacher: {base_url: 'http://t:1/v1'}\n")
    assert cli.main(["rollout", *words]) == 0


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "understudy.yaml").write_text(
        "teacher: {base_url: 'http://t:1/v1'}\nworkloads:\n"
        + "".join(f"  w{n}: {{}}\n" for n in range(3000))
    )
    command = f"{sys.executable} -m understudy config show | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        check=False, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) == 10
