"""Run an ASGI app until SIGTERM: bind first, say the address on stdout, then serve.

The address is the first line on stdout (`listening on http://host:port`), written when the socket
already listens, so that whoever started the process may connect as soon as it has read the line;
`--port 0` takes a free port. Does not fork, reload or terminate TLS.
"""

import socket
import sys

import uvicorn
from fastapi import FastAPI

from understudy.errors import ServingError

KEEP_ALIVE_S = 75  # uvicorn's 5 s races with the keep-alive of SDK clients


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is a free one."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ServingError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port (0 is free)"
        ) from error
    sock.listen(2048)
    return sock


def address(sock: socket.socket) -> str:
    """The URL under which a bound socket is reached."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announce(url: str) -> None:
    """The first line on stdout of every server of ours."""
    sys.stdout.write(f"listening on {url}\n")
    sys.stdout.flush()


def server(app: FastAPI) -> uvicorn.Server:
    """A uvicorn server that logs warnings only and lets open streams finish for 10 s."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=10,
    )
    return uvicorn.Server(config)


def run(app: FastAPI, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    sock = bind(host, port)
    announce(address(sock))
    server(app).run(sockets=[sock])
