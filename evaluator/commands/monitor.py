"""`understudy monitor`: judge the pairs of live traffic, until SIGTERM.

A look a second, each of which ends with a heartbeat; the proxy trusts students only while it sees
them. A look that fails is logged, leaves no heartbeat, and the next one starts from the lake again.
"""

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from understudy.documents import Verdict

log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy monitor`."""
    parser.add_argument("--once", action="store_true", help="look once and end")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between looks")
    parser.add_argument("--lake", type=Path, help="the lake (default: the file's)")


def run(args: argparse.Namespace) -> int:
    """Look until stopped; with --json a line per verdict on stdout."""
    from evaluator.monitor import Watch
    from understudy.config_file import ConfigFile

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch = Watch(ConfigFile(args.config), args.lake)
    if args.once:
        _print(watch.tick(), args.json)
        return 0
    while True:
        _print(watch.look(), args.json)
        # The heartbeat may be 15 s old at most: a longer pause would look like death.
        if stop.wait(min(args.interval, 5.0)):
            return 0


def _print(verdicts: "list[Verdict]", as_json: bool) -> None:
    import msgspec

    for verdict in verdicts:
        n = verdict.evidence["n"]
        what = f"{verdict.workload}: {verdict.signal} of {verdict.student}"
        log.info("%s is %s after %d", what, verdict.verdict, n)
        if as_json:
            sys.stdout.write(msgspec.json.encode(verdict).decode() + "\n")
            sys.stdout.flush()
