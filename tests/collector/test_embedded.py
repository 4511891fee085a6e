"""Spool to Parquet without Kafka: every frame once, whatever dies in between."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collector.audit import audit
from collector.embedded import Embedded
from tests.collector.traffic import (
    ALL_FLUSHED,
    attempt_ids,
    begin,
    config_file,
    end,
    exchanges,
    feedback,
    rows,
    spool,
)
from understudy import config as configuration
from understudy.errors import SpoolError
from understudy.lake import Lake
from understudy.spool import FrameType, segments, spools


def sink(folder: Path, **options: int) -> Embedded:
    """A sink on `folder`'s spool and lake."""
    config = configuration.load(config_file(folder, **options))
    config.lake.mkdir(exist_ok=True)
    return Embedded(config, Lake(config.lake))


def collect(
    folder: Path, *arguments: str, crash_at: str = "", stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """The real command as a process."""
    command = [sys.executable, "-m", "understudy", "collect", "--config", "understudy.yaml"]
    environment = {**os.environ, "UNDERSTUDY_CRASH_AT": crash_at}
    return subprocess.Popen([*command, *arguments], cwd=folder, env=environment, stderr=stderr)


def assert_accounted(folder: Path) -> None:
    """The audit finds nothing, and its equation holds for every spool."""
    report = audit(Lake(folder / "lake"), folder / "spool")
    assert report.alarms == []
    for line in report.spools:
        assert line.stored + line.open + line.waiting + line.lost == line.offered


def test_a_closed_spool_is_stored_and_removed(tmp_path: Path) -> None:
    with spool(tmp_path / "spool", segment_bytes=2000) as writer:
        wanted = exchanges(writer, 20)
        word = feedback(writer, response_id=f"r-{wanted[3]}", correction="better")
    sink(tmp_path).run_once()
    assert attempt_ids(tmp_path / "lake") == wanted
    ((found, exchange, correction),) = rows(
        tmp_path / "lake", "SELECT feedback_id, exchange_id, correction FROM feedback"
    )
    ((asked,),) = rows(
        tmp_path / "lake", f"SELECT exchange_id FROM exchanges WHERE attempt_id = '{wanted[3]}'"
    )
    assert (found, exchange, correction) == (word, asked, "better")
    assert spools(tmp_path / "spool") == []
    assert_accounted(tmp_path)


def test_a_living_spool_is_followed_and_its_open_attempts_wait(tmp_path: Path) -> None:
    with spool(tmp_path / "spool", segment_bytes=1500) as writer:
        waiting = begin(writer)
        first = exchanges(writer, 10)
        sink(tmp_path).run_once()
        assert attempt_ids(tmp_path / "lake") == first
        assert len(segments(writer.folder)) > 1  # the open attempt holds its segment
        second = exchanges(writer, 10)
        end(writer, waiting)
        sink(tmp_path).run_once()
        assert sorted(attempt_ids(tmp_path / "lake")) == sorted(
            [*first, *second, waiting.attempt_id]
        )
        assert len(segments(writer.folder)) == 1
        assert_accounted(tmp_path)


def test_a_dead_writers_open_attempts_become_unfinished(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from tests.collector.traffic import *\n"
        "writer = spool(pathlib.Path(sys.argv[1]))\n"
        "exchanges(writer, 3); begin(writer)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "spool")], check=False)
    assert done.returncode == -signal.SIGKILL
    sink(tmp_path).run_once()
    found = rows(tmp_path / "lake", "SELECT outcome, count(*) FROM exchanges GROUP BY 1 ORDER BY 1")
    assert found == [("complete", 3), ("unfinished", 1)]
    assert spools(tmp_path / "spool") == []
    assert_accounted(tmp_path)


@pytest.mark.parametrize("point", ALL_FLUSHED)
def test_a_sink_killed_anywhere_stores_everything_once(tmp_path: Path, point: str) -> None:
    config_file(tmp_path, flush_rows=16)
    with spool(tmp_path / "spool", segment_bytes=3000) as writer:
        waiting = begin(writer)
        wanted = [*exchanges(writer, 40), waiting.attempt_id]
        end(writer, waiting)
    for _ in range(4):
        process = collect(tmp_path, "--once", crash_at=point)
        if process.wait() != -signal.SIGKILL:
            break
    assert collect(tmp_path, "--once").wait() == 0
    assert sorted(attempt_ids(tmp_path / "lake")) == sorted(wanted)
    assert spools(tmp_path / "spool") == []
    assert_accounted(tmp_path)


def test_two_racing_sinks_store_everything_once(tmp_path: Path) -> None:
    config_file(tmp_path, flush_rows=5)
    racing = [collect(tmp_path, "--flush-s", "0.05") for _ in range(2)]
    wanted: list[str] = []
    with spool(tmp_path / "spool", segment_bytes=5000) as writer:
        for _ in range(40):
            wanted += exchanges(writer, 5)
            time.sleep(0.05)
    deadline = time.monotonic() + 60
    while spools(tmp_path / "spool") and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in racing:
        process.terminate()
        assert process.wait() == 0
    assert attempt_ids(tmp_path / "lake") == wanted
    assert_accounted(tmp_path)


def test_a_stopped_sink_that_wakes_up_late_stores_nothing_twice(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as writer:
        wanted = exchanges(writer, 30)
        zombie = sink(tmp_path)
        assert zombie._step() == 60  # it has read everything, and stored nothing
        sink(tmp_path).run_once()
        assert attempt_ids(tmp_path / "lake") == wanted
        wanted += exchanges(writer, 5)
        zombie._step()
        zombie._flush(lambda _: True)  # loses the race, and reads again from what is stored
        assert attempt_ids(tmp_path / "lake") == wanted[:30]
        zombie.run_once()
    assert attempt_ids(tmp_path / "lake") == wanted
    zombie.run_once()
    assert_accounted(tmp_path)


def test_a_stopped_sink_whose_spool_is_gone_when_it_wakes_up_lets_it_be(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as writer:
        wanted = exchanges(writer, 30)
        zombie = sink(tmp_path)
        zombie._step()
    sink(tmp_path).run_once()
    assert spools(tmp_path / "spool") == []
    zombie._flush(lambda _: True)
    zombie.run_once()
    assert attempt_ids(tmp_path / "lake") == wanted
    assert_accounted(tmp_path)


def test_sigterm_stores_what_is_there(tmp_path: Path) -> None:
    config_file(tmp_path)
    with spool(tmp_path / "spool") as writer:
        process = collect(tmp_path, "--flush-s", "1000", stderr=subprocess.PIPE)
        assert process.stderr
        assert b"collecting" in process.stderr.readline()
        wanted = exchanges(writer, 9)
        process.terminate()
        process.communicate()
        assert process.returncode == 0
        assert attempt_ids(tmp_path / "lake") == wanted


def test_damage_is_stored_around_and_named_by_the_audit(tmp_path: Path) -> None:
    with spool(tmp_path / "spool", segment_bytes=1500) as writer:
        wanted = exchanges(writer, 20)
    second = segments(writer.folder)[1]
    content = bytearray(second.read_bytes())
    content[40] ^= 1
    second.write_bytes(content)
    sink(tmp_path).run_once()
    stored = rows(tmp_path / "lake", "SELECT count(*) FROM exchanges")[0][0]
    assert len(wanted) - 1 <= stored <= len(wanted)
    report = audit(Lake(tmp_path / "lake"), tmp_path / "spool")
    assert report.lost == len(report.alarms) >= 1
    assert f"frames {second.stem.lstrip('0')}-" in report.alarms[0]
    assert list((tmp_path / "spool" / "torn").iterdir())


def test_a_gap_is_counted_and_is_no_alarm(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as writer:
        exchanges(writer, 2)
        writer.append(FrameType.GAP, b'{"count":17,"reason":"spool_full","since":1,"until":2}')
    sink(tmp_path).run_once()
    assert rows(tmp_path / "lake", "SELECT gap, lost, closed FROM audit") == [(17, 0, True)]
    assert_accounted(tmp_path)


def test_frames_of_another_version_are_lost_aloud_and_stop_nothing(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as writer:
        writer.append(FrameType.REQUEST, b'{"attempt_id":7}', b"x")
        writer.append(FrameType.RESPONSE, b"no json", b"x")
        wanted = exchanges(writer, 2)
    sink(tmp_path).run_once()
    assert attempt_ids(tmp_path / "lake") == wanted
    assert rows(tmp_path / "lake", "SELECT lost, lost_ranges FROM audit") == [(2, [[0, 0], [1, 1]])]


def test_an_attempt_without_an_end_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as writer:
        begin(writer, requested_at=1_000)
        sink(tmp_path).run_once()
        assert rows(tmp_path / "lake", "SELECT outcome FROM exchanges") == [("unfinished",)]


def test_temporary_files_of_a_dead_sink_are_ignored_and_removed(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as writer:
        wanted = exchanges(writer, 3)
    part = tmp_path / "lake" / "log" / f"part=spool-{writer.spool_id}"
    part.mkdir(parents=True)
    torn = part / f"{0:020d}.parquet.tmp-0123456789ab"
    torn.write_bytes(b"PAR1 torn")
    os.utime(torn, (0, 0))
    assert rows(tmp_path / "lake", "SELECT count(*) FROM exchanges") == [(0,)]
    sink(tmp_path).run_once()
    assert attempt_ids(tmp_path / "lake") == wanted
    assert not torn.exists()


def test_a_lake_that_cannot_be_written_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with spool(tmp_path / "spool") as writer:
        wanted = exchanges(writer, 3)
    stubborn = sink(tmp_path)
    stubborn._step()
    (tmp_path / "lake" / "log").touch()  # a file where a folder has to be
    for _ in range(3):
        stubborn._retry_at = 0.0
        stubborn._flush(lambda _: True)
    assert caplog.text.count("nothing is lost") == 1
    assert len(spools(tmp_path / "spool")) == 1
    (tmp_path / "lake" / "log").unlink()
    stubborn._retry_at = 0.0
    stubborn._flush(lambda _: True)
    assert attempt_ids(tmp_path / "lake") == wanted
    assert spools(tmp_path / "spool") == []
    assert_accounted(tmp_path)


def test_a_damaged_cursor_is_named(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as writer:
        exchanges(writer, 3)
    (writer.folder / "cursor.json").write_text("{")
    with pytest.raises(SpoolError, match="remove it"):
        sink(tmp_path).run_once()


def test_a_writer_without_requests_leaves_no_file(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as writer:
        writer.append(FrameType.HEARTBEAT, b'{"at":1}')
    sink(tmp_path).run_once()
    assert spools(tmp_path / "spool") == []
    assert list((tmp_path / "lake").glob("log/*/*")) == []
