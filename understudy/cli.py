"""The one console script: a table of commands, each a module that is imported when it is called.

It parses before it imports, so `--help` needs none of the parts. A module has
`configure(parser)` and `run(args) -> int`; an UnderstudyError becomes one line and status 1.
"""

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from understudy import __version__
from understudy.errors import UnderstudyError


class Command(NamedTuple):
    """A command's module and its line in the help."""

    module: str
    about: str


COMMANDS = {
    "demo": Command("deploy.commands.demo", "the whole loop on this machine, offline"),
    "up": Command("deploy.commands.up", "proxy, collector, monitor, controller, console together"),
    "proxy": Command("proxy.commands.proxy", "relay the teacher, log, route"),
    "ship": Command("collector.commands.ship", "spool -> Kafka"),
    "collect": Command("collector.commands.collect", "spool or Kafka -> Parquet"),
    "sql": Command("collector.commands.sql", "a DuckDB query over the lake"),
    "logs": Command("collector.commands.logs", "tail, show, audit"),
    "dataset": Command("trainer.commands.dataset", "build a dataset from the log"),
    "train": Command("trainer.commands.train", "distil a LoRA student"),
    "base": Command("trainer.commands.base", "make the small base model"),
    "evaluate": Command("evaluator.commands.evaluate", "student against teacher, with a verdict"),
    "monitor": Command("evaluator.commands.monitor", "watch the pairs of live traffic"),
    "router": Command("evaluator.commands.router", "fit the hybrid router on shadow pairs"),
    "serve": Command("deploy.commands.serve", "serve students by vLLM or in-process"),
    "students": Command("deploy.commands.students", "the registry: list, promote, roll back"),
    "rollout": Command("deploy.commands.rollout", "start, pause, abort, show a rollout"),
    "controller": Command("deploy.commands.controller", "walk rollouts by their verdicts"),
    "console": Command("deploy.commands.console", "the web page"),
    "replay": Command("deploy.commands.replay", "send recorded requests through the proxy"),
    "teacher": Command("deploy.commands.teacher", "a stand-in teacher for demos and tests"),
    "config": Command("understudy.commands.config", "check the file and show what is in force"),
    "doctor": Command("understudy.commands.doctor", "check this installation"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        sys.stdout.write(f"understudy {__version__}\n")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        sys.stderr.write(f"error: no command {words[0]!r}; {hint}see `understudy --help`\n")
        return 2
    return _dispatch(words[0], words[1:])


def _dispatch(name: str, words: list[str]) -> int:
    try:
        module = importlib.import_module(COMMANDS[name].module)
    except ModuleNotFoundError as error:
        return _not_installed(name, error)
    args = _parse(name, module.configure, words)
    _log_to_stderr(args.verbose)
    try:
        return int(module.run(args))
    except UnderstudyError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except ModuleNotFoundError as error:  # commands import what is heavy when they run
        return _not_installed(name, error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `understudy sql ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(
    name: str, configure: Callable[[argparse.ArgumentParser], None], words: list[str]
) -> argparse.Namespace:
    """The arguments; the shared options may stand anywhere, before or behind an action's name."""
    shared = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    shared.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("UNDERSTUDY_CONFIG", "understudy.yaml")),
        help="the YAML file (default: understudy.yaml, or $UNDERSTUDY_CONFIG)",
    )
    shared.add_argument("--json", action="store_true", help="machine-readable output")
    shared.add_argument("-v", "--verbose", action="store_true", help="log at debug level")
    found, rest = shared.parse_known_args(words)
    parser = argparse.ArgumentParser(
        prog=f"understudy {name}", description=COMMANDS[name].about, parents=[shared]
    )
    configure(parser)
    return parser.parse_args(rest, found)


def _not_installed(name: str, error: ModuleNotFoundError) -> int:
    part = COMMANDS[name].module.split(".")[0]
    sys.stderr.write(
        f"error: `{name}` needs {error.name!r}; "
        f"install it with `pip install 'understudy[{part}]'`\n"
    )
    return 1


def _log_to_stderr(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if not verbose:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request otherwise


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: understudy COMMAND [...]   (understudy COMMAND --help tells more)", "", *lines, ""]
    )
