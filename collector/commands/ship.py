"""`understudy ship`: this host's spools -> Kafka, until SIGTERM or, with --once, until drained."""

import argparse
import asyncio
import signal

from understudy import config as configuration
from understudy.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy ship`."""
    parser.add_argument("--once", action="store_true", help="ship what is there, and exit")


def run(args: argparse.Namespace) -> int:
    """Ship; 0 when it was asked to end."""
    from collector.shipper import Shipper
    from understudy.lake import Lake

    config = configuration.load(args.config)
    if config.kafka is None:
        raise ConfigError(
            f"{args.config}: ship needs `kafka: {{bootstrap_servers: ...}}`; without Kafka "
            "`understudy collect` reads the spool itself"
        )
    shipper = Shipper(config, config.kafka, Lake(config.lake))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _stack: shipper.stop())
    asyncio.run(shipper.run(once=args.once))
    return 0
