"""`understudy replay FILE`: recorded requests, sent through the proxy by a real OpenAI client.

FILE has a JSON object a line: `{"request": {...}, "answer": "..."}` (or `answer_message`). The
answers are compared where they are given, so a replay also tells how often two runs agree.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import UnderstudyError

if TYPE_CHECKING:
    from deploy.traffic import Sent


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy replay`."""
    parser.add_argument("file", type=Path, help="JSON lines with request and answer")
    parser.add_argument("--base-url", default="http://127.0.0.1:8080/v1", help="the proxy's /v1")
    parser.add_argument("--connections", type=int, default=8, help="calls at once (default: 8)")
    parser.add_argument("--stream-every", type=int, default=3, help="stream each nth; 0 for none")
    parser.add_argument("--limit", type=int, help="send only the first rows")
    parser.add_argument("--model", help="another model than the recorded one")


def run(args: argparse.Namespace) -> int:
    """Send all rows; prints a table; status 1 if a call failed."""
    from rich.console import Console
    from rich.progress import track

    from deploy.traffic import Application, Call, send_all

    rows = list(read_rows(args.file))[: args.limit]
    calls = []
    for number, row in enumerate(rows):
        request = {**row["request"], **({"model": args.model} if args.model else {})}
        request.pop("stream", None)
        stream = bool(args.stream_every) and number % args.stream_every == 0
        calls.append(Call(request, stream, row.get("answer")))
    started = time.monotonic()
    sending = send_all(Application(args.base_url), calls, args.connections)
    console = Console(stderr=True)
    title = f"replaying {args.file.name}"
    results = list(track(sending, title, total=len(calls), console=console))
    summary = summarise(results, time.monotonic() - started)
    if args.json:
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        for key, value in summary.items():
            sys.stdout.write(f"{key:<14}{value}\n")
    return 1 if summary["failed"] else 0


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The file's rows; an error names the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UnderstudyError(f"cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["request"]["messages"]
        except (ValueError, KeyError, TypeError) as error:
            raise UnderstudyError(
                f'{path}:{number}: expected {{"request": {{"messages": ...}}, "answer": ...}}'
            ) from error
        yield row


def summarise(results: "Sequence[Sent]", seconds: float) -> dict[str, object]:
    """Counts, rate and latencies of a finished replay."""
    good = [sent for sent in results if sent.error is None]
    known = [sent for sent in good if sent.call.expected is not None]
    times = sorted(sent.seconds * 1000 for sent in good) or [0.0]
    errors = [sent.error for sent in results if sent.error]
    return {
        "requests": len(results),
        "failed": len(errors),
        "first_error": errors[0] if errors else None,
        "streams": sum(sent.call.stream for sent in results),
        "seconds": round(seconds, 1),
        "per_second": round(len(results) / seconds, 1) if seconds else 0.0,
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(times[int(len(times) * 0.95) - 1], 1),
        "student_share": round(sum(s.arm == "student" for s in good) / max(1, len(good)), 4),
        "matched": sum(sent.text == sent.call.expected for sent in known),
        "comparable": len(known),
    }
