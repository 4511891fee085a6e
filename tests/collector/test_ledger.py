"""The ledger: whatever is repeated, comes early or is read again after a crash, each row once."""

import random
from typing import NamedTuple

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.ledger import Attempt, Footer, Ledger
from understudy.exchange import RequestMeta, ResponseMeta
from understudy.spool import Frame, FrameType, encode, lost, parse


class Sent(NamedTuple):
    """A message of the log."""

    spool_id: str
    frame: Frame


def frame(seq: int, kind: FrameType, meta: object, payload: bytes = b"") -> Frame:
    """A frame as it is read from a spool."""
    made = parse(b"".join(encode(seq, kind, msgspec.json.encode(meta), payload)))
    assert made
    return made


def request(attempt_id: str) -> RequestMeta:
    """The meta of a REQUEST."""
    return RequestMeta(
        exchange_id=f"x-{attempt_id}",
        attempt_id=attempt_id,
        arm="teacher",
        role="served",
        served=True,
        requested_at=1_000,
        endpoint="chat.completions",
    )


def spool_frames(spool_id: str, rng: random.Random, attempts: int) -> list[Frame]:
    """Frames of interleaved attempts with chunks, heartbeats between, CLOSE last."""
    scripts = []
    for number in range(attempts):
        name, chunks = f"{spool_id}-{number}", rng.randrange(3)
        script: list[tuple[FrameType, object, bytes]] = [(FrameType.REQUEST, request(name), b"q")]
        for part in range(chunks):
            meta = {"attempt_id": name, "part": part}
            script.append((FrameType.CHUNK, meta, f"{part};".encode()))
        if rng.random() < 0.9:
            end = ResponseMeta(attempt_id=name, outcome="complete", chunks=chunks)
            script.append((FrameType.RESPONSE, end, b"end"))
        scripts.append(script)
    frames = []
    while any(scripts):
        script = rng.choice([s for s in scripts if s])
        frames.append(frame(len(frames), *script.pop(0)))
        if rng.random() < 0.1:
            frames.append(frame(len(frames), FrameType.HEARTBEAT, {"at": 1}))
    return [*frames, frame(len(frames), FrameType.CLOSE, {"at": 1})]


def delivered(rng: random.Random, spools: dict[str, list[Frame]]) -> list[Sent]:
    """The spools' frames as a log has them: in order in the end, with repetitions and strays."""
    log, sent = [], dict.fromkeys(spools, 0)
    while any(sent[name] < len(frames) for name, frames in spools.items()):
        name = rng.choice([n for n, frames in spools.items() if sent[n] < len(frames)])
        if rng.random() < 0.3:  # a batch that was sent again, or that overtook
            stray = rng.randrange(len(spools[name]))
            log += [Sent(name, f) for f in spools[name][stray : stray + 3]]
        log.append(Sent(name, spools[name][sent[name]]))
        sent[name] += 1
    return log


class Stored(NamedTuple):
    """What the files hold in the end."""

    attempts: list[Attempt]
    footer: Footer


def run(log: list[Sent], rng: random.Random) -> Stored:
    """A sink that flushes and dies at random; a file is only its footer and its rows here."""
    stored: list[Attempt] = []
    saved: bytes | None = None
    while True:
        footer = msgspec.json.decode(saved, type=Footer) if saved else None
        ledger = Ledger(footer)
        end = footer.end if footer else 0
        for offset in range(ledger.next_offset, len(log)):
            ledger.take(offset, *log[offset])
            chance = rng.random()
            if chance < 0.02:
                break  # killed: what was finished and not stored is forgotten
            if chance < 0.15 and ledger.next_offset > end:
                stored += [a for a in ledger.finished if isinstance(a, Attempt)]
                ledger.finished = []
                saved = msgspec.json.encode(ledger.footer(end))
                end = ledger.next_offset
        else:
            stored += [a for a in ledger.finished if isinstance(a, Attempt)]
            return Stored(stored, ledger.footer(end))


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_attempt_is_finished_once_with_all_its_bytes(
    seed: int, spool_count: int, attempts: int
) -> None:
    rng = random.Random(seed)
    names = [f"s{n}" for n in range(spool_count)]
    spools = {name: spool_frames(name, rng, attempts) for name in names}
    stored = run(delivered(rng, spools), rng)
    wanted = sorted(f"{name}-{n}" for name in names for n in range(attempts))
    assert sorted(a.meta.attempt_id for a in stored.attempts) == wanted
    for attempt in stored.attempts:
        parts = [f"{n};".encode() for n in range(len(attempt.parts) - (attempt.end is not None))]
        assert attempt.body == b"q"
        assert attempt.answer == b"".join(parts) + (b"end" if attempt.end else b"")
        assert attempt.end is None or attempt.end.chunks == len(parts)
    for name, frames in spools.items():
        count = stored.footer.spools[name]
        assert count.offered == len(frames) == count.stored + count.other
        assert (count.lost, count.closed, count.attempts) == (0, True, attempts)


