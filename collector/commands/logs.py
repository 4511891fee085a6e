"""`understudy logs tail | show ID | audit`: the newest exchanges, one in full, and the count."""

import argparse
import sys
import time
from typing import Any

from understudy import config as configuration
from understudy.config import Config
from understudy.errors import LakeError

_POLL_S = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy logs`."""
    parser.add_argument("action", choices=["tail", "show", "audit"])
    parser.add_argument("id", nargs="?", help="show: an exchange's, attempt's or response's id")
    parser.add_argument("-n", type=int, default=10, help="tail: how many (default 10)")
    parser.add_argument("-f", "--follow", action="store_true", help="tail: wait for more")


def run(args: argparse.Namespace) -> int:
    """0; `audit` returns 1 where anything is lost or does not add up."""
    config = configuration.load(args.config)
    if args.action == "audit":
        return _audit(config, args.json)
    if args.action == "show":
        return _show(config, args)
    return _tail(config, args)


def _tail(config: Config, args: argparse.Namespace) -> int:
    from collector import listing
    from understudy.views import connect

    connection = connect(config.lake)
    seen: set[str] = set()
    count = args.n
    while True:
        for attempt in listing.newest(connection, count, seen):
            sys.stdout.write((_json(attempt) if args.json else listing.line(attempt)) + "\n")
        sys.stdout.flush()
        if not args.follow:
            return 0
        count = 1000
        time.sleep(_POLL_S)


def _show(config: Config, args: argparse.Namespace) -> int:
    from collector import listing
    from understudy.views import connect

    if not args.id:
        raise LakeError("logs show needs an id; `understudy logs tail` lists some")
    exchange = listing.exchange(connect(config.lake), args.id)
    if exchange is None:
        wait = f"{config.collector.flush_s:g}"
        raise LakeError(
            f"no exchange, attempt or response {args.id!r} in {config.lake}; new ones are stored "
            f"every {wait} s by `understudy collect`"
        )
    sys.stdout.write((_json(exchange) if args.json else listing.page(exchange)) + "\n")
    return 0


def _audit(config: Config, as_json: bool) -> int:
    from collector.audit import SpoolLine, audit
    from collector.text_table import render
    from understudy.lake import Lake

    if not config.lake.is_dir():
        raise LakeError(f"no lake at {config.lake}; start `understudy collect`")
    report = audit(Lake(config.lake), config.spool.path)
    if as_json:
        sys.stdout.write(_json(report) + "\n")
        return int(bool(report.alarms))
    names = [name for name in SpoolLine.__struct_fields__ if name != "partition"]
    rows = [[getattr(line, name) for name in names] for line in report.spools]
    rows.append(["total", "", *(sum(row[at] for row in rows) for at in range(2, len(names)))])
    sys.stdout.write(render(names, rows))
    if report.lag_seconds is not None:
        sys.stdout.write(
            f"\nlast stored {report.audited_seconds_ago:g} s ago; its oldest row had waited "
            f"{report.lag_seconds:g} s\n"
        )
    for alarm in report.alarms:
        sys.stdout.write(f"ALARM {alarm}\n")
    fine = "every frame is accounted for; offered = stored + open + waiting + lost, lost is 0\n"
    sys.stdout.write("" if report.alarms else fine)
    return int(bool(report.alarms))


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
