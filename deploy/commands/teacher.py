"""`understudy teacher`: run the stand-in teacher, an OpenAI-compatible server without a model.

Its first line on stdout is `listening on http://host:port`.
"""

import argparse
import logging
from pathlib import Path

log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy teacher`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001, help="port, 0 for a free one")
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FILE.jsonl",
        help="answer the recorded requests of this file and no others",
    )
    parser.add_argument("--model", help="name that answers carry (default: the one asked for)")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before each answer")
    parser.add_argument("--token-latency-ms", type=float, default=0.0, help="wait per token")
    parser.add_argument(
        "--error-rate", type=float, default=0.0, help="share of requests that fail (0 to 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the failures")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    from deploy.http_server import run as serve
    from deploy.teacher.answer import Teacher
    from deploy.teacher.app import make_app
    from deploy.teacher.replay import ReplayTeacher
    from deploy.teacher.rules import RuleTeacher
    from deploy.teacher.stage import Conditions
    from understudy.errors import ConfigError

    if not 0 <= args.error_rate <= 1:
        raise ConfigError(f"--error-rate {args.error_rate} is not a share; give 0 to 1")
    teacher: Teacher = RuleTeacher()
    if args.replay:
        teacher = replay = ReplayTeacher(args.replay)
        log.info(
            "replaying %s: %d rows, %d duplicate requests (first wins)",
            args.replay,
            replay.rows,
            replay.duplicates,
        )
    conditions = Conditions(
        args.latency_ms, args.token_latency_ms, args.error_rate, args.seed, args.model
    )
    serve(make_app(teacher, conditions), args.host, args.port)
    return 0
