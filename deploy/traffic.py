"""Traffic as an application makes it: the real OpenAI client, several connections, streams or not.

Used by `understudy replay` and by the demo. An answer is returned whole with what the proxy's
headers say of it; a failed call is a result too, never an exception that ends the run.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, NamedTuple

import openai


class Call(NamedTuple):
    """One chat completion to send. `expected` is the known answer, if there is one."""

    request: dict[str, Any]
    stream: bool = False
    expected: str | None = None


class Sent(NamedTuple):
    """What came back. `text` is None where the call failed; `seconds` until the last byte."""

    call: Call
    text: str | None
    arm: str | None
    exchange_id: str | None
    seconds: float
    error: str | None


class Application:
    """One application behind a base URL; safe to use from several threads."""

    def __init__(self, base_url: str, api_key: str = "not-needed", timeout_s: float = 60) -> None:
        self._client = openai.OpenAI(
            base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=0
        )

    def send(self, call: Call, headers: dict[str, str] | None = None) -> Sent:
        """Send one call and read its answer to the end."""
        started = time.monotonic()
        try:
            text, seen = self._stream(call, headers) if call.stream else self._whole(call, headers)
        except openai.OpenAIError as error:
            seconds = time.monotonic() - started
            return Sent(call, None, None, None, seconds, f"{type(error).__name__}: {error}")
        seconds = time.monotonic() - started
        arm, exchange = seen.get("x-understudy-arm"), seen.get("x-understudy-exchange-id")
        return Sent(call, text, arm, exchange, seconds, None)

    def _whole(self, call: Call, headers: dict[str, str] | None) -> tuple[str, Any]:
        raw = self._client.chat.completions.with_raw_response.create(
            **call.request, extra_headers=headers
        )
        message = raw.parse().choices[0].message
        return message.content or "", raw.headers

    def _stream(self, call: Call, headers: dict[str, str] | None) -> tuple[str, Any]:
        raw = self._client.chat.completions.with_raw_response.create(
            **call.request, stream=True, extra_headers=headers
        )
        pieces = [choice.delta.content for chunk in raw.parse() for choice in chunk.choices[:1]]
        return "".join(piece for piece in pieces if piece), raw.headers


def send_all(
    application: Application,
    calls: Iterable[Call],
    connections: int,
    stop: threading.Event | None = None,
) -> Iterator[Sent]:
    """Results in the order of completion, `connections` at a time; `stop` ends an endless run."""
    source = iter(calls)
    with ThreadPoolExecutor(connections) as pool:
        running: set[Future[Sent]] = {
            pool.submit(application.send, call) for call in islice(source, connections)
        }
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            if not (stop and stop.is_set()):
                running |= {pool.submit(application.send, c) for c in islice(source, len(done))}
            for future in done:
                yield future.result()


class Background:
    """Calls without end on threads of its own, until `stop`; `seen` counts results as they come."""

    def __init__(
        self,
        application: Application,
        calls: Iterable[Call],
        connections: int,
        seen: Callable[[Sent], None],
    ) -> None:
        self._stop = threading.Event()
        self._results = send_all(application, calls, connections, self._stop)
        self._seen = seen
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the calls under way finish, and send no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for sent in self._results:
            self._seen(sent)
