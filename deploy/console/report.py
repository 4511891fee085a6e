"""Evaluation reports out of the lake, to a browser: the three names of a path, checked, or nothing.

A report holds what models wrote, so it is served sandboxed: no script, no forms, nothing fetched.
"""

import re

from understudy.lake import Lake

REPORT_POLICY = (
    "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; frame-ancestors 'none'"
)
# Begins with a letter or digit, so neither '..' nor a hidden file is a name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}", re.ASCII)
_TYPES = {"report.html": "text/html; charset=utf-8", "report.json": "application/json"}


def read_report(lake: Lake, workload: str, run: str, file: str) -> tuple[bytes, str] | None:
    """The file's bytes and media type; None unless it is a report's file inside the lake."""
    if file not in _TYPES or not (_NAME.fullmatch(workload) and _NAME.fullmatch(run)):
        return None
    root = lake.path("reports").resolve()
    if not lake.path(f"reports/{workload}/{run}/{file}").resolve().is_relative_to(root):
        return None  # a link that leads out of the lake
    data = lake.get(f"reports/{workload}/{run}/{file}")
    return None if data is None else (data, _TYPES[file])
