"""Named places at which a test lets the process die as by kill -9; nothing elsewhere."""

import os
import signal


def crash_point(name: str) -> None:
    """Die here if `UNDERSTUDY_CRASH_AT` says so."""
    if os.environ.get("UNDERSTUDY_CRASH_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
