"""The spool: what was appended comes back, once, in order, whatever happened to the bytes."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.errors import SpoolError
from understudy.spool import (
    Cursor,
    FrameType,
    Lost,
    SpoolFull,
    SpoolReader,
    SpoolWriter,
    decode_body,
    encode,
    living,
    parse,
    recover,
    release,
    remove,
    segments,
    spools,
    to_bytes,
)

REQUEST, RESPONSE = FrameType.REQUEST, FrameType.RESPONSE


def write(root: Path, payloads: list[bytes], **options: object) -> Path:
    """A cleanly closed spool with one REQUEST per payload."""
    with SpoolWriter(root, min_free_bytes=0, **options) as spool:  # type: ignore[arg-type]
        for number, payload in enumerate(payloads):
            spool.append(REQUEST, b'{"n":%d}' % number, payload)
    return spool.folder


def read_all(folder: Path, start: int = 0) -> list[tuple[int, FrameType, bytes]]:
    """Every frame there is, as (seq, type, payload or LOST's meta)."""
    reader, found = SpoolReader(folder, start), []
    while frames := reader.read(max_frames=3):
        found += [(f.seq, f.type, b"".join(decode_body(f.body)[f.type != 9 :])) for f in frames]
    return found


def accounted(folder: Path) -> dict[int, str]:
    """Every number -> what became of it; a number that comes twice fails."""
    fate: dict[int, str] = {}
    for seq, kind, content in read_all(folder):
        until = msgspec.json.decode(content, type=Lost).until if kind == FrameType.LOST else seq
        for number in range(seq, until + 1):
            assert number not in fate
            fate[number] = kind.name
    return fate


@given(
    st.lists(st.binary(max_size=300), max_size=30),
    st.integers(30, 900),
    st.sampled_from(["os", "group", "always"]),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_appended_is_read_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], segment: int, fsync: str
) -> None:
    root = tmp_path_factory.mktemp("spool")
    folder = write(root, payloads, segment_bytes=segment, fsync=fsync)
    frames = read_all(folder)
    assert [seq for seq, _, _ in frames] == list(range(len(payloads) + 1))
    assert [payload for _, _, payload in frames[:-1]] == payloads
    assert frames[-1][1] is FrameType.CLOSE


def test_a_reader_follows_a_living_writer_and_starts_anywhere(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, min_free_bytes=0, segment_bytes=200) as spool:
        reader, seen = SpoolReader(spool.folder), []
        for number in range(20):
            spool.append(REQUEST, b"{}", b"x" * number)
            seen += [frame.seq for frame in reader.read()]
        assert seen == list(range(20))
        assert reader.read() == []
        assert not reader.closed
        assert [frame.seq for frame in SpoolReader(spool.folder, 11).read()] == list(range(11, 20))
    assert [frame.type for frame in reader.read()] == [FrameType.CLOSE]
    assert reader.closed


def test_a_frame_survives_the_way_to_bytes_and_back() -> None:
    frame = parse(b"".join(encode(7, REQUEST, b'{"a":1}', b"payload")))
    assert frame
    assert parse(to_bytes(frame)) == frame


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "killed"])
def test_every_flipped_byte_is_accounted_for(tmp_path: Path, closed: bool) -> None:
    """Ten frames, each byte flipped in turn: every number comes once, at most one frame is lost."""
    source = write(tmp_path / "source", [bytes([65 + n]) * (n + 3) for n in range(10)])
    content = next(source.glob("*.seg")).read_bytes()
    if not closed:
        content = content[: -len(b"".join(encode(10, 8, b'{"at":1795173126000}')))]
    for at in range(len(content)):
        folder = tmp_path / "flipped" / f"{at:06d}"
        folder.mkdir(parents=True)
        (folder / "lock").touch()
        damaged = bytearray(content)
        damaged[at] ^= 0x40
        (folder / f"{0:020d}.seg").write_bytes(damaged)
        recover(folder)
        fate = accounted(folder)
        assert list(fate) == list(range(len(fate)))
        assert list(fate.values()).count("REQUEST") >= 9
        missing = [n for n in range(10) if fate.get(n) != "REQUEST"]
        told = any(fate.get(n) == "LOST" for n in missing)
        kept = list((folder.parent / "torn").glob(f"{folder.name}-*"))
        # A frame that is neither read nor told of can only be a torn tail, and that is kept.
        assert not missing or told or kept


def test_every_truncation_gives_the_whole_frames_before_it(tmp_path: Path) -> None:
    source = write(tmp_path / "source", [bytes([65 + n]) * (n + 3) for n in range(10)])
    content = next(source.glob("*.seg")).read_bytes()
    ends, offset = [], 0
    while frame := parse(content, offset):
        offset += frame.size
        ends.append(offset)
    for length in range(len(content)):
        folder = tmp_path / "cut" / f"{length:06d}"
        folder.mkdir(parents=True)
        (folder / "lock").touch()
        (folder / f"{0:020d}.seg").write_bytes(content[:length])
        torn = recover(folder)
        whole = sum(end <= length for end in ends)
        assert torn == length - max([end for end in ends if end <= length], default=0)
        assert list(accounted(folder).values()) == ["REQUEST"] * whole + ["CLOSE"]
        if torn:
            (kept,) = (folder.parent / "torn").glob(f"{folder.name}-*")
            assert kept.read_bytes() == content[length - torn : length]


