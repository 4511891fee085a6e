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
from pathlib import Path

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
    parser.add_argument("--lake", type=Path, help="serve the registered students of this lake")
    parser.add_argument("--workload", help="the workload whose students to serve, with --lake")
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
    parser.add_argument(
        "--allow-faults",
        action="store_true",
        help="allow POST /understudy/v1/fault (demos and tests only)",
    )


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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    wanted = _wanted(args)
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
        args.allow_faults,
        tuple(shlex.split(args.vllm_args)),
    )
    engine = make_engine(args.engine, plan, args.vllm_python)
    try:
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
        announce(engine.url)
        while not stopped.wait(POLL_S):
            engine.check()
            if args.lake:
                roster.follow(_wanted(args))
    finally:
        engine.stop()
    return 0


def _wanted(args: argparse.Namespace) -> dict[str, Path]:
    """The students asked for by name, and those that the lake's registry names now."""
    from deploy.serving.roster import registered
    from understudy.errors import ConfigError
    from understudy.lake import Lake

    named = {}
    for item in args.students:
        name, sign, folder = item.partition("=")
        if not sign or not name or not folder:
            raise ConfigError(f"--students {item!r}: write NAME=DIR, such as s-1=students/s-1")
        named[name] = Path(folder)
    if bool(args.lake) != bool(args.workload):
        raise ConfigError("--lake and --workload go together: give both or neither")
    return named | (registered(Lake(args.lake), args.workload) if args.lake else {})
