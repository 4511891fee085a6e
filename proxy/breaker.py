"""A breaker per student: after consecutive failures the teacher answers without a detour.

Three failures in a row open it, whatever time they take; then one probe at a time is let through,
after a pause that doubles from half a second to thirty. Time is an argument. State is per process.
"""

from typing import Literal

FAILURES = 3
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class Breaker:
    """Counts outcomes of one student; `admit` asks, `succeeded` and `failed` tell."""

    def __init__(self) -> None:
        self.failures = 0
        self.opened = 0
        self.retry_at: float | None = None  # None: closed
        self._pause_s = FIRST_PAUSE_S
        self._probing = False

    @property
    def state(self) -> Literal["closed", "half_open", "open"]:
        """For people and metrics."""
        if self.retry_at is None:
            return "closed"
        return "half_open" if self._probing else "open"

    def admit(self, now: float) -> bool:
        """Whether a call may be made; when open, True makes the caller the probe."""
        if self.retry_at is None:
            return True
        if self._probing or now < self.retry_at:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """The student answered."""
        self.failures, self.retry_at, self._probing = 0, None, False
        self._pause_s = FIRST_PAUSE_S

    def failed(self, now: float) -> None:
        """The student refused, failed or kept silent."""
        self.failures += 1
        if self.retry_at is not None and self._probing:
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
            self.retry_at, self._probing = now + self._pause_s, False
        elif self.retry_at is None and self.failures >= FAILURES:
            self.opened += 1
            self.retry_at = now + self._pause_s

    def released(self) -> None:
        """The call ended without saying anything about the student (the client left)."""
        self._probing = False
