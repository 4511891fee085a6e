"""Run an `understudy` command as a process: its address is its first line on stdout."""

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from tests.servers.need import ROOT

_PREFIX = "listening on "


class Command:
    """A running command; leaving the `with` block ends it and waits for it."""

    def __init__(self, *arguments: object, log: Path) -> None:
        self.log = log
        self._arguments = [sys.executable, "-m", "understudy", *map(str, arguments)]
        self._lines: queue.Queue[str] = queue.Queue()
        self.url = ""

    def __enter__(self) -> "Command":
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                self._arguments,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def started(self, timeout_s: float = 600) -> "Command":
        """Wait for the address; an assertion with the command's log if it ends before."""
        line = self.line(timeout_s)
        assert line.startswith(_PREFIX), self.log.read_text()[-3000:]
        self.url = line.removeprefix(_PREFIX).strip()
        return self

    def line(self, timeout_s: float = 60) -> str:
        """The next line on stdout, "" after the last."""
        return self._lines.get(timeout=timeout_s)

    def ended(self, timeout_s: float = 120) -> int:
        """Wait for the command to end by itself; its exit status."""
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """SIGTERM, if it still runs; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")
