"""Frames of one partition -> finished attempts, each exactly once. Sans-IO: no clock, no files.

A partition is an ordered run of (offset, spool_id, frame); without Kafka it holds one spool and the
offset is the frame's number. Receive rule: a spool's frame is taken if its number is the last one
plus 1; lower ones are repetitions, higher ones came too early and will be sent again.

`footer` is all that a successor needs: it reads again from `restart`, the oldest open attempt, and
takes of what lies below the high-water marks only the frames of open attempts.
"""

import contextlib
import logging

import msgspec

from understudy.exchange import Feedback, RequestMeta, ResponseMeta
from understudy.spool import Frame, FrameType, Lost, decode_body

log = logging.getLogger(__name__)


class SpoolCount(msgspec.Struct):
    """What became of one spool's frames: offered == stored + other + lost + open."""

    first: int  # number of the first frame that was due here
    last: int  # highest number taken
    stored: int = 0  # frames that rows were made of
    other: int = 0  # frames that make no row: HEARTBEAT, GAP, CLOSE
    lost: int = 0
    attempts: int = 0  # rows
    feedback: int = 0  # rows
    gap: int = 0  # exchanges that passed unlogged, by the operator's policy
    lost_ranges: list[tuple[int, int]] = msgspec.field(default_factory=list)
    closed: bool = False

    @property
    def offered(self) -> int:
        """How many frames the spool is known to have had, from `first` on."""
        return self.last + 1 - self.first


class Open(msgspec.Struct, frozen=True):
    """An attempt without an end, and where its REQUEST lies."""

    attempt_id: str
    spool_id: str
    seq: int
    offset: int
    frames: int


class Footer(msgspec.Struct, kw_only=True):
    """The state of a partition after the frames below offset `end`."""

    version: int = 1
    start: int
    end: int
    open: list[Open] = []
    spools: dict[str, SpoolCount] = {}

    @property
    def restart(self) -> int:
        """The offset from which a successor has to read."""
        return min([attempt.offset for attempt in self.open], default=self.end)


class Attempt:
    """One upstream call under assembly. `end` is None where it never ended (unfinished)."""

    __slots__ = ("body", "end", "frames", "meta", "offset", "parts", "seq", "spool_id")

    def __init__(
        self, spool_id: str, seq: int, offset: int, meta: RequestMeta, body: bytes
    ) -> None:
        self.spool_id, self.seq, self.offset = spool_id, seq, offset
        self.meta, self.body = meta, body
        self.parts: list[bytes] = []
        self.frames = 1
        self.end: ResponseMeta | None = None

    def add(self, payload: bytes) -> None:
        """One more frame of the answer."""
        self.parts.append(payload)
        self.frames += 1

    @property
    def answer(self) -> bytes:
        """The answer's body as far as it came."""
        return b"".join(self.parts)

    @property
    def size(self) -> int:
        """Bytes of both bodies."""
        return len(self.body) + sum(map(len, self.parts))


class Word(msgspec.Struct, frozen=True):
    """A feedback and the frame that brought it."""

    spool_id: str
    seq: int
    feedback: Feedback


class _ChunkMeta(msgspec.Struct):
    attempt_id: str


class _GapMeta(msgspec.Struct):
    count: int


_REQUEST = msgspec.json.Decoder(RequestMeta)
_RESPONSE = msgspec.json.Decoder(ResponseMeta)
_CHUNK = msgspec.json.Decoder(_ChunkMeta)
_FEEDBACK = msgspec.json.Decoder(Feedback)
_GAP = msgspec.json.Decoder(_GapMeta)
_LOST = msgspec.json.Decoder(Lost)


