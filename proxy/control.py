"""The control plane's side of a connection: uvicorn's own protocol, fed whole requests.

`Downstream` parses; a request for the control plane is written out again as bytes for uvicorn's
protocol on the same transport, as uvicorn itself does when it hands a connection to WebSockets. It
tells when its answer is out, and leaves keep-alive to the owner of the connection.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from proxy.message import Request, kind_of


def is_control(path: str) -> bool:
    """Whether a path is Understudy's own; every other one is relayed."""
    return path in ("/healthz", "/metrics") or path.startswith("/understudy/")


def serialise(request: Request, keep_alive: bool) -> bytes:
    """The request as bytes again, its body with a length."""
    body = b"".join(request.parts)
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method, request.target)]
    for name, value in request.headers:
        kind, lower = kind_of(name)
        if kind not in ("framing", "connection", "hop") and lower != b"expect":
            lines.append(b"%b: %b\r\n" % (name, value))
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % len(body))
    return b"".join([*lines, body])


class ControlPlane(HttpToolsProtocol):
    """uvicorn's protocol without a connection of its own."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
        *,
        done: Callable[[], None],
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._done = done

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.connections.discard(self)  # the owner is counted already

    def on_response_complete(self) -> None:
        self._done()