def test_what_came_too_early_is_refused_and_taken_when_it_is_due() -> None:
    frames = [frame(n, FrameType.HEARTBEAT, {"at": 1}) for n in range(3)]
    ledger = Ledger(None)
    assert not ledger.take(0, "s", frames[1])
    assert ledger.take(1, "s", frames[0])
    assert not ledger.take(2, "s", frames[0])
    assert not ledger.take(3, "s", frames[2])
    assert ledger.take(4, "s", frames[1])
    assert ledger.take(5, "s", frames[2])


def test_a_lost_range_is_booked_once_and_the_rest_goes_on() -> None:
    ledger = Ledger(None)
    ledger.take(0, "s", frame(0, FrameType.REQUEST, request("a"), b"q"))
    ledger.take(1, "s", lost(1, 4, "damaged"))
    end = ResponseMeta(attempt_id="a", outcome="complete", chunks=4)
    ledger.take(5, "s", frame(5, FrameType.RESPONSE, end, b"end"))
    count = ledger.spools["s"]
    assert (count.lost, count.lost_ranges, count.stored, count.offered) == (4, [(1, 4)], 2, 6)
    (attempt,) = ledger.finished
    assert isinstance(attempt, Attempt)
    assert attempt.answer == b"end"


def test_the_end_of_an_attempt_whose_request_is_lost_is_lost_too() -> None:
    ledger = Ledger(None)
    ledger.take(0, "s", lost(0, 0, "damaged"))
    end = ResponseMeta(attempt_id="a", outcome="complete")
    ledger.take(1, "s", frame(1, FrameType.RESPONSE, end, b"end"))
    assert ledger.spools["s"].lost_ranges == [(0, 0), (1, 1)]
    assert ledger.finished == []


def test_what_retention_deleted_is_booked_as_lost() -> None:
    ledger = Ledger(None)
    ledger.take(0, "s", frame(0, FrameType.HEARTBEAT, {"at": 1}))
    ledger = Ledger(msgspec.json.decode(msgspec.json.encode(ledger.footer(0)), type=Footer))
    ledger.jump(100)
    ledger.take(100, "s", frame(7, FrameType.HEARTBEAT, {"at": 1}))
    ledger.take(101, "new", frame(2, FrameType.HEARTBEAT, {"at": 1}))
    assert not ledger.take(102, "s", frame(9, FrameType.HEARTBEAT, {"at": 1}))
    assert ledger.spools["s"].lost_ranges == [(1, 6)]
    assert ledger.spools["new"].lost_ranges == [(0, 1)]
    assert ledger.footer(1).end == 103


def test_frames_stored_elsewhere_are_not_lost() -> None:
    ledger = Ledger(None)
    ledger.take(0, "s", lost(0, 9, "stored without Kafka", stored_elsewhere=True))
    assert ledger.take(1, "s", frame(10, FrameType.HEARTBEAT, {"at": 1}))
    count = ledger.spools["s"]
    assert (count.offered, count.other, count.lost) == (1, 1, 0)


def test_an_open_attempt_that_is_damaged_before_it_is_read_again_is_lost_aloud() -> None:
    ledger = Ledger(None)
    ledger.take(0, "s", frame(0, FrameType.REQUEST, request("a"), b"q"))
    ledger.take(1, "s", frame(1, FrameType.HEARTBEAT, {"at": 1}))
    again = Ledger(msgspec.json.decode(msgspec.json.encode(ledger.footer(0)), type=Footer))
    assert again.next_offset == 0
    again.take(0, "s", lost(0, 1, "damaged"))
    count = again.spools["s"]
    assert (count.lost, count.lost_ranges) == (1, [(0, 0)])
    assert count.offered == count.stored + count.other + count.lost + again.open_frames("s") == 2
