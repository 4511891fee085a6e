"""One node of Apache Kafka (KRaft) for the tests, run by Java from the jars of `make kafka`.

`Broker` is for a test that stops and restarts its own. `shared` gives all the workers of a session
one broker: the first to ask starts it as a process of its own, which ends when the session
does, however that one ends.
"""

import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.servers.need import ROOT, need, need_file

LIBS = ROOT / "build" / "kafka" / "libs"
START_DEADLINE_S = 90
CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
message.max.bytes=8388608
"""


class Broker:
    """A broker on ports of its own that it keeps over restarts; its data lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        need("java", "install a Java 17 runtime")
        need_file(LIBS, "make kafka")
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._properties = folder / "server.properties"
        self._properties.write_text(
            PROPERTIES.format(port=self.port, controller=free_port(), data=folder / "data")
        )
        self._java(
            "kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c"
        ).wait()

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self.process = self._java("kafka.Kafka")
        deadline = time.monotonic() + START_DEADLINE_S
        while not accepts(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Kafka did not start: {self.log()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it in good order; SIGKILL after 20 s."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """SIGKILL: what it had not written is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self) -> str:
        return (self.folder / "kafka.log").read_text(errors="replace")[-2000:]

    def _java(self, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [
            "java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{LIBS}/*",
            main, *arguments, str(self._properties),
        ]  # fmt: skip
        with (self.folder / "kafka.log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def shared(folder: Path, owner: int) -> str:
    """The address of the session's broker, started by the first worker that asks."""
    need("java", "install a Java 17 runtime")
    need_file(LIBS, "make kafka")
    folder.mkdir(exist_ok=True)
    ready = folder / "bootstrap"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            start_keeper(folder, owner, ready)
    return ready.read_text()


def start_keeper(folder: Path, owner: int, ready: Path) -> None:
    """Start `keep` as a process of its own that holds none of our pipes; wait for its broker."""
    command = [sys.executable, "-m", "tests.servers.broker", str(folder), str(owner)]
    with (folder / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    while not ready.exists():
        if keeper.poll() is not None:
            raise RuntimeError(f"Kafka did not start: {(folder / 'keeper.log').read_text()}")
        time.sleep(0.1)
    keeper.returncode = 0  # it outlives this process on purpose: no warning when it is forgotten


def keep(folder: Path, owner: int) -> None:
    """Run a broker for as long as the process `owner` lives."""
    broker = Broker(folder)
    broker.start()
    partial = folder / "bootstrap.tmp"
    partial.write_text(broker.bootstrap)
    partial.rename(folder / "bootstrap")
    while broker.process is not None and broker.process.poll() is None and alive(owner):
        time.sleep(0.5)
    broker.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]))
