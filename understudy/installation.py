"""What this installation has and lacks, found without importing anything heavy.

A finding is `ok`, a `note` (something optional is not here) or a `problem` (something asked for
does not work), with the remedy. Nothing is changed, nothing is sent: a server counts as there when
it takes a TCP connection.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from understudy.config import Config, load
from understudy.errors import ConfigError

PARTS = ("proxy", "collector", "trainer", "evaluator", "deploy")
DEFAULT_CONFIG = Path("understudy.yaml")
CONNECT_TIMEOUT_S = 3
GIB = 1 << 30


class Finding(NamedTuple):
    """One line of the diagnosis."""

    name: str
    state: Literal["ok", "note", "problem"]
    detail: str
    remedy: str = ""


def examine(config_path: Path) -> Iterator[Finding]:
    """Every finding about this machine, this environment and this configuration."""
    yield python()
    yield from extras(importlib.metadata.requires("understudy") or [])
    yield from names(importlib.metadata.packages_distributions())
    yield gpu()
    yield vllm()
    yield program("chromium", "only the tests of the console need a browser")
    if config_path == DEFAULT_CONFIG and not config_path.exists():
        remedy = "write `teacher: {base_url: https://...}` into it, or name one with --config"
        yield Finding("config", "note", f"no {config_path} in this folder", remedy)
        return
    try:
        config = load(config_path)
    except ConfigError as error:
        yield Finding("config", "problem", str(error), "`understudy config check` shows it alone")
        return
    yield Finding("config", "ok", str(config_path))
    yield room(config)
    yield writable(config.lake)
    yield from servers(config)


def python() -> Finding:
    """Which one runs; the installer refuses those that are too old."""
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def extras(requirements: Sequence[str]) -> Iterator[Finding]:
    """Which parts have the packages that our own metadata asks for."""
    for part in PARTS:
        wanted = [
            re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]
            for text in requirements
            if re.search(rf"extra == ['\"]{part}['\"]", text)
        ]
        absent = [name for name in wanted if not _installed(name)]
        if absent:
            remedy = f"pip install 'understudy[{part}]', if this machine runs it"
            yield Finding(part, "note", f"without {', '.join(absent)}", remedy)
        else:
            yield Finding(part, "ok", f"{len(wanted)} packages")


def names(owners: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Our packages have plain names: nobody else may own one of them, nor hide it."""
    home = Path(__file__).resolve().parent.parent
    for name in ("understudy", *PARTS):
        others = sorted(set(owners.get(name, ())) - {"understudy"})
        if others:
            detail = f"{name} also belongs to {', '.join(others)}"
            yield Finding("names", "problem", detail, "give Understudy an environment of its own")
            continue
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found not in (None, home / name):
            remedy = "start it from another folder, or rename that one"
            yield Finding("names", "problem", f"{name} is taken from {found}", remedy)


def gpu() -> Finding:
    """What nvidia-smi lists."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return Finding("gpu", "note", "none", "students are trained and served on the CPU")
    command = [smi, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("gpu", "problem", f"nvidia-smi fails: {error}", "check the driver")
    return Finding("gpu", "ok", "; ".join(listed.stdout.strip().splitlines()) or "none listed")


def vllm() -> Finding:
    """In this environment, on the PATH, or where `make vllm` puts it."""
    beside = Path(".venv-vllm/bin/vllm")
    found = shutil.which("vllm") or (str(beside.resolve()) if beside.exists() else None)
    if found is None and importlib.util.find_spec("vllm") is None:
        return Finding("vllm", "note", "none", "`make vllm`; without it students run in-process")
    return Finding("vllm", "ok", found or "in this environment")


def program(name: str, remedy: str) -> Finding:
    """A program of this machine that is nice to have."""
    found = shutil.which(name)
    return Finding(name, "ok", found) if found else Finding(name, "note", "none", remedy)


def room(config: Config) -> Finding:
    """Whether the spool's disk holds what the spool may take."""
    free_gb = shutil.disk_usage(_existing(config.spool.path)).free / GIB
    detail = f"{free_gb:.1f} GiB free for at most {config.spool.max_gb:g} at {config.spool.path}"
    if free_gb <= config.spool.min_free_gb:
        remedy = "free some space or move spool.path: the spool counts as full"
        return Finding("spool", "problem", detail, remedy)
    if free_gb < config.spool.max_gb:
        return Finding("spool", "note", detail, "lower spool.max_gb or move spool.path")
    return Finding("spool", "ok", detail)


def writable(lake: Path) -> Finding:
    """Whether files can be made where the lake is."""
    if not os.access(_existing(lake), os.W_OK | os.X_OK):
        return Finding("lake", "problem", f"cannot write to {lake}", "change its owner or `lake:`")
    return Finding("lake", "ok", str(lake))


def servers(config: Config) -> Iterator[Finding]:
    """The brokers, teacher and students that the configuration names."""
    if config.kafka is None:
        yield Finding("kafka", "ok", "not configured: the spool goes straight to Parquet")
    else:
        yield _connection("kafka", config.kafka.bootstrap_servers.split(","))
    if config.teacher.base_url:
        yield _connection("teacher", [config.teacher.base_url])
    for name, workload in config.workloads.items():
        if workload.student:
            yield _connection(f"student of {name}", [workload.student.base_url])


def _connection(name: str, addresses: Sequence[str]) -> Finding:
    refused = []
    for address in addresses:
        url = urlsplit(address if "//" in address else f"//{address}")
        port = url.port or {"https": 443, "http": 80}.get(url.scheme, 9092)
        try:
            socket.create_connection((url.hostname or "", port), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            refused.append(f"{address}: {error.strerror or error}")
        else:
            return Finding(name, "ok", f"{address} takes connections")
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return Finding(name, "note", "; ".join(refused), "it may be there behind HTTPS_PROXY")
    return Finding(name, "problem", "; ".join(refused), "start it, or correct its address")


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _existing(path: Path) -> Path:
    """The nearest folder upwards that exists."""
    return next(each for each in (path, *path.parents) if each.exists())
