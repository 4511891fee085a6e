"""The lake: Parquet and JSON files below one folder, each of which appears whole or not at all.

`put_if_absent` is the only primitive of agreement: whoever links the final name first has won, the
others are told so. Temporary names never end in `.parquet` or `.json`, so that no reader's pattern
finds a torn file. Every OSError becomes a LakeError, so that a polling loop can hold on.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from understudy.errors import LakeError

T = TypeVar("T")


class Lake:
    """A local lake. Keys are relative paths with `/`; bytes go in and come out."""

    def __init__(self, root: Path) -> None:
        if str(root).startswith(("s3:", "gs:")):
            raise LakeError(f"lake {root}: object stores are not supported yet; name a folder")
        self.root = root
        self._once: dict[str, Any] = {}

    def path(self, key: str) -> Path:
        """Where `key` lies."""
        return self.root / key

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write `key` durably if nobody has; False (and nothing changed) if somebody was first."""
        final = self.path(key)
        tmp = self._write_tmp(final, data)
        try:
            os.link(tmp, final)
            _sync_folder(final.parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise _cannot_write(final, error) from error
        finally:
            tmp.unlink()
        return True

    def put(self, key: str, data: bytes) -> None:
        """Write or replace `key` atomically and durably."""
        final = self.path(key)
        tmp = self._write_tmp(final, data)
        try:
            tmp.rename(final)
            _sync_folder(final.parent)
        except OSError as error:
            tmp.unlink(missing_ok=True)
            raise _cannot_write(final, error) from error

    def get(self, key: str) -> bytes | None:
        """The bytes under `key`, or None."""
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LakeError(f"cannot read {self.path(key)}: {error.strerror}") from error

    def once(self, key: str, decode: Callable[[bytes], T]) -> T:
        """A document that is written once and never changed: read and decoded once per Lake.

        Loops look at their verdicts every second; what they have seen costs them no more reading.
        """
        if key not in self._once:
            self._once[key] = decode(self.get(key) or b"")
        found: T = self._once[key]
        return found

    def keys(self, prefix: str, suffix: str = "") -> Iterator[str]:
        """Names of the files directly in the folder `prefix`, sorted."""
        try:
            names = sorted(os.listdir(self.path(prefix)))
        except FileNotFoundError:
            return
        except OSError as error:
            raise LakeError(f"cannot list {self.path(prefix)}: {error.strerror}") from error
        for name in names:
            if name.endswith(suffix) and ".tmp-" not in name:
                yield f"{prefix.rstrip('/')}/{name}"

    def get_json(self, key: str) -> Any:
        """The JSON document under `key`, or None; LakeError names a damaged one."""
        data = self.get(key)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise LakeError(f"{self.path(key)} is no JSON: {error}; remove it") from error

    def put_json(self, key: str, value: Any) -> None:
        """Write or replace a JSON document."""
        self.put(key, msgspec.json.encode(value))

    def _write_tmp(self, final: Path, data: bytes) -> Path:
        tmp = final.with_name(f"{final.name}.tmp-{secrets.token_hex(6)}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with tmp.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if final.parent.is_dir():
                tmp.unlink(missing_ok=True)
            raise _cannot_write(final, error) from error
        return tmp


def _cannot_write(final: Path, error: OSError) -> LakeError:
    return LakeError(f"cannot write {final}: {error.strerror}; free space or grant the rights")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
