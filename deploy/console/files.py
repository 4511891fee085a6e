"""Which Parquet files of the log were written in a span of time, without opening any of them.

A row is in a file that was written after it, and a partition's files are written in the order of
their names: so the newest files are found from the end, and the cost does not grow with the lake.
"""

import os
from pathlib import Path

from understudy.lake import Lake

CLOCK_SLACK_S = 60.0  # what the clocks of file server and proxy may differ by


def written(lake: Lake, since: float, until: float = float("inf")) -> list[Path]:
    """Files written from `since` to `until` (Unix seconds), in no particular order."""
    found: list[Path] = []
    for partition in _partitions(lake.path("log"), since - CLOCK_SLACK_S):
        for name in sorted(os.listdir(partition), reverse=True):
            if not name.endswith(".parquet"):
                continue
            at = _modified(partition / name)
            if at < since - CLOCK_SLACK_S:
                break
            if at <= until + CLOCK_SLACK_S:
                found.append(partition / name)
    return found


def _partitions(log: Path, since: float) -> list[Path]:
    """Folders that a file was added to since then."""
    try:
        with os.scandir(log) as entries:
            return [Path(e.path) for e in entries if e.is_dir() and e.stat().st_mtime >= since]
    except FileNotFoundError:
        return []


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # compacted away since it was listed
        return float("inf")
