"""Command lines in documents and deployment files, held against the CLI's own parsers.

`check` goes through `understudy.cli.main`, so every flag and argument is checked as a user's would
be; only the command's `run` is left out.
"""

import importlib
import re
import shlex
from collections.abc import Iterator, Sequence

import pytest

from understudy import cli

FENCE = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SEPARATORS = {"|", "||", "&", "&&", ";", ">", ">>"}


def check(words: Sequence[str]) -> None:
    """Fail the test if `understudy WORDS` would be refused."""
    name, *rest = words
    assert name in cli.COMMANDS, f"no command {name!r}"
    module = importlib.import_module(cli.COMMANDS[name].module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run", lambda args: 0)
        try:
            cli.main([name, *rest])
        except SystemExit as end:
            if end.code:
                pytest.fail(f"`understudy {shlex.join(words)}` ends with status {end.code}")


def commands(document: str) -> Iterator[list[str]]:
    """Every command of a Markdown document's shell fences, as words."""
    for fence in FENCE.finditer(document):
        for line in fence[1].replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            yield from _split(list(lexer))


def _split(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in SEPARATORS:
            command.append(word)
            continue
        while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
            command.pop(0)
        if command:
            yield command
        command = []
