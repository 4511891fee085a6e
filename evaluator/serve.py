"""A student served for the time of an evaluation: `understudy serve` as a child process.

The child announces its address on stdout once the student has been proved; its log goes to stderr.
It is stopped afterwards whatever happened.
"""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from understudy.errors import ServingError
from understudy.lake import Lake

_STOP_S = 30


def student_name(adapter: Path) -> str:
    """The name in the folder's student.json; ServingError where there is none."""
    card = Lake(adapter).get_json("student.json")
    if not isinstance(card, dict) or not card.get("name"):
        raise ServingError(f"{adapter} has no student.json with a name; name a folder of a student")
    return str(card["name"])


@contextlib.contextmanager
def served(adapter: Path, name: str, engine: str) -> Iterator[str]:
    """Serve the adapter on a free port; its address with /v1. ServingError if it does not start."""
    words = ["serve", "--students", f"{name}={adapter}", "--port", "0", "--engine", engine]
    # SIGTERM would end us without the `finally` below, and leave the child behind.
    before = signal.signal(signal.SIGTERM, _interrupt)
    child = subprocess.Popen(
        [sys.executable, "-m", "understudy", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()  # ends with the child, if it dies first
        if not line.startswith("listening on "):
            raise ServingError(
                f"`understudy serve` did not start for {adapter} (it said {line.strip()!r}); "
                "its reasons are above"
            )
        yield line.removeprefix("listening on ").strip().rstrip("/") + "/v1"
    finally:
        child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout:
            child.stdout.close()
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
