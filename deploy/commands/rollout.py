"""`understudy rollout`: start a student's walk through the steps, look at it, steer it by hand.

Every action is one event in the lake and one new policy; it needs no running controller.
"""

import argparse
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from understudy.config import Config
    from understudy.lake import Lake

_BY_HAND = {
    "pause": "stay at this step; a FAIL still rolls back",
    "resume": "go on",
    "promote": "take the next step without waiting for a verdict",
    "abort": "end it, or lift a rollback: the file decides again",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy rollout`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser("status", help="steps, verdicts and what comes next")
    status.add_argument("workload", nargs="?", help="default: all")
    start = actions.add_parser("start", help="begin at the first step")
    start.add_argument("workload")
    start.add_argument("--student", required=True, help="its name, or candidate or champion")
    start.add_argument("--force", action="store_true", help="without a PASS, or once more")
    for name, about in _BY_HAND.items():
        actions.add_parser(name, help=about).add_argument("workload")
    rollback = actions.add_parser("rollback", help="to the teacher, now")
    rollback.add_argument("workload")
    rollback.add_argument("--reason", default="operator rolled it back", help="for the record")


def run(args: argparse.Namespace) -> int:
    """Write the event, publish the policy, show where it stands."""
    from deploy.rollout.operator import Request, act, workload_of
    from understudy import state
    from understudy.config_file import ConfigFile
    from understudy.lake import Lake

    file = ConfigFile(args.config)
    lake = Lake(file.config.lake)
    if args.action == "status":
        if args.workload:
            workload_of(file.config, args.workload)
        for name in [args.workload] if args.workload else file.config.workloads:
            _show(file.config, lake, name, args.json)
        return 0
    given = {key: vars(args)[key] for key in Request._fields if key in vars(args)}
    act(file.config, lake, Request(**given))
    try:
        state.refresh(file.config, file.hash, lake, "operator", f"rollout {args.action}")
    finally:  # the event stands, also where another workload of the file is refused
        _show(file.config, lake, args.workload, args.json)
    return 0


def _show(config: "Config", lake: "Lake", name: str, as_json: bool) -> None:
    from deploy.rollout import status
    from deploy.rollout.controller import observe
    from understudy import documents

    now = time.time()
    events = documents.rollout_events(lake, name)
    seen = observe(config, lake, name, events, now)
    found = status.status_of(name, config.workloads[name].rollout, events, seen)
    sys.stdout.write(status.as_json(found) if as_json else status.table(found, now))
