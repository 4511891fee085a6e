"""The Parquet files of one partition: a chain in which each file begins where the last one ended.

`log/part=<partition>/<start:020d>.parquet`; the state after it lies in its footer. Progress is the
files themselves: whoever puts the file of a start first has won, the other reads again from there.
"""

import io
import logging
import time
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from collector.ledger import Footer
from understudy.errors import LakeError
from understudy.exchange import COLUMNS
from understudy.lake import Lake

log = logging.getLogger(__name__)
_KEY = b"understudy"
_ZSTD_LEVEL = 3  # the knee: level 9 takes 3.5 times the CPU for 10 % fewer bytes
_ROW_GROUP = 8192
_SMALL = [c.name for c in COLUMNS if not c.name.endswith("_raw") and not pa.types.is_list(c.type)]
_TMP_AGE_S = 60  # a younger one may be another sink's, still being written


class Chain:
    """One partition's files in the lake."""

    def __init__(self, lake: Lake, partition: str) -> None:
        self.partition = partition
        self._lake, self._prefix = lake, f"log/part={partition}"

    def newest(self) -> Footer | None:
        """The state after the newest file; None before the first."""
        keys = list(self._lake.keys(self._prefix, ".parquet"))
        return read_footer(self._lake.path(keys[-1])) if keys else None

    def append(self, table: pa.Table, footer: Footer) -> bool:
        """Put the next file; False if another sink was first. LakeError if it cannot be written."""
        metadata = {**(table.schema.metadata or {}), _KEY: msgspec.json.encode(footer)}
        buffer = io.BytesIO()
        pq.write_table(
            table.replace_schema_metadata(metadata),
            buffer,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            row_group_size=_ROW_GROUP,
            # Whole bodies as a dictionary or as minimum and maximum only cost space.
            use_dictionary=_SMALL,
            write_statistics=_SMALL,
        )
        key = f"{self._prefix}/{footer.start:020d}.parquet"
        try:
            return self._lake.put_if_absent(key, buffer.getvalue())
        except OSError as error:
            raise LakeError(f"cannot write {key}: {error.strerror}; free disk space") from error


def read_footer(path: Path) -> Footer:
    """The state that a file carries; LakeError for a file that is damaged or not ours."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return msgspec.json.decode(metadata[_KEY], type=Footer)
    except (pa.ArrowException, OSError, KeyError, msgspec.DecodeError) as error:
        raise LakeError(f"{path}: no file of the log ({error}); move it out of the lake") from error


def partitions(lake: Lake) -> list[str]:
    """Names of the partitions that have files."""
    return [key.rsplit("part=", 1)[1] for key in lake.keys("log") if "/part=" in key]


def files(lake: Lake, partition: str) -> list[Path]:
    """A partition's files, oldest first."""
    return [lake.path(key) for key in lake.keys(f"log/part={partition}", ".parquet")]


def remove_torn(lake: Lake) -> int:
    """Delete temporary files that a dead sink left; no reader's pattern finds them anyway."""
    torn = list(lake.root.glob("log/part=*/*.tmp-*")) + list(lake.root.glob("audit/*.tmp-*"))
    old = [path for path in torn if _age_s(path) > _TMP_AGE_S]
    for path in old:
        path.unlink(missing_ok=True)
    if old:
        log.info("removed %d temporary files of a sink that died", len(old))
    return len(old)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
