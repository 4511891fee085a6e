"""`understudy dataset build`: a dataset from a workload's logged teacher answers."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy dataset`."""
    actions = parser.add_subparsers(dest="action", required=True)
    build = actions.add_parser("build", help="select, clean, split and write")
    build.add_argument("--workload", required=True, help="name of the workload in the config")
    build.add_argument("--lake", type=Path, help="the lake (default: the config's)")
    build.add_argument("--since", type=_time, help="first moment, such as 2026-11-01 or ...T08:00")
    build.add_argument("--until", type=_time, help="first moment that is no longer in it")
    build.add_argument("--validation", type=float, default=0.1, help="share for early stopping")
    build.add_argument("--test", type=float, default=0.2, help="share that only evaluation sees")
    build.add_argument("--base", help="only bases with the template of this one may use it")
    build.add_argument("--json", action="store_true", default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Build, then print the counts as a table or the manifest as JSON."""
    import json
    import sys

    from rich.progress import track

    from trainer.dataset.build import build
    from trainer.dataset.select import Window, candidates, count
    from trainer.dataset.split import Shares
    from understudy import config
    from understudy.lake import Lake
    from understudy.views import connect

    lake = Lake(args.lake or config.load(args.config).lake)
    window = Window(args.workload, args.since, args.until)
    shares = Shares(args.validation, args.test)
    connection = connect(lake)
    rows = track(
        candidates(connection, window),
        total=count(connection, window),
        description="reading the log",
        console=_stderr(),
        transient=True,
    )
    built = build(lake, window, shares, rows, _template(args.base))
    if args.json:
        document = {"path": str(built.folder), **built.manifest}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        _print(built.folder, built.manifest)
    return 0


def _template(base: str | None) -> str | None:
    """Hash of the base's chat template."""
    if base is None:
        return None
    from trainer.model import load_renderer

    return load_renderer(base).template_hash


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _print(folder: Path, manifest: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("rows", "", box=None)
    table.add_row("selected", f"{manifest['selected']:,}")
    for reason, dropped in manifest["dropped"].items():
        table.add_row(f"  dropped: {reason}", f"{dropped:,}")
    for side, rows in manifest["rows"].items():
        table.add_row(side, f"{rows:,}")
    console = Console(highlight=False)
    console.print(table)
    teachers = ", ".join(f"{name} ({rows:,})" for name, rows in manifest["teachers"].items())
    console.print(f"teachers: {teachers}", markup=False)
    console.print(f"dataset:  {folder}", markup=False, soft_wrap=True)
