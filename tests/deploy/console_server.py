"""The console behind a real socket, for its tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from deploy.http_server import address, bind, server


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address under which `app` answers while the block runs."""
    sock = bind("127.0.0.1", 0)
    running = server(app)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield address(sock)
    finally:
        running.should_exit = True
        thread.join()
        sock.close()
