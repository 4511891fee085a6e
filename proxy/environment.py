"""HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as curl and Python's urllib read them.

Plain upstreams through a proxy are tunnelled by CONNECT as well: then the proxy cannot rewrite what
it relays, and one code path serves both.
"""

import asyncio
import base64
import ssl
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import (  # type: ignore[attr-defined]
    getproxies_environment,
    proxy_bypass_environment,
)

_MAX_REPLY = 16 * 1024


class ProxyAddress(NamedTuple):
    """A forward proxy that takes CONNECT."""

    host: str
    port: int
    authorization: bytes | None

    async def open(
        self,
        loop: asyncio.AbstractEventLoop,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
    ) -> asyncio.Transport:
        """A tunnel to host:port, with TLS inside where `tls` is given; OSError where refused."""
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n" % (where.encode(), where.encode())]
        if self.authorization:
            lines.append(b"proxy-authorization: Basic %b\r\n" % self.authorization)
        transport, reply = await loop.create_connection(_Reply, self.host, self.port)
        try:
            transport.write(b"".join([*lines, b"\r\n"]))
            status = (await reply.head).partition(b"\r\n")[0]
            if status.split(b" ")[1:2] != [b"200"]:
                raise OSError(f"proxy {self.host}:{self.port} refused CONNECT: {status.decode()}")
            if tls is None:
                return transport
            secured = await loop.start_tls(transport, reply, tls, server_hostname=host)
        except BaseException:
            transport.abort()
            raise
        assert secured is not None
        return secured


def http_proxy_for(host: str, port: int, tls: bool) -> ProxyAddress | None:
    """The proxy that the environment wants for this origin, or None."""
    proxies = getproxies_environment()
    address = proxies.get("https" if tls else "http") or proxies.get("all")
    if not address or proxy_bypass_environment(f"{host}:{port}", proxies):
        return None
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.hostname is None:
        return None
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = base64.b64encode(pair.encode())
    return ProxyAddress(parts.hostname, parts.port or 80, authorization)


class _Reply(asyncio.Protocol):
    """Collects the proxy's head; nothing may follow it before we speak."""

    def __init__(self) -> None:
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self.head.done():
            return
        if self._data.endswith(b"\r\n\r\n"):
            self.head.set_result(self._data)
        elif len(self._data) > _MAX_REPLY:
            self.head.set_exception(OSError("proxy answered CONNECT with an endless head"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.head.done():
            self.head.set_exception(error or OSError("proxy closed the connection at CONNECT"))
