"""`understudy serve`: run students on vLLM, or in this process where vLLM is absent.

Students come from `--students` or, followed as it changes, from a workload's aliases in the lake.
The first line on stdout is `listening on http://host:port`, written when every student has been
proved or refused. Ends with the server; SIGTERM and SIGINT end both.
"""

import argparse
import logging
import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.serving.student import Student
    from understudy.lake import Lake

log = logging.getLogger(__name__)

POLL_S = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy serve`."""
    parser.add_argument(
        "--base",
        help="base model: `builtin`, a folder or a hub name "
        "(default: the one that the students name)",
    )
    parser.add_argument(
        "--students",
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="students to serve, each under its name",
    )
    parser.add_argument("--workload", help="serve this workload's registered students")
    parser.add_argument("--lake", type=Path, help="where they are registered (default: the file's)")
    parser.add_argument("--engine", choices=["auto", "vllm", "transformers"], default="auto")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port, 0 for a free one")
    parser.add_argument(
        "--max-lora-rank", type=int, default=32, help="highest rank to be loaded later (default 32)"
    )
    parser.add_argument("--threads", type=int, help="threads of the in-process engine")
    parser.add_argument(
        "--probe-tolerance",
        type=float,
        help="mean difference of log-probabilities that a student may show "
        "(default: by the engine's precision)",
    )
    parser.add_argument("--vllm-python", type=Path, help="Python of the environment with vLLM")
    parser.add_argument("--vllm-args", default="", help="further arguments for vLLM, one string")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or until the server dies."""
    from deploy.http_server import announce
    from deploy.serving.client import StudentServer
    from deploy.serving.engine import Plan, make_engine
    from deploy.serving.roster import Roster
    from deploy.serving.student import read_student
    from understudy.base_model import base_hash, find_base
    from understudy.errors import ServingError

    stopped = threading.Event()
    lake = _lake(args)
    wanted = _wanted(args, lake)
    cards = [read_student(folder) for folder in wanted.values()]
    base_name = args.base or (cards[0].card.base if cards else "builtin")
    base = find_base(base_name)
    max_rank = max([args.max_lora_rank, *(card.rank for card in cards)])
    plan = Plan(
        base,
        base_name,
        args.host,
        args.port,
        max_rank,
        args.threads,
        _template_kwargs(cards),
        tuple(shlex.split(args.vllm_args)),
    )
    engine = make_engine(args.engine, plan, args.vllm_python)
    try:
        _on_signal(_interrupt)  # a start may take minutes, and has no loop to look at `stopped`
        engine.start()
        roster = Roster(
            StudentServer(engine.url),
            base,
            base_hash(base),
            dtype=engine.dtype,
            max_rank=max_rank,
            tolerance=args.probe_tolerance,
        )
        roster.follow(wanted)
        if wanted and not roster.served:
            raise ServingError(f"none of {', '.join(wanted)} may be served; the reasons are above")
        _on_signal(lambda *_: stopped.set())
        announce(engine.url)
        while not stopped.wait(POLL_S):
            engine.check()
            if lake:
                roster.follow(_wanted(args, lake))
    except KeyboardInterrupt:
        log.info("stopped while starting")
    finally:
        engine.stop()
    return 0


def _on_signal(do: Callable[..., None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, do)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _template_kwargs(cards: "list[Student]") -> dict[str, Any]:
    """What all the students' prompts were rendered with: one server has one template."""
    from understudy.errors import ServingError

    if any(card.card.template_kwargs != cards[0].card.template_kwargs for card in cards):
        names = ", ".join(card.name for card in cards)
        raise ServingError(f"{names} were trained with different templates; serve them apart")
    return cards[0].card.template_kwargs if cards else {}


def _lake(args: argparse.Namespace) -> "Lake | None":
    """The lake whose registered students are served; None where only named ones are."""
    from understudy.config import load
    from understudy.errors import ConfigError
    from understudy.lake import Lake

    if args.workload:
        return Lake(args.lake or load(args.config).lake)
    if args.lake:
        raise ConfigError("--lake needs --workload: whose students are to be served?")
    return None


def _wanted(args: argparse.Namespace, lake: "Lake | None") -> dict[str, Path]:
    """The students asked for by name, and those that the lake's registry names now."""
    from deploy.serving.roster import registered
    from understudy.errors import ConfigError

    named = {}
    for item in args.students:
        name, sign, folder = item.partition("=")
        if not sign or not name or not folder:
            raise ConfigError(f"--students {item!r}: write NAME=DIR, such as s-1=students/s-1")
        named[name] = Path(folder)
    return named | (registered(lake, args.workload) if lake else {})
