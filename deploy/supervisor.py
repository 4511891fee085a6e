"""Child processes that belong together: start, restart, prefix their lines, stop in order.

A child that ends is started again after a growing pause; one that keeps ending soon after its start
stays down (and ends everything if it is required). Stopping goes stage by stage, each child by
SIGTERM and, when its grace is over, SIGKILL; `kill` does that at once. Each child has a session of
its own, so that Ctrl-C reaches the supervisor alone and a child's own children go with it.

If the supervisor itself is killed, Linux sends its children SIGTERM (PR_SET_PDEATHSIG); elsewhere
they live on and have to be ended by hand. Knows nothing of what the children do.
"""

import asyncio
import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

_PR_SET_PDEATHSIG = 1
_LISTENING = re.compile(r"\blistening on (https?://\S+)")
_LINE_BYTES = 64 << 10  # a longer line is shown in pieces


@dataclass(frozen=True)
class Child:
    """What to run. Children of one `stage` are stopped together, lower stages first."""

    name: str
    argv: Sequence[str]
    stage: int = 0
    required: bool = False
    serves: bool = False
    grace_s: float = 15.0


@dataclass(frozen=True)
class Patience:
    """`quick_deaths` in a row, each within `quick_s` of the start, and a child stays down."""

    quick_s: float = 10.0
    quick_deaths: int = 5
    first_pause_s: float = 0.25
    longest_pause_s: float = 8.0


@dataclass
class Running:
    """A child as it is now."""

    child: Child
    process: asyncio.subprocess.Process | None = None
    address: str | None = None
    last_line: str = ""
    starts: int = 0
    down: bool = False
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Runs `children` until `stop` or until a required one stays down. `say(name, line)` prints."""

    def __init__(
        self,
        children: Sequence[Child],
        say: Callable[[str, str], None],
        patience: Patience | None = None,
    ) -> None:
        self.running = {child.name: Running(child) for child in children}
        self._say, self._patience = say, patience or Patience()
        self._stopping = asyncio.Event()
        self._failed = False

    async def run(self, on_ready: Callable[["Supervisor"], None]) -> int:
        """0 after `stop`, 1 when a required child stays down; calls `on_ready` once all serve."""
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(self._keep(one)) for one in self.running.values()]
            announce = tasks.create_task(self._announce(on_ready))
            await self._stopping.wait()
            announce.cancel()
            await self._stop_in_order()
            await asyncio.gather(*keepers)
        return 1 if self._failed else 0

    def stop(self) -> None:
        """End everything in order; called again, at once."""
        if self._stopping.is_set():
            self._say("up", "killing what is left")
            for one in self.running.values():
                _signal(one, signal.SIGKILL)
        else:
            self._say("up", "stopping; again to kill at once")
        self._stopping.set()

    async def _announce(self, on_ready: Callable[["Supervisor"], None]) -> None:
        for one in self.running.values():
            await one.ready.wait()
        on_ready(self)

    async def _keep(self, one: Running) -> None:
        deaths = 0
        while not one.leaving.is_set():
            began = time.monotonic()
            how = await self._run_once(one)
            if one.leaving.is_set():
                return
            lived = time.monotonic() - began
            deaths = deaths + 1 if lived < self._patience.quick_s else 1
            if deaths >= self._patience.quick_deaths:
                self._give_up(one, how)
                return
            pause = min(
                self._patience.first_pause_s * 2 ** (deaths - 1), self._patience.longest_pause_s
            )
            self._say("up", f"{one.child.name} {how} after {lived:.0f} s; again in {pause:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(one.leaving.wait(), pause)

    async def _run_once(self, one: Running) -> str:
        """Start the child, pass its lines on, wait for its end; says how it ended."""
        one.starts += 1
        read_end, write_end = os.pipe()
        try:
            one.process = await asyncio.create_subprocess_exec(
                *one.child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        finally:
            os.close(write_end)
        reading = asyncio.create_task(self._pass_on(one, read_end))
        if one.leaving.is_set():  # stopped while it was being started
            _signal(one, signal.SIGTERM)
        if not one.child.serves:
            one.ready.set()
        status = await one.process.wait()
        _signal(one, signal.SIGTERM)  # its own children: they must not hold ports and locks
        with suppress(TimeoutError):
            await asyncio.wait_for(reading, 1)
        one.process = None
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    async def _pass_on(self, one: Running, read_end: int) -> None:
        # A pipe of our own: asyncio's `wait` for a process with its pipe would last until the
        # child's own children have closed it too.
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0)
        )
        try:
            async for line in _lines(reader):
                self._take(one, line)
        finally:
            transport.close()

    def _take(self, one: Running, line: str) -> None:
        one.last_line = line
        found = _LISTENING.search(line)
        if found:
            one.address = found[1]
            one.ready.set()
        self._say(one.child.name, line)

    def _give_up(self, one: Running, how: str) -> None:
        one.down = True
        one.ready.set()
        times = self._patience.quick_deaths
        last = f" Its last line: {one.last_line}" if one.last_line else ""
        self._say(
            "up",
            f"{one.child.name} {how} {times} times within {self._patience.quick_s:g} s of its "
            f"start and stays down; cure what it says, then start `understudy up` again.{last}",
        )
        if one.child.required:
            self._failed = True
            self._stopping.set()

    async def _stop_in_order(self) -> None:
        for stage in sorted({one.child.stage for one in self.running.values()}):
            leaving = [one for one in self.running.values() if one.child.stage == stage]
            await asyncio.gather(*(self._stop(one) for one in leaving))

    async def _stop(self, one: Running) -> None:
        one.leaving.set()
        process = one.process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), one.child.grace_s)
        except TimeoutError:
            self._say("up", f"{one.child.name} did not stop within {one.child.grace_s:g} s; killed")
            _signal(one, signal.SIGKILL)
            await process.wait()


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    rest = b""
    while data := await stream.read(_LINE_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        if len(rest) >= _LINE_BYTES:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def _signal(one: Running, number: signal.Signals) -> None:
    """To the child's whole process group, as far as it still exists."""
    if one.process is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(one.process.pid, number)


def _die_with(parent: int) -> Callable[[], None] | None:
    """What the child does between fork and exec: have the kernel end it with its parent."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask
