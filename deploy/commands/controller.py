"""`understudy controller`: walk the rollouts of all workloads by their verdicts, until SIGTERM."""

import argparse
import signal
import sys
import threading

INTERVAL_S = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy controller`."""
    parser.add_argument("--once", action="store_true", help="look once, act, and end")


def run(args: argparse.Namespace) -> int:
    """One look a second; with --json a line per transition on stdout."""
    from deploy.rollout.controller import Controller
    from deploy.rollout.status import as_json
    from understudy.config_file import ConfigFile

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    controller = Controller(ConfigFile(args.config))
    while True:
        for event in controller.tick():
            if args.json:
                sys.stdout.write(as_json(event))
                sys.stdout.flush()
        if args.once or stop.wait(INTERVAL_S):
            return 0
