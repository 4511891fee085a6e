"""The worker: one thread that owns the model and runs every waiting sequence in shared batches.

Batching is continuous: at each turn waiting sequences are prefilled and join the batch of their
adapter, every batch takes one step, and finished or cancelled rows leave. Loading and unloading
run on the same thread between two turns. A failing turn fails its sequences, never the thread.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from deploy.serving.inprocess.cache import Batch
from deploy.serving.inprocess.model import Model
from deploy.serving.inprocess.sampling import choose
from deploy.serving.inprocess.sequence import Sequence, Token

log = logging.getLogger(__name__)

MAX_ROWS = 64  # of one batch; a 4 M model on 2 cores gains nothing above
_Task = tuple[Callable[[], None], "Future[None]"]


@dataclass
class _Group:
    """The running rows of one adapter."""

    rows: list[Sequence] = field(default_factory=list)
    batch: Batch | None = None

    def leave(self, ended: set[int]) -> None:
        kept = [i for i in range(len(self.rows)) if i not in ended]
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self.batch = None
        elif ended and self.batch is not None:
            self.batch.keep(kept)

    def join(self, rows: list[Sequence], batch: Batch) -> None:
        self.rows += rows
        if self.batch is None:
            self.batch = batch
        else:
            self.batch.merge(batch)


class Worker:
    """Runs sequences until `close`; submit and call from any thread."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._wake = threading.Condition()
        self._waiting: deque[Sequence] = deque()
        self._tasks: deque[_Task] = deque()
        self._groups: dict[str | None, _Group] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="student-worker", daemon=True)
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; its pieces come through its `emit`."""
        with self._wake:
            self._waiting.append(sequence)
            self._wake.notify()

    def call(self, task: Callable[[], None]) -> "Future[None]":
        """Run `task` on the model's thread between two turns."""
        done: Future[None] = Future()
        with self._wake:
            self._tasks.append((task, done))
            self._wake.notify()
        return done

    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop after the current turn."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(self._has_work)
                if self._closed:
                    return
                tasks, self._tasks = self._tasks, deque()
                waiting, self._waiting = self._waiting, deque()
            for task, done in tasks:
                _settle(task, done)
            for sequence in waiting:
                self._groups.setdefault(sequence.adapter, _Group())
            for adapter, group in list(self._groups.items()):
                self._turn(adapter, group, [s for s in waiting if s.adapter == adapter])
                if not group.rows:
                    del self._groups[adapter]

    def _has_work(self) -> bool:
        return bool(self._closed or self._tasks or self._waiting or self._groups)

    def _turn(self, adapter: str | None, group: _Group, new: list[Sequence]) -> None:
        room = MAX_ROWS - len(group.rows)
        later, new = new[room:], new[:room]
        with self._wake:
            self._waiting.extendleft(reversed(later))
        try:
            self._model.activate(adapter)
            if group.batch is not None:
                self._step(group, group.batch)
            if new:
                self._admit(group, new)
        except Exception as error:  # the request boundary: these answers fail, the server lives on
            log.exception("a batch of %d failed", len(group.rows) + len(new))
            for sequence in [*group.rows, *new]:
                sequence.fail(f"{type(error).__name__}: {error}")
            group.rows, group.batch = [], None

    def _step(self, group: _Group, batch: Batch) -> None:
        logits = self._model.step(batch, [row.tokens[-1].id for row in group.rows])
        group.leave(_advance(group.rows, choose(logits, group.rows)))

    def _admit(self, group: _Group, new: list[Sequence]) -> None:
        for sequence in new:
            if sequence.sampling.prompt_logprobs is not None:
                sequence.prompt_tokens = self._model.score(
                    sequence.prompt, sequence.sampling.prompt_logprobs
                )
        logits, batch = self._model.prefill([sequence.prompt for sequence in new])
        arrived = _Group(new, batch)
        arrived.leave(_advance(new, choose(logits, new)))
        if arrived.batch is not None:
            group.join(arrived.rows, arrived.batch)


def _advance(rows: list[Sequence], tokens: list[Token]) -> set[int]:
    """Give each row its token; the indices of the rows that have ended."""
    return {
        i
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True))
        if row.cancelled or row.add(token)
    }


def _settle(task: Callable[[], None], done: "Future[None]") -> None:
    try:
        task()
    except Exception as error:  # handed to whoever asked
        done.set_exception(error)
    else:
        done.set_result(None)
