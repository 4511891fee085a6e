"""Progress of long work on stderr: one line that moves on a terminal, else a line at times."""

import sys
import time


class Progress:
    """Counts to `total` and says how far it is and how long it will take."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total = label, total
        self._done, self._started, self._said = 0, time.monotonic(), 0.0
        self._terminal = sys.stderr.isatty()

    def step(self, _: object = None) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if now - self._said >= (0.2 if self._terminal else 5) or self._done == self._total:
            self._said = now
            self._say(now)

    def _say(self, now: float) -> None:
        left = (now - self._started) / self._done * (self._total - self._done)
        line = f"{self._label}: {self._done}/{self._total}, {left:.0f} s left"
        if not self._terminal:
            sys.stderr.write(line + "\n")
        else:
            sys.stderr.write(f"\r\x1b[K{line}" + ("\n" if self._done == self._total else ""))
        sys.stderr.flush()