class Ledger:
    """The state of a partition. `take` frames, then fetch what is `finished`.

    `first` is the number with which a spool begins that this partition has not seen before.
    """

    def __init__(self, footer: Footer | None, first: int = 0) -> None:
        self.next_offset = footer.restart if footer else first
        self.spools = footer.spools if footer else {}
        self.finished: list[Attempt | Word] = []
        self._first = first
        self._open: dict[str, Attempt] = {}
        # Open attempts of the footer whose REQUEST has not been read again yet.
        self._awaited = {attempt.attempt_id: attempt for attempt in footer.open} if footer else {}
        self._stored_until = {name: count.last for name, count in self.spools.items()}
        self._position = dict(self._stored_until)
        for attempt in self._awaited.values():
            spool_id = attempt.spool_id
            self._position[spool_id] = min(self._position[spool_id], attempt.seq - 1)
        self._jumped_over: set[str] | None = None  # spools seen since a jump; None without one

    def take(self, offset: int, spool_id: str, frame: Frame) -> bool:
        """Take a frame in; False where the receive rule refuses it (a repetition, or too early)."""
        self.next_offset = offset + 1
        count = self._count(spool_id)
        self._bridge_jump(spool_id, count, frame.seq)
        if frame.seq != self._position[spool_id] + 1:
            return False
        until = frame.seq
        if frame.type is FrameType.LOST:
            until = _LOST.decode(decode_body(frame.body)[0]).until
        self._position[spool_id] = until
        if until <= self._stored_until[spool_id]:
            self._take_again(offset, spool_id, frame)
        else:
            self._take_new(offset, spool_id, frame, count)
            count.last = self._stored_until[spool_id] = until
        self._give_up_awaited(spool_id, count)
        return True

    def jump(self, offset: int) -> None:
        """Frames below `offset` are gone (retention): go on there, and book what is missing."""
        self.next_offset, self._jumped_over = offset, set()

    def footer(self, start: int) -> Footer:
        """The state after all that was taken; `finished` has to be in the same file."""
        still = [
            Open(a.meta.attempt_id, a.spool_id, a.seq, a.offset, a.frames)
            for a in self._open.values()
        ]
        still += self._awaited.values()
        return Footer(start=start, end=self.next_offset, open=still, spools=self.spools)

    def open_frames(self, spool_id: str) -> int:
        """Frames of the spool's attempts that have no end yet."""
        found = sum(a.frames for a in self._open.values() if a.spool_id == spool_id)
        return found + sum(a.frames for a in self._awaited.values() if a.spool_id == spool_id)

    def end_stale(self, before_ms: int) -> None:
        """Finish attempts requested before `before_ms` as unfinished: their writer is stuck."""
        for attempt in [a for a in self._open.values() if a.meta.requested_at < before_ms]:
            self._finish(attempt, None)

    def _count(self, spool_id: str) -> SpoolCount:
        if spool_id not in self.spools:
            self.spools[spool_id] = SpoolCount(self._first, self._first - 1)
            self._position[spool_id] = self._stored_until[spool_id] = self._first - 1
        return self.spools[spool_id]

    def _bridge_jump(self, spool_id: str, count: SpoolCount, seq: int) -> None:
        """The first frame of a spool after a jump may be any: what it leaves out is lost."""
        if self._jumped_over is None or spool_id in self._jumped_over:
            return
        self._jumped_over.add(spool_id)
        due = self._position[spool_id] + 1
        if seq > due:
            self._lose(count, due, seq - 1)
            self._position[spool_id] = self._stored_until[spool_id] = count.last = seq - 1

    def _take_again(self, offset: int, spool_id: str, frame: Frame) -> None:
        """A frame from before the last file: only those of open attempts are still needed."""
        meta, payload = decode_body(frame.body)
        with contextlib.suppress(msgspec.DecodeError):  # booked as lost when it came first
            if frame.type is FrameType.REQUEST:
                request = _REQUEST.decode(meta)
                awaited = self._awaited.pop(request.attempt_id, None)
                if awaited:
                    self._begin(Attempt(spool_id, frame.seq, offset, request, payload))
                    self._open[request.attempt_id].frames = awaited.frames
            elif frame.type is FrameType.CHUNK:
                attempt = self._open.get(_CHUNK.decode(meta).attempt_id)
                if attempt:
                    attempt.parts.append(payload)

    def _take_new(self, offset: int, spool_id: str, frame: Frame, count: SpoolCount) -> None:
        try:
            self._apply(offset, spool_id, frame, count)
        except msgspec.DecodeError as error:  # written by another version, or not by us
            log.error("spool %s: frame %d cannot be used: %s", spool_id, frame.seq, error)
            self._lose(count, frame.seq, frame.seq)

    def _apply(self, offset: int, spool_id: str, frame: Frame, count: SpoolCount) -> None:
        meta, payload = decode_body(frame.body)
        match frame.type:
            case FrameType.REQUEST:
                request = _REQUEST.decode(meta)
                self._begin(Attempt(spool_id, frame.seq, offset, request, payload))
            case FrameType.CHUNK:
                self._continue(_CHUNK.decode(meta).attempt_id, payload, frame.seq, count)
            case FrameType.RESPONSE | FrameType.ABORT:
                end = _RESPONSE.decode(meta)
                attempt = self._continue(end.attempt_id, payload, frame.seq, count)
                if attempt:
                    self._finish(attempt, end)
            case FrameType.FEEDBACK:
                self.finished.append(Word(spool_id, frame.seq, _FEEDBACK.decode(meta)))
                count.feedback += 1
                count.stored += 1
            case FrameType.LOST:
                first = max(frame.seq, count.last + 1)  # a part of it may be stored already
                self._apply_lost(first, _LOST.decode(meta), count)
            case _:
                self._apply_other(spool_id, frame.type, meta, count)

    def _apply_other(self, spool_id: str, kind: FrameType, meta: bytes, count: SpoolCount) -> None:
        if kind is FrameType.GAP:
            count.gap += _GAP.decode(meta).count
        elif kind is FrameType.CLOSE:
            count.closed = True
            for attempt in [a for a in self._open.values() if a.spool_id == spool_id]:
                self._finish(attempt, None)
        count.other += 1

    def _apply_lost(self, seq: int, lost: Lost, count: SpoolCount) -> None:
        if lost.stored_elsewhere:
            count.first = lost.until + 1
        else:
            self._lose(count, seq, lost.until)

    def _begin(self, attempt: Attempt) -> None:
        self._open[attempt.meta.attempt_id] = attempt

    def _continue(
        self, attempt_id: str, payload: bytes, seq: int, count: SpoolCount
    ) -> Attempt | None:
        attempt = self._open.get(attempt_id)
        if attempt is None:  # its REQUEST is lost, or it was given up as stale
            log.error("frame %d: attempt %s is not open; the frame is lost", seq, attempt_id)
            self._lose(count, seq, seq)
            return None
        attempt.add(payload)
        return attempt

    def _finish(self, attempt: Attempt, end: ResponseMeta | None) -> None:
        del self._open[attempt.meta.attempt_id]
        attempt.end = end
        self.finished.append(attempt)
        count = self.spools[attempt.spool_id]
        count.attempts += 1
        count.stored += attempt.frames

    def _give_up_awaited(self, spool_id: str, count: SpoolCount) -> None:
        """An open attempt that was not found again where its REQUEST lay: damage came since."""
        if not self._awaited:
            return
        position = self._position[spool_id]
        for attempt in list(self._awaited.values()):
            if attempt.spool_id == spool_id and attempt.seq <= position:
                del self._awaited[attempt.attempt_id]
                self._lose(count, attempt.seq, attempt.seq, frames=attempt.frames)

    def _lose(self, count: SpoolCount, first: int, until: int, frames: int | None = None) -> None:
        count.lost += until + 1 - first if frames is None else frames
        count.lost_ranges.append((first, until))
