"""`understudy collect`: spool (or Kafka) -> Parquet, until SIGTERM, or --once until drained."""

import argparse
import signal
from types import FrameType as Stack
from typing import Protocol

from understudy import config as configuration
from understudy.lake import Lake


class Sink(Protocol):
    """What both sinks can do."""

    def run(self) -> None:
        """Work until `stop`; flushes before it returns."""

    def run_once(self) -> None:
        """Store what is there, and return."""

    def stop(self) -> None:
        """Ask `run` to end."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy collect`."""
    parser.add_argument("--once", action="store_true", help="store what is there, and exit")
    parser.add_argument("--flush-s", type=float, help="seconds after which a file is closed")


def run(args: argparse.Namespace) -> int:
    """Collect; 0 when everything that was there is stored."""
    sink = _sink(configuration.load(args.config), args.flush_s)
    if args.once:
        sink.run_once()
        return 0

    def stop(_signal: int, _stack: Stack | None) -> None:
        sink.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sink.run()
    return 0


def _sink(config: configuration.Config, flush_s: float | None) -> Sink:
    config.lake.mkdir(parents=True, exist_ok=True)
    lake = Lake(config.lake)
    if config.kafka is None:
        from collector.embedded import Embedded

        return Embedded(config, lake, flush_s=flush_s)
    from collector.kafka_sink import KafkaSink

    return KafkaSink(config, config.kafka, lake, flush_s=flush_s)