def test_recovery_happens_once_and_never_to_a_living_writer(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, min_free_bytes=0) as spool:
        spool.append(REQUEST, b"{}", b"x")
        assert living(spool.folder)
        assert recover(spool.folder) is None
        assert len(read_all(spool.folder)) == 1
    assert not living(spool.folder)
    before = read_all(spool.folder)
    recover(spool.folder)
    assert read_all(spool.folder) == before


def test_damage_in_an_older_segment_costs_only_the_damaged_frames(tmp_path: Path) -> None:
    folder = write(tmp_path, [b"p" * 50] * 20, segment_bytes=400)
    second = segments(folder)[1]
    content = bytearray(second.read_bytes())
    content[30:110] = bytes(80)
    second.write_bytes(content)
    fate = accounted(folder)
    first = int(second.stem)
    lost = [n for n, what in fate.items() if what == "LOST"]
    assert lost == [first, first + 1]
    assert len(fate) == 21
    (kept,) = (tmp_path / "torn").glob("*.damaged")
    assert kept.read_bytes() == bytes(content)


def test_a_missing_segment_is_told_by_its_range(tmp_path: Path) -> None:
    folder = write(tmp_path, [b"p" * 50] * 20, segment_bytes=400)
    first, gone, third = segments(folder)[:3]
    gone.unlink()
    lost = [n for n, what in accounted(folder).items() if what == "LOST"]
    assert lost == list(range(int(gone.stem), int(third.stem)))
    assert first.exists()


def test_release_deletes_only_what_lies_wholly_below(tmp_path: Path) -> None:
    folder = write(tmp_path, [b"p" * 50] * 20, segment_bytes=400)
    names = [int(s.stem) for s in segments(folder)]
    release(folder, names[2] - 1)
    assert [int(s.stem) for s in segments(folder)] == names[1:]
    release(folder, 10_000)
    assert [int(s.stem) for s in segments(folder)] == names[-1:]
    Cursor(5, "lake").save(folder)
    assert Cursor.load(folder) == Cursor(5, "lake")
    remove(folder)
    assert spools(tmp_path) == []


def test_a_full_spool_refuses_requests_and_takes_answers(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, max_bytes=4 << 20, min_free_bytes=0) as spool:
        for _ in range(4):
            spool.append(REQUEST, b"{}", b"x" * (1 << 20))
        with pytest.raises(SpoolFull, match="start the collector"):
            spool.append(REQUEST, b"{}", b"x" * (1 << 20))
        held = spool.seq
        with pytest.raises(SpoolFull):
            spool.append(FrameType.GAP, b"{}")
        assert spool.append(RESPONSE, b"{}", b"answer") == held
        for path in segments(spool.folder):
            os.truncate(path, 0)  # space returns
        spool._looked_at = 0.0
        assert spool.append(REQUEST, b"{}") == held + 1


LIMITED = """
import pathlib, resource, signal, sys
from understudy.spool import FrameType, SpoolFull, SpoolWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
spool = SpoolWriter(pathlib.Path(sys.argv[1]), min_free_bytes=0)
for n in range(50):
    try:
        spool.append(FrameType.RESPONSE, b"{}", b"x" * 333)
    except SpoolFull:
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.append(FrameType.RESPONSE, b"{}", b"after")
spool.close()
print(n)
"""


def test_a_short_write_leaves_nothing_half_done(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    fitted = int(done.stdout)
    (folder,) = spools(tmp_path)
    frames = read_all(folder)
    assert [seq for seq, _, _ in frames] == list(range(fitted + 2))
    assert frames[fitted][2] == b"after"
    assert "no space" in done.stderr or "File too large" in done.stderr


KILLED = """
import os, pathlib, random, sys
from understudy.spool import FrameType, SpoolWriter
spool = SpoolWriter(pathlib.Path(sys.argv[1]), min_free_bytes=0, segment_bytes=100_000)
rng = random.Random(int(sys.argv[2]))
while True:
    payload = rng.randbytes(rng.randrange(3000))
    seq = spool.append(FrameType.REQUEST, b"{}", payload)
    os.write(1, seq.to_bytes(8, "little"))
"""


@pytest.mark.parametrize("seed", range(4))
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(seed)], stdout=subprocess.PIPE
    )
    assert process.stdout
    acknowledged = process.stdout.read(8 * random.Random(seed).randrange(1, 2000))
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.read()
    process.wait()
    process.stdout.close()
    last = int.from_bytes(acknowledged[-8:], "little")
    (folder,) = spools(tmp_path)
    assert not living(folder)
    recover(folder)
    rng = random.Random(seed)
    frames = read_all(folder)
    assert len(frames) >= last + 2
    for number, (seq, kind, payload) in enumerate(frames[:-1]):
        assert (seq, kind) == (number, REQUEST)
        assert payload == rng.randbytes(rng.randrange(3000))
    assert frames[-1][1] is FrameType.CLOSE


def test_group_fsync_releases_those_who_wait_across_segments(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, fsync="group", min_free_bytes=0, segment_bytes=300) as spool:
        waiting = [spool.durable(spool.append(REQUEST, b"{}", b"x" * 100)) for _ in range(30)]
        assert all(event is None or event.wait(30) for event in waiting)
    assert len(read_all(spool.folder)) == 31


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"spool\.path"):
        SpoolWriter(tmp_path / "file" / "spool")


def test_a_spool_appears_whole_and_locked(tmp_path: Path) -> None:
    (tmp_path / "half.new").mkdir()
    (tmp_path / "half.new" / "lock").touch()
    assert spools(tmp_path) == []
