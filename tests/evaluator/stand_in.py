"""A stand-in student: a real HTTP server with the chat endpoint, answers from a function."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[dict[str, Any]], str | dict[str, Any] | int]
"""From the request's body to a text, an assistant message, or a status code to fail with."""


@contextlib.contextmanager
def student(say: Say) -> Iterator[str]:
    """Serve `say` on a free port; its address with /v1. Bodies are checked to be JSON."""

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            said = say(body) if self.path == "/v1/chat/completions" else 404
            status = said if isinstance(said, int) else 200
            self._send(status, _completion(said, body) if status == 200 else {"error": status})

        def _send(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(said: Any, body: dict[str, Any]) -> dict[str, Any]:
    message = said if isinstance(said, dict) else {"role": "assistant", "content": said}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"object": "chat.completion", "model": body["model"], "choices": [choice]}
