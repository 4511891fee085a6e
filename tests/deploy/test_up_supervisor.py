"""The supervisor with real child processes: small Python programs that end in every way."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deploy.supervisor import Child, Patience, Supervisor

pytestmark = pytest.mark.anyio
PATIENCE = Patience(quick_s=60, quick_deaths=3, first_pause_s=0.02, longest_pause_s=0.05)
SLEEPER = "import time\nprint('here', flush=True)\nwhile True: time.sleep(0.05)"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def program(name: str, code: str, **rest: object) -> Child:
    return Child(name, [sys.executable, "-c", code], **rest)  # type: ignore[arg-type]


class Stage:
    """A supervisor in a running loop, with what it said."""

    def __init__(self, children: Sequence[Child], patience: Patience = PATIENCE) -> None:
        self.said: list[tuple[str, str]] = []
        self.ready = False
        self.supervisor = Supervisor(children, lambda *words: self.said.append(words), patience)

    async def __aenter__(self) -> "Stage":
        self.task = asyncio.create_task(self.supervisor.run(self._ready))
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.task.done():
            self.supervisor.stop()
            await self.task

    def _ready(self, _: Supervisor) -> None:
        self.ready = True

    async def until(self, true: Callable[[], object]) -> None:
        await until(true)

    def lines(self, name: str) -> list[str]:
        return [line for who, line in self.said if who == name]

    def pid(self, name: str) -> int:
        process = self.supervisor.running[name].process
        assert process is not None
        return process.pid


async def test_lines_of_a_child_carry_its_name_and_the_longest_come_in_pieces() -> None:
    code = "print('one'); print('x' * 200_000); import sys; sys.stderr.write('last')\n" + SLEEPER
    async with Stage([program("a", code)]) as stage:
        await stage.until(lambda: "lasthere" in stage.lines("a"))
    assert stage.lines("a")[0] == "one"
    assert sum(line.count("x") for line in stage.lines("a")) == 200_000


async def test_all_are_ready_when_each_server_has_said_its_address(tmp_path: Path) -> None:
    listening = "print('listening on http://127.0.0.1:8080', flush=True)\n" + SLEEPER
    late = "import time, pathlib\nwhile not pathlib.Path({!r}).exists(): time.sleep(0.02)\n"
    gate = tmp_path / "gate"
    children = [
        program("a", late.format(str(gate)) + listening, serves=True),
        program("b", SLEEPER),
    ]
    async with Stage(children) as stage:
        await stage.until(lambda: stage.lines("b"))
        assert not stage.ready
        gate.touch()
        await stage.until(lambda: stage.ready)
        assert stage.supervisor.running["a"].address == "http://127.0.0.1:8080"


async def test_a_child_killed_with_signal_9_is_started_again_and_the_others_stay() -> None:
    async with Stage([program("a", SLEEPER), program("b", SLEEPER)]) as stage:
        await stage.until(lambda: stage.lines("a") and stage.lines("b"))
        first, other = stage.pid("a"), stage.pid("b")
        os.kill(first, signal.SIGKILL)
        await stage.until(lambda: len(stage.lines("a")) == 2)
        assert stage.pid("a") != first
        assert stage.pid("b") == other
        assert any("a was killed by SIGKILL" in line for line in stage.lines("up"))


async def test_a_child_that_keeps_ending_stays_down_and_the_remedy_has_its_last_line() -> None:
    bad = "import sys; sys.exit('error: port 8080 is taken')"
    async with Stage([program("bad", bad), program("good", SLEEPER)]) as stage:
        await stage.until(lambda: stage.supervisor.running["bad"].down)
        assert stage.supervisor.running["bad"].starts == 3
        assert not stage.task.done()
    assert any("stays down" in line and "port 8080" in line for line in stage.lines("up"))


async def test_when_a_required_child_stays_down_everything_ends_with_status_1() -> None:
    bad = program("bad", "raise SystemExit(1)", required=True)
    async with Stage([bad, program("good", SLEEPER)]) as stage:
        assert await stage.task == 1
    assert all(one.process is None for one in stage.supervisor.running.values())


async def test_a_child_that_lived_long_enough_may_end_any_number_of_times() -> None:
    patience = Patience(quick_s=0, quick_deaths=2, first_pause_s=0.01, longest_pause_s=0.01)
    async with Stage([program("a", "print('here')")], patience) as stage:
        await stage.until(lambda: len(stage.lines("a")) >= 4)
        assert not stage.supervisor.running["a"].down


async def test_stages_stop_one_after_the_other(tmp_path: Path) -> None:
    log = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep({})\n"
        "    open({!r}, 'a').write({!r})\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
    )
    slow_first = program("proxy", code.format(0.4, str(log), "p") + SLEEPER, stage=0)
    then = program("collect", code.format(0.2, str(log), "c") + SLEEPER, stage=1)
    rest = program("monitor", code.format(0, str(log), "m") + SLEEPER, stage=2)
    async with Stage([rest, then, slow_first]) as stage:
        await stage.until(lambda: all(stage.lines(n) for n in ("proxy", "collect", "monitor")))
        stage.supervisor.stop()
        assert await stage.task == 0
    assert log.read_text() == "pcm"


async def test_a_later_stage_is_kept_alive_while_an_earlier_one_stops(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = (
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        f"    while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
    )
    children = [program("proxy", code + SLEEPER), program("collect", SLEEPER, stage=1)]
    async with Stage(children) as stage:
        await stage.until(lambda: stage.lines("proxy") and stage.lines("collect"))
        stage.supervisor.stop()
        os.kill(stage.pid("collect"), signal.SIGKILL)
        await stage.until(lambda: len(stage.lines("collect")) == 2)
        gate.touch()
        assert await stage.task == 0


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    async with Stage([program("a", STUBBORN, grace_s=0.3)]) as stage:
        await stage.until(lambda: stage.lines("a"))
        stage.supervisor.stop()
        assert await stage.task == 0
    assert any("did not stop" in line for line in stage.lines("up"))


async def test_a_second_stop_kills_what_is_left_at_once() -> None:
    async with Stage([program("a", STUBBORN, grace_s=3600)]) as stage:
        await stage.until(lambda: stage.lines("a"))
        stage.supervisor.stop()
        await asyncio.sleep(0.1)
        stage.supervisor.stop()
        async with asyncio.timeout(60):
            assert await stage.task == 0


async def test_the_children_of_a_killed_child_go_with_it() -> None:
    nest = (
        "import subprocess, sys\n"
        f"inner = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])\n"
        "print('inner', inner.pid, flush=True)\n"
    ) + SLEEPER
    async with Stage([program("a", nest)]) as stage:
        await stage.until(lambda: any(line.startswith("inner") for line in stage.lines("a")))
        inner = int(next(x for x in stage.lines("a") if x.startswith("inner")).split()[1])
        os.kill(stage.pid("a"), signal.SIGKILL)
        await stage.until(lambda: gone(inner))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux only")
async def test_children_do_not_outlive_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from deploy.supervisor import Child, Supervisor\n"
        f"child = Child('a', [sys.executable, '-c', {SLEEPER!r}])\n"
        "async def main():\n"
        "    s = Supervisor([child], lambda *w: print(s.running['a'].process.pid, flush=True))\n"
        "    await s.run(lambda _: None)\n"
        "asyncio.run(main())\n"
    )
    script = tmp_path / "up.py"
    script.write_text(code)
    outer = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdout=asyncio.subprocess.PIPE
    )
    assert outer.stdout is not None
    inner = int(await outer.stdout.readline())
    assert not gone(inner)
    outer.kill()
    await outer.wait()
    await until(lambda: gone(inner))


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether the process has ended; who inherits it may not have asked for its status yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"
