"""Spool -> Apache Kafka -> Parquet with real processes and a real broker: every frame once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from collector.audit import audit
from tests.collector.traffic import (
    attempt_ids,
    begin,
    config_file,
    end,
    exchanges,
    feedback,
    rows,
    spool,
)
from tests.servers.broker import Broker
from understudy.ids import uuid7
from understudy.lake import Lake
from understudy.spool import segments, spools


def configure(folder: Path, bootstrap: str, flush_rows: int = 5000) -> None:
    """A configuration with a topic of its own."""
    kafka = f"kafka: {{bootstrap_servers: '{bootstrap}', topic: t-{uuid7()}, partitions: 2}}\n"
    config_file(folder, kafka, flush_rows=flush_rows)


def start(
    folder: Path, command: str, *arguments: str, **environment: str
) -> subprocess.Popen[bytes]:
    """One of the real commands."""
    words = [sys.executable, "-m", "understudy", command, "--config", "understudy.yaml"]
    with (folder / f"{command}.log").open("a") as log:
        return subprocess.Popen(
            [*words, *arguments], cwd=folder, env={**os.environ, **environment}, stderr=log
        )


def run(folder: Path, command: str, *arguments: str, **environment: str) -> int:
    """One of the real commands, to its end."""
    return start(folder, command, *arguments, **environment).wait(120)


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def stored(folder: Path) -> int:
    """How many attempts the lake has."""
    if not (folder / "lake").exists():
        return 0
    return int(rows(folder / "lake", "SELECT count(*) FROM exchanges")[0][0])


def assert_stored(folder: Path, wanted: list[str]) -> None:
    """Exactly these attempts, and an audit that finds nothing."""
    assert sorted(attempt_ids(folder / "lake")) == sorted(wanted)
    report = audit(Lake(folder / "lake"), folder / "spool")
    assert report.alarms == []
    for line in report.spools:
        assert line.stored + line.open + line.waiting + line.lost == line.offered


def test_frames_travel_through_kafka_and_the_spool_is_removed(
    tmp_path: Path, kafka_bootstrap: str
) -> None:
    configure(tmp_path, kafka_bootstrap)
    with spool(tmp_path / "spool", segment_bytes=4000) as writer:
        wanted = exchanges(writer, 50)
        feedback(writer, response_id=f"r-{wanted[0]}", score=1.0)
        big = begin(writer, body=random.Random(1).randbytes(9 << 20))  # over any message's limit
        end(writer, big)
    with spool(tmp_path / "spool") as other:
        wanted += [big.attempt_id, *exchanges(other, 10)]
    assert run(tmp_path, "ship", "--once") == 0
    assert spools(tmp_path / "spool") == []
    assert run(tmp_path, "collect", "--once") == 0
    assert_stored(tmp_path, wanted)
    assert rows(tmp_path / "lake", "SELECT score FROM feedback") == [(1.0,)]
    assert run(tmp_path, "collect", "--once") == 0
    assert_stored(tmp_path, wanted)


def test_a_broker_outage_loses_and_repeats_nothing(tmp_path: Path, own_kafka: Broker) -> None:
    configure(tmp_path, own_kafka.bootstrap)
    shipper, sink = start(tmp_path, "ship"), start(tmp_path, "collect", "--flush-s", "0.2")
    try:
        with spool(tmp_path / "spool") as writer:
            wanted = exchanges(writer, 30)
            until(lambda: stored(tmp_path) == 30)
            own_kafka.kill()
            wanted += exchanges(writer, 30)
            time.sleep(12)  # longer than a producer's request may take
            own_kafka.start()
            wanted += exchanges(writer, 30)
            until(lambda: stored(tmp_path) == 90)
        until(lambda: spools(tmp_path / "spool") == [])
    finally:
        for process in (shipper, sink):
            process.terminate()
    assert (shipper.wait(30), sink.wait(30)) == (0, 0)
    assert_stored(tmp_path, wanted)
    complaints = (tmp_path / "ship.log").read_text().count("does not answer")
    assert complaints == 1


def test_shippers_and_sinks_that_are_killed_lose_and_repeat_nothing(
    tmp_path: Path, kafka_bootstrap: str
) -> None:
    configure(tmp_path, kafka_bootstrap, flush_rows=20)
    wanted: list[str] = []
    with spool(tmp_path / "spool", segment_bytes=3000) as writer:
        for point in ("before-cursor", "after-cursor", "before-remove"):
            wanted += exchanges(writer, 20)
            run(tmp_path, "ship", "--once", UNDERSTUDY_CRASH_AT=point)
        waiting = begin(writer)
        for point in ("before-file", "after-file"):
            wanted += exchanges(writer, 20)
            run(tmp_path, "ship", "--once")
            assert run(tmp_path, "collect", "--once", UNDERSTUDY_CRASH_AT=point) == -signal.SIGKILL
        wanted += [*exchanges(writer, 20), waiting.attempt_id]
        end(writer, waiting)
        assert len(segments(writer.folder)) > 1
    assert run(tmp_path, "ship", "--once", UNDERSTUDY_CRASH_AT="before-remove") == -signal.SIGKILL
    assert run(tmp_path, "ship", "--once") == 0
    assert run(tmp_path, "collect", "--once") == 0
    assert spools(tmp_path / "spool") == []
    assert_stored(tmp_path, wanted)


def test_two_sinks_share_the_partitions_and_one_may_freeze(
    tmp_path: Path, kafka_bootstrap: str
) -> None:
    configure(tmp_path, kafka_bootstrap)
    shipper = start(tmp_path, "ship")
    sinks = [start(tmp_path, "collect", "--flush-s", "0.2") for _ in range(2)]
    wanted: list[str] = []
    try:
        for turn in range(4):
            with spool(tmp_path / "spool") as writer:
                wanted += exchanges(writer, 25)
            if turn == 1:
                sinks[0].kill()
            expected = len(wanted)
            until(lambda expected=expected: stored(tmp_path) == expected)
    finally:
        for process in (shipper, *sinks):
            process.terminate()
            process.wait(30)
    assert_stored(tmp_path, wanted)


def test_a_spool_that_was_collected_without_kafka_goes_on_with_it(
    tmp_path: Path, kafka_bootstrap: str
) -> None:
    config_file(tmp_path)
    with spool(tmp_path / "spool") as writer:
        wanted = exchanges(writer, 10)
        assert run(tmp_path, "collect", "--once") == 0
        configure(tmp_path, kafka_bootstrap)
        wanted += exchanges(writer, 10)
        assert run(tmp_path, "ship", "--once") == 0
        assert run(tmp_path, "collect", "--once") == 0
        assert sorted(attempt_ids(tmp_path / "lake")) == sorted(wanted)


def test_a_topic_that_was_made_anew_is_refused_with_the_remedy(
    tmp_path: Path, kafka_bootstrap: str
) -> None:
    configure(tmp_path, kafka_bootstrap)
    with spool(tmp_path / "spool") as writer:
        wanted = exchanges(writer, 5)
    assert run(tmp_path, "ship", "--once") == 0
    assert run(tmp_path, "collect", "--once") == 0
    configure(tmp_path, kafka_bootstrap)  # another topic, the same lake
    assert run(tmp_path, "collect", "--once") == 1
    assert "the topic was made anew" in (tmp_path / "collect.log").read_text()
    assert_stored(tmp_path, wanted)
