"""One worker process: builds the site, lets uvicorn own the sockets, drains, closes the spool."""

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from proxy.app import make_app
from proxy.capture import HEARTBEAT_S, Capture
from proxy.deadline import Deadlines
from proxy.downstream import Downstream
from proxy.metrics import Metrics
from proxy.pool import HttpUpstream, Pool
from proxy.shadow import Shadows
from proxy.site import Site, Students
from proxy.upstream import Upstream
from proxy.watch import Watch
from understudy.config import Config
from understudy.spool import SpoolWriter

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn's server, which says when it is about to drain."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._site.draining = True
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT begin the drain; uvicorn would raise them again after it.

        Then the default handler would kill the process before the spool is closed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may listen to signals
            return
        signals = (signal.SIGTERM, signal.SIGINT)
        before = {one: signal.signal(one, self.handle_exit) for one in signals}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


async def serve(
    path: Path, sock: socket.socket, ready: Callable[[Server, Site], None] | None = None
) -> None:
    """Serve on `sock` until SIGTERM or SIGINT, or until `ready`'s server is told to exit."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    pool, beside = Pool(loop, deadlines), Pool(loop, deadlines)
    watch = Watch(path, partial(teachers, pool=pool, beside=beside))
    config = watch.file.config
    spool = SpoolWriter(
        config.spool.path,
        fsync=config.capture.fsync,
        max_bytes=int(config.spool.max_gb * 1e9),
        min_free_bytes=int(config.spool.min_free_gb * 1e9),
    )
    capture = Capture(spool, loop, config.capture.when_full)
    site = Site(
        current=watch.first(),
        capture=capture,
        deadlines=deadlines,
        students=Students(pool, beside),
        pool=pool,
        beside_pool=beside,
        metrics=Metrics(),
        salt=salt_of(config),
    )
    shadows = Shadows(site)
    app = make_app(site, shadows, watch)
    app.router.lifespan_context = partial(_lifespan, site, watch)
    server = Server(_uvicorn(app, config, site, shadows), site)
    if ready is not None:
        ready(server, site)
    try:
        await server.serve([sock])
    finally:
        await _finish(site, shadows, config.listen.drain_s)


def _uvicorn(app: FastAPI, config: Config, site: Site, shadows: Shadows) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=partial(Downstream, site=site, shadows=shadows),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(config.listen.keep_alive_s),
        timeout_graceful_shutdown=int(config.listen.drain_s) or 1,
        reset_contextvars=True,
    )


@asynccontextmanager
async def _lifespan(site: Site, watch: Watch, app: FastAPI) -> AsyncIterator[None]:
    def put(found: Any) -> None:
        site.current = found

    tasks = [
        asyncio.create_task(watch.run(lambda: site.current, put)),
        asyncio.create_task(_beat(site.capture)),
    ]
    # What was imported will live for ever: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _beat(capture: Capture) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        capture.heartbeat()


async def _finish(site: Site, shadows: Shadows, drain_s: float) -> None:
    """Give second attempts their drain, break off what is left then, and close the spool."""
    await shadows.drained(drain_s)
    shadows.close()
    for relay in list(site.relays):
        relay.stop()
    site.pool.close()
    site.beside_pool.close()
    site.deadlines.close()
    site.capture.close()


def teachers(config: Config, *, pool: Pool, beside: Pool) -> tuple[Upstream, Upstream]:
    """The teacher for answers, and the same one on its own connections for work beside them."""
    teacher = config.teacher
    key = os.environ.get(teacher.api_key_env) if teacher.api_key_env else None
    if teacher.api_key_env and not key:
        log.warning("%s is not set: the caller's key goes to the teacher", teacher.api_key_env)
    if teacher.base_url is not None:
        return (
            HttpUpstream(teacher.base_url, pool, key=key),
            HttpUpstream(teacher.base_url, beside, key=key),
        )
    from proxy.upstream_litellm import LiteLLMUpstream  # 2 s and 300k objects: only where wanted

    assert teacher.litellm is not None
    upstream = LiteLLMUpstream(teacher.litellm, teacher.litellm_api_base, key)
    return upstream, upstream


def salt_of(config: Config) -> bytes:
    """The key of all hashes: the environment's, else one that the spool's folder keeps."""
    given = os.environ.get(config.capture.salt_env)
    if given:
        return given.encode()
    path = config.spool.path / "salt"
    fresh = path.with_name(f"salt.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh.touch(0o600)
    fresh.write_bytes(secrets.token_bytes(32))
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass  # another worker was first: its salt is everybody's
    finally:
        fresh.unlink()
    return path.read_bytes()
