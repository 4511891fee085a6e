"""`understudy sql "QUERY"`: DuckDB over the lake's views, as a table, JSON or CSV.

Without a query it is read from standard input; at a terminal there is a prompt.
"""

import argparse
import csv
import sys
from typing import Any, NamedTuple

from understudy import config as configuration
from understudy.errors import LakeError

_MAX_ROWS = 200  # of a table; JSON and CSV have all
_VIEWS = "exchanges, pairs, feedback, verdicts, rollouts, audit"


class Result(NamedTuple):
    """A query's columns and rows."""

    names: list[str]
    rows: list[tuple[Any, ...]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy sql`."""
    parser.add_argument("query", nargs="?", help=f"SQL; the views are {_VIEWS}")
    parser.add_argument("--csv", action="store_true", help="comma-separated values")
    parser.add_argument("--width", type=int, default=60, help="characters of a table's cell")


def run(args: argparse.Namespace) -> int:
    """Run the query, or a prompt; 0, or LakeError with DuckDB's first line."""
    from understudy.views import connect

    connection = connect(configuration.load(args.config).lake)
    query = args.query
    if query is None and sys.stdin.isatty():
        return _prompt(connection, args)
    _write(_execute(connection, query if query is not None else sys.stdin.read()), args)
    return 0


def _prompt(connection: Any, args: argparse.Namespace) -> int:
    import readline  # noqa: F401 - gives input() its history and editing

    sys.stdout.write(f"DuckDB over the lake; views: {_VIEWS}. An empty line or Ctrl-D ends.\n")
    while True:
        try:
            query = input("understudy> ")
        except EOFError:
            return 0
        if not query.strip():
            return 0
        try:
            _write(_execute(connection, query), args)
        except LakeError as error:
            sys.stdout.write(f"error: {error}\n")


def _execute(connection: Any, query: str) -> Result:
    import duckdb

    try:
        connection.execute(query)
        names = [column[0] for column in connection.description or []]
        return Result(names, connection.fetchall() if names else [])
    except duckdb.Error as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise LakeError(f"{lines[0] if lines else error}; the views are {_VIEWS}") from error


def _write(result: Result, args: argparse.Namespace) -> None:
    if args.json:
        import msgspec

        objects = [dict(zip(result.names, row, strict=True)) for row in result.rows]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(objects)).decode() + "\n")
    elif args.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(result.names)
        writer.writerows(result.rows)
    else:
        from collector.text_table import render

        sys.stdout.write(render(result.names, result.rows[:_MAX_ROWS], args.width))
        more = len(result.rows) - _MAX_ROWS
        if more > 0:
            sys.stdout.write(f"({more} more rows; --json or --csv writes all)\n")
