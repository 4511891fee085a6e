"""An answer's framing towards the client: what is staged leaves in one write.

Content-Length where the upstream gave one, else chunked, else (HTTP/1.0) until the connection
closes. Whether the connection goes on afterwards is said in the head, so it is decided before it.
"""

from proxy.message import Head, Request, status_line


class Answer:
    """The bytes of one answer, staged; `take` gives what is to be written now."""

    __slots__ = ("_bare", "_chunked", "_out", "closes", "head_sent")

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self.head_sent = self.closes = self._chunked = self._bare = False

    def head(self, head: Head, own: bytes, request: Request | None, close: bool) -> None:
        """Stage the head; `own` are our header lines."""
        old = request is not None and request.version != "1.1"
        self._bare = head.bodyless or (request is not None and request.method == b"HEAD")
        self.closes = close
        framing = b""
        if head.length is not None and head.status != 204:
            framing = b"content-length: %d\r\n" % head.length
        elif not self._bare and old:
            self.closes = True
        elif not self._bare:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        end = b"connection: close\r\n\r\n" if self.closes else b"\r\n"
        line = status_line(head.status, head.reason)
        self._out.append(b"".join((line, head.block, own, framing, end)))
        self.head_sent = True

    def body(self, data: bytes) -> None:
        """Stage a piece of the body."""
        if not data or self._bare:
            return
        self._out.append(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """Stage the end."""
        if self._chunked:
            self._out.append(b"0\r\n\r\n")

    def take(self) -> bytes:
        """What is staged, as one piece."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)
