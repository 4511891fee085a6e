"""What documents tell people to type exists, and typing it costs no heavy import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.command_line import check, commands
from tests.servers.need import ROOT
from understudy import cli

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
HEAVY = {"accelerate", "litellm", "mlflow", "peft", "sklearn", "torch", "transformers", "vllm"}
HOME_OF_LITELLM = "proxy.upstream_litellm"  # imported when a teacher needs translation

IMPORT_PART = """
import importlib, pkgutil, sys
part = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(part.__path__, part.__name__ + "."):
    if module.name not in sys.argv[2:] and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("\\n".join(sys.modules))
"""

IMPORT_COMMANDS = """
import importlib, sys
from understudy import cli
for command in cli.COMMANDS.values():
    importlib.import_module(command.module)
print("\\n".join(sys.modules))
"""


def imported(script: str, *words: str) -> set[str]:
    listed = subprocess.run(
        [sys.executable, "-c", script, *words], check=True, capture_output=True, text=True
    ).stdout
    return set(listed.split())


@pytest.mark.parametrize("part", ["understudy", "proxy", "collector"])
def test_no_module_of_the_core_the_proxy_or_the_collector_imports_a_heavy_library(
    part: str,
) -> None:
    modules = imported(IMPORT_PART, part, HOME_OF_LITELLM)
    assert f"{part}.commands" in modules
    assert sorted(modules & HEAVY) == []


def test_parsing_a_command_line_imports_nothing_heavy() -> None:
    heavy = HEAVY | {"duckdb", "fastapi", "matplotlib", "uvicorn"}
    assert sorted(imported(IMPORT_COMMANDS) & heavy) == []


def test_the_overview_lists_every_command() -> None:
    shown = subprocess.run(
        [Path(sys.executable).parent / "understudy", "--help"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert [line.split()[0] for line in shown.splitlines()[2:] if line] == list(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: understudy {name}" in capsys.readouterr().out


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_is_one_that_would_run(path: Path) -> None:
    for words in commands(path.read_text()):
        if words[0] == "understudy":
            check(words[1:])
        elif words[0] == "make":
            wanted = {word for word in words[1:] if "=" not in word}
            assert wanted <= TARGETS, f"{path.name}: no target in {words}"


def test_the_readme_opens_with_the_two_commands_and_stays_short() -> None:
    readme = (ROOT / "README.md").read_text()
    assert list(commands(readme))[:2] == [["make", "demo"], ["make", "test"]]
    assert len(readme.splitlines()) <= 150


def test_a_command_that_the_parser_refuses_is_found() -> None:
    with pytest.raises(pytest.fail.Exception, match="status 2"):
        check(["config", "check", "--no-such-flag"])


def test_commands_are_read_from_shell_fences_only() -> None:
    text = """understudy no
```sh
A=b understudy sql "a | b" | head  # c
make x && y \\
  z
```
```py
q
```"""
    assert list(commands(text)) == [
        ["understudy", "sql", "a | b"],
        ["head"],
        ["make", "x"],
        ["y", "z"],
    ]
