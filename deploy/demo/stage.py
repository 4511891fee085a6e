"""The demo's stage: its folder and config, the commands it runs and the processes it keeps.

Every act goes through the same commands that a user types; nothing is called in-process but the
OpenAI client. Output of long-running processes is in `<folder>/logs/`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import httpx

from understudy.errors import ServingError, UnderstudyError
from understudy.lake import Lake

WORKLOAD = "triage"
TEACHER_MODEL = "teacher-large"

_CONFIG = """\
# Written by `understudy demo`; try `understudy up --config` on it.
teacher: {{base_url: "http://127.0.0.1:{teacher}/v1"}}
listen: {{port: {proxy}}}
lake: lake
spool: {{path: spool}}
collector: {{flush_rows: 1000, flush_s: 1}}
prices:                                   # US dollars for a million tokens
  {model}: {{input: 2.5, output: 10}}
  {student}: {{input: 0.05, output: 0.2}}
workloads:
  {workload}:
    match: {{model: {model}}}
    student: {{base_url: "http://127.0.0.1:{serve}/v1", model: champion}}
    shadow: {{sample: 0.5}}
    canary: {{sticky_by: user}}
    holdout: 0.25                          # large, so that a demo of minutes has enough pairs
    hybrid: {{target_quality: 0.9, confidence: 0.9}}
    gate: {{margin: 0.1}}                  # a 4 M parameter student; 0.02 is the default
    rollout:
      steps:
      - {{shadow: 1.0, min_pairs: 250}}
      - {{setWeight: 10, min_pairs: 60}}
      - {{setWeight: 50, min_pairs: 60}}
      - {{hybrid: true, min_pairs: 60}}
      - {{student: true, min_pairs: 60}}
      guardrails: {{error_rate: 0.05}}
"""


class Stage:
    """The demo's folder and processes; use as a context manager, so that none outlives it."""

    def __init__(self, folder: Path, student: str) -> None:
        if folder.exists():
            if not (folder / "understudy.yaml").exists():
                raise UnderstudyError(f"{folder} is no folder of an earlier demo; name a new one")
            shutil.rmtree(folder)
        (folder / "logs").mkdir(parents=True)
        self.folder = folder.resolve()
        self.ports = {name: free_port() for name in ("teacher", "proxy", "serve", "console")}
        self.config = self.folder / "understudy.yaml"
        self.config.write_text(
            _CONFIG.format(**self.ports, workload=WORKLOAD, model=TEACHER_MODEL, student=student)
        )
        self.lake = Lake(self.folder / "lake")
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._children)):
            self.stop(name)

    def url(self, name: str) -> str:
        """Base address of one of the demo's servers."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self, name: str, *words: str) -> None:
        """Start `understudy <words>` in the background, its output in the logs folder."""
        with self._log(name) as log:
            self._children[name] = subprocess.Popen(
                self._command(words), stdout=log, stderr=log, cwd=self.folder, env=_environment()
            )

    def stop(self, name: str) -> None:
        """Stop a background command as an operator would: SIGTERM, and time to flush."""
        child = self._children.pop(name)
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(45)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def run(self, *words: str) -> Any:
        """Run `understudy <words> --json` to its end; its JSON. A failure names the log."""
        name = "-".join(words[:2] if not words[1].startswith("-") else words[:1])
        with self._log(name) as log:
            done = subprocess.run(
                [*self._command(words), "--json"],
                stdout=subprocess.PIPE,
                stderr=None if sys.stderr.isatty() and words[0] == "train" else log,
                cwd=self.folder,
                env=_environment(),
                check=False,
            )
        if done.returncode:
            raise UnderstudyError(f"`understudy {' '.join(words)}` failed:\n{self.log_end(name)}")
        return json.loads(done.stdout)

    def wait_for(self, name: str, path: str, seconds: float) -> None:
        """Wait until a server answers; ServingError with the end of its log if it does not."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            child = self._children[name if name in self._children else "up"]
            if child.poll() is not None:
                break
            try:
                if httpx.get(self.url(name) + path, timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.3)
        raise ServingError(f"{name} did not come up:\n{self.log_end(name)}")

    def log_end(self, name: str) -> str:
        """The last lines of a command's log."""
        path = self.folder / "logs" / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-12:]) + f"\n(all of it: {path})"

    def _log(self, name: str) -> IO[bytes]:
        return (self.folder / "logs" / f"{name}.log").open("ab")

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "understudy", *words, "--config", str(self.config)]


def until(question: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer to `question`, asked twice a second; an error after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = question()
        if answer:
            return answer
        time.sleep(0.5)
    raise UnderstudyError(f"waited {seconds:.0f} s in vain for {what}")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "UNDERSTUDY_SALT": "demo"}
