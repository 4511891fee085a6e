"""`understudy up`: everything that one machine needs, as supervised processes of one configuration.

Ctrl-C or SIGTERM stops the proxy first, which finishes its answers, then the collector, which
stores what lies in the spool, then the rest; a second Ctrl-C kills. The file is read again by the
processes themselves; only switching `kafka` on or off needs a restart.
"""

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.supervisor import Child, Supervisor
    from understudy.config import Config

_COLLECT_GRACE_S = 120  # a collector that was behind has a spool to empty
_PROXY, _SHIP, _COLLECT, _REST = range(4)  # the stages in which they are stopped


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy up`."""
    parser.add_argument("--console-port", type=int, default=8090, help="0 takes a free one")
    parser.add_argument(
        "--with",
        dest="extra",
        action="append",
        default=[],
        metavar="COMMAND",
        help="another command to supervise, such as --with 'serve --port 8000' (repeatable)",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help="leave one out, such as --without console (repeatable)",
    )


def run(args: argparse.Namespace) -> int:
    """Supervise until SIGINT or SIGTERM; 1 if the proxy stays down."""
    import asyncio
    import signal

    from deploy.supervisor import Supervisor
    from understudy.config import load

    config = load(args.config)
    children = _numbered(_children(args, config))
    print_line = _printer([child.name for child in children])

    async def supervise() -> int:
        supervisor = Supervisor(children, print_line)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
        return await supervisor.run(lambda ready: _show(ready, config, args.json))

    return asyncio.run(supervise())


def _children(args: argparse.Namespace, config: "Config") -> list["Child"]:
    from deploy.supervisor import Child
    from understudy.errors import ConfigError

    def child(words: list[str], stage: int, **rest: bool | float) -> "Child":
        own = [] if "--config" in words else ["--config", str(args.config)]
        argv = [sys.executable, "-m", "understudy", *words, *own]
        return Child(words[0], argv, stage, **rest)  # type: ignore[arg-type]

    drain_s = config.listen.drain_s + 10
    found = [child(["proxy"], _PROXY, required=True, serves=True, grace_s=drain_s)]
    if config.kafka:
        found.append(child(["ship"], _SHIP, grace_s=_COLLECT_GRACE_S))
    found.append(child(["collect"], _COLLECT, grace_s=_COLLECT_GRACE_S))
    found += [child([name], _REST) for name in ("monitor", "controller")]
    found.append(child(["console", "--port", str(args.console_port)], _REST, serves=True))
    found += [child(shlex.split(words), _REST) for words in args.extra if words.strip()]
    unknown = set(args.without) - {one.name for one in found}
    if unknown:
        have = ", ".join(one.name for one in found)
        raise ConfigError(f"--without {sorted(unknown)[0]}: no such process (here: {have})")
    return [one for one in found if one.name not in args.without]


def _numbered(children: list["Child"]) -> list["Child"]:
    """The same, each under a name of its own: the second `serve` is `serve-2`."""
    from collections import Counter
    from dataclasses import replace

    seen: Counter[str] = Counter()
    found = []
    for child in children:
        seen[child.name] += 1
        number = seen[child.name]
        found.append(child if number == 1 else replace(child, name=f"{child.name}-{number}"))
    return found


class _Printer:
    """Lines of the children on stderr, each behind its process's name; coloured on a terminal."""

    def __init__(self, names: list[str], colour: bool) -> None:
        self._width = max(map(len, [*names, "up"]))
        self._colours = {name: 31 + number % 6 for number, name in enumerate(names)}
        self._coloured = colour

    def __call__(self, name: str, line: str) -> None:
        label = f"{name:<{self._width}} |"
        if self._coloured and name in self._colours:
            label = f"\x1b[{self._colours[name]}m{label}\x1b[0m"
        sys.stderr.write(f"{label} {line}\n")
        sys.stderr.flush()


def _printer(names: list[str]) -> _Printer:
    import os

    return _Printer(names, sys.stderr.isatty() and "NO_COLOR" not in os.environ)


def _show(supervisor: "Supervisor", config: "Config", as_json: bool) -> None:
    import json

    processes = supervisor.running.values()
    if as_json:
        found = {
            one.child.name: {
                "address": one.address,
                "pid": one.process.pid if one.process else None,
                "down": one.down,
            }
            for one in processes
        }
        sys.stdout.write(json.dumps({"processes": found}) + "\n")
    else:
        rows = [(one.child.name, _where(one.address, one.down)) for one in processes]
        rows += [("lake", str(config.lake)), ("spool", str(config.spool.path))]
        width = max(len(name) for name, _ in rows)
        sys.stdout.write("".join(f"  {name:<{width}}  {where}\n" for name, where in rows))
    sys.stdout.flush()


def _where(address: str | None, down: bool) -> str:
    return "down" if down else address or "runs"
