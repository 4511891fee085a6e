"""Between the event loop and the worker: start sequences, receive their pieces, notice who left.

`pieces` cancels its sequences when it is closed for whatever reason, so that an answer nobody
waits for stops costing time at the worker's next turn.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from tokenizers import Tokenizer

from deploy.openai_api import ApiError
from deploy.serving.inprocess.sequence import Piece, Sampling, Sequence
from deploy.serving.inprocess.worker import Worker

T = TypeVar("T")


class Ask:
    """One prompt with its adapter and sampling: the unit that becomes one choice."""

    def __init__(self, prompt: list[int], adapter: str | None, sampling: Sampling) -> None:
        self.prompt, self.adapter, self.sampling = prompt, adapter, sampling
        self.sequence: Sequence | None = None  # set when it runs


async def pieces(
    worker: Worker, tokenizer: Tokenizer, asks: list[Ask], *, stream: bool
) -> AsyncIterator[tuple[int, Piece]]:
    """The pieces of all asks with their index, until every one has finished."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

    def started(index: int, ask: Ask) -> Sequence:
        def emit(piece: Piece) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, (index, piece))

        return Sequence(ask.prompt, ask.adapter, ask.sampling, tokenizer, emit, stream=stream)

    for index, ask in enumerate(asks):
        ask.sequence = started(index, ask)
        worker.submit(ask.sequence)
    running = len(asks)
    try:
        while running:
            index, piece = await arrived.get()
            if piece.finish == "error":
                raise ApiError(500, f"the student failed: {piece.error}")
            running -= piece.finish is not None
            yield index, piece
    finally:
        for ask in asks:
            if ask.sequence is not None:
                ask.sequence.cancelled = True


async def unless_gone(http: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if the client leaves first (499, read by nobody)."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_left(http))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client left")
        return await task
    finally:
        task.cancel()
        gone.cancel()


async def _left(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
