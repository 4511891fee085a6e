"""`understudy doctor`: what this installation has, lacks and gets wrong, each with its remedy.

Exit status 1 when something that was asked for does not work; what is optional and absent is a
note.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator

from understudy.installation import Finding, examine

MARKS = {"ok": "✓", "note": "·", "problem": "✗"}


def configure(parser: argparse.ArgumentParser) -> None:
    """It has no arguments beside the shared ones."""


def run(args: argparse.Namespace) -> int:
    """Print the table, or JSON."""
    findings = list(examine(args.config))
    problems = sum(finding.state == "problem" for finding in findings)
    if args.json:
        listed = [finding._asdict() for finding in findings]
        sys.stdout.write(json.dumps({"problems": problems, "findings": listed}, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join([*table(findings), summary(problems), ""]))
    return 1 if problems else 0


def table(findings: Iterable[Finding]) -> Iterator[str]:
    """A line for each finding, and one below it for its remedy."""
    rows = list(findings)
    width = max(len(finding.name) for finding in rows)
    for finding in rows:
        yield f"{MARKS[finding.state]} {finding.name:<{width}}  {finding.detail}"
        if finding.remedy:
            yield f"  {'':<{width}}  -> {finding.remedy}"


def summary(problems: int) -> str:
    """The last line."""
    return f"{problems or 'no'} problem{'' if problems == 1 else 's'}"
