"""`understudy demo`: the whole loop on this machine, offline, ending in a summary."""

import argparse
import sys
import time
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy demo`."""
    parser.add_argument("--folder", type=Path, default=Path("demo-run"), help="made anew each time")
    parser.add_argument("--requests", type=int, default=2400, help="logged before training")
    parser.add_argument("--connections", type=int, default=8, help="calls at once")
    parser.add_argument("--engine", choices=["auto", "vllm", "transformers"], default="auto")


def run(args: argparse.Namespace) -> int:
    """Play all acts; the summary goes to stdout, the telling to stderr."""
    from rich.console import Console

    from deploy.demo.stage import Stage
    from deploy.demo.story import STUDENT, play
    from deploy.demo.summary import summary

    started = time.monotonic()
    console = Console(stderr=True, highlight=False)
    with Stage(args.folder, STUDENT) as stage:
        facts = play(stage, args.requests, args.connections, args.engine, _Teller(console, started))
    sys.stdout.write(summary(stage, facts, time.monotonic() - started))
    return 0


class _Teller:
    """Acts and results as lines with the time; progress as one line that is rewritten on a tty."""

    def __init__(self, console: "object", started: float) -> None:
        from rich.console import Console

        assert isinstance(console, Console)
        self._console, self._started, self._told = console, started, 0.0

    def act(self, title: str) -> None:
        self._console.print(f"\n[bold]{self._clock()}  {title}[/bold]", soft_wrap=True)

    def progress(self, done: int, total: int, text: str) -> None:
        every = 0.2 if self._console.is_terminal else 5.0
        if done < total and time.monotonic() - self._told < every:
            return
        self._told = time.monotonic()
        line = f"       {done:,} of {total:,} {text}"
        self._console.print(line, end="\r" if self._console.is_terminal and done < total else "\n")

    def result(self, text: str) -> None:
        self._console.print(f"       {text}", markup=False, soft_wrap=True)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60}:{seconds % 60:02}"
