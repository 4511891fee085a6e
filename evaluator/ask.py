"""Put the held-out requests to a student's endpoint, a few at a time, each with its own parameters.

Temperature is 0. Only a connection that could not be made is tried again: an answer that went wrong
is a failure of the student, is kept as such and counts as wrong. Nothing is scored here.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import httpx

from evaluator.answer import Answer, from_message
from evaluator.dataset import Row
from understudy.errors import UpstreamError

_CONNECT_TRIES = 4


class Reply(NamedTuple):
    """A student's answer or the reason why there is none; `duration_ms` to its last byte."""

    answer: Answer | None
    error: str | None
    duration_ms: float


class Endpoint(NamedTuple):
    """An OpenAI-compatible address with its /v1, and what to ask for there."""

    base_url: str
    model: str
    api_key_env: str | None = None
    concurrency: int = 8
    timeout_s: float = 120


def ask_all(endpoint: Endpoint, rows: Sequence[Row], seen: Callable[[Reply], None]) -> list[Reply]:
    """A reply for each row, in order; `seen` is called as they come in.

    UpstreamError if the endpoint cannot be reached at all: that says nothing of the student.
    """
    replies = asyncio.run(_ask_all(endpoint, rows, seen))
    unreachable = [r for r in replies if r.error and r.error.startswith("connect:")]
    if replies and len(unreachable) == len(replies):
        raise UpstreamError(
            f"no connection to {endpoint.base_url} ({replies[0].error}); is the student served "
            "there? `understudy serve` does, or let `--adapter DIR` start it"
        )
    return replies


async def _ask_all(
    endpoint: Endpoint, rows: Sequence[Row], seen: Callable[[Reply], None]
) -> list[Reply]:
    gate = asyncio.Semaphore(endpoint.concurrency)
    timeout = httpx.Timeout(endpoint.timeout_s, connect=5, pool=None)
    # A student's own address is asked directly: a proxy of the environment is for the internet.
    async with httpx.AsyncClient(timeout=timeout, headers=_headers(endpoint), trust_env=False) as c:

        async def one(row: Row) -> Reply:
            async with gate:
                reply = await _ask(c, endpoint, row)
            seen(reply)
            return reply

        return list(await asyncio.gather(*map(one, rows)))


async def _ask(client: httpx.AsyncClient, endpoint: Endpoint, row: Row) -> Reply:
    body = {**row.request, "model": endpoint.model, "temperature": 0}
    started = time.perf_counter()
    for attempt in range(_CONNECT_TRIES):
        if attempt:
            await asyncio.sleep(0.2 * 2**attempt)
        started = time.perf_counter()
        try:
            response = await client.post(f"{endpoint.base_url}/chat/completions", json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = f"connect: {error or type(error).__name__}"
        except httpx.HTTPError as error:
            return Reply(None, f"{type(error).__name__}: {error}", _ms_since(started))
        else:
            return _read(response, _ms_since(started))
    return Reply(None, failure, _ms_since(started))


def _read(response: httpx.Response, duration_ms: float) -> Reply:
    if response.status_code != 200:
        return Reply(None, f"HTTP {response.status_code}: {response.text[:200]}", duration_ms)
    try:
        message: dict[str, Any] = response.json()["choices"][0]["message"]
        return Reply(from_message(message), None, duration_ms)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Reply(None, f"no chat completion: {response.text[:200]}", duration_ms)


def _headers(endpoint: Endpoint) -> dict[str, str]:
    key = os.environ.get(endpoint.api_key_env) if endpoint.api_key_env else None
    return {"authorization": f"Bearer {key}"} if key else {}


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
