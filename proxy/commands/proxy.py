"""`understudy proxy`: relay the teacher, log, route. One process per worker on a shared port."""

import argparse
import ipaddress
import logging
import multiprocessing
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path

from understudy.config import Config, load
from understudy.errors import ConfigError

log = logging.getLogger(__name__)
SHORT_LIFE_S = 10.0
MOST_SHORT_LIVES = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments beside the file."""
    parser.add_argument("--listen", metavar="HOST:PORT", help="instead of the file's listen")
    parser.add_argument(
        "--allow-open",
        action="store_true",
        help="bind to an address that others can reach, although nothing checks who calls",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; running answers are finished first."""
    config = load(args.config)
    host, port = _address(args.listen, config)
    _check_open(host, args.allow_open)
    shared = config.listen.workers > 1
    sock = _bind(host, port, shared)
    port = sock.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"listening on http://{shown}:{port}\n")
    sys.stdout.flush()
    if not shared:
        _work(args.config, sock)
        return 0
    others = [_bind(host, port, True) for _ in range(config.listen.workers - 1)]
    return _supervise(args.config, [sock, *others])


def _work(path: Path, sock: socket.socket) -> None:
    import uvloop

    from proxy.worker import serve

    for number in (signal.SIGTERM, signal.SIGINT):  # a forked worker inherits its master's
        signal.signal(number, signal.SIG_DFL)
    uvloop.run(serve(path, sock))


def _supervise(path: Path, socks: list[socket.socket]) -> int:
    """A forked worker per socket; one that dies is replaced, on the same socket.

    The sockets stay open here, so that connections wait for the new worker instead of being
    refused. Who dies right after its start, again and again, ends all: that is no accident.
    """
    context = multiprocessing.get_context("fork")
    stopping = threading.Event()

    def fork(sock: socket.socket) -> multiprocessing.process.BaseProcess:
        worker = context.Process(target=_work, args=(path, sock))
        worker.start()
        return worker

    workers = [fork(sock) for sock in socks]

    def stop(*_: object) -> None:
        stopping.set()
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    started, short_lives = time.monotonic(), 0
    while not stopping.is_set():
        wait([worker.sentinel for worker in workers])
        for number, worker in enumerate(workers):
            if worker.is_alive() or stopping.is_set():
                continue
            short_lives = short_lives + 1 if time.monotonic() - started < SHORT_LIFE_S else 0
            started = time.monotonic()
            if short_lives >= MOST_SHORT_LIVES:
                log.error("workers die as soon as they start; the proxy ends")
                stop()
                break
            log.error("worker %d died (%s); starting another", number, worker.exitcode)
            workers[number] = fork(socks[number])
    for worker in workers:
        worker.join()
    return max(abs(worker.exitcode or 0) for worker in workers)


def _address(listen: str | None, config: Config) -> tuple[str, int]:
    if listen is None:
        return config.listen.host, config.listen.port
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {listen!r}: write it like 127.0.0.1:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


def _check_open(host: str, allowed: bool) -> None:
    if allowed or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"listen.host {host!r} can be reached by others and nothing checks who calls; "
            "bind to 127.0.0.1, or accept it with --allow-open"
        )


def _bind(host: str, port: int, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --listen"
        ) from error
    sock.setblocking(False)
    return sock
