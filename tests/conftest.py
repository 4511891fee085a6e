"""Fixtures of every test: the real servers and programs that a test may need from the machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import broker
from tests.servers.need import ROOT, need, need_file


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """host:port of a real Apache Kafka: one node for the whole session, shared by all workers."""
    base, owner = tmp_path_factory.getbasetemp(), os.getpid()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base, owner = base.parent, os.getppid()
    return broker.shared(base / "kafka", owner)


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[broker.Broker]:
    """A Kafka of the test's own, started, to be stopped and restarted as the test likes."""
    own = broker.Broker(tmp_path / "kafka")
    own.start()
    yield own
    own.stop()


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python of the environment that holds vLLM."""
    return need_file(ROOT / ".venv-vllm" / "bin" / "python", "make vllm")


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser for the tests of pages."""
    return need("chromium", "install the system's package chromium")
