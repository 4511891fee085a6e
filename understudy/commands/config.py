"""`understudy config`: check the file, show what is in force, or list every key there is."""

import argparse
import sys

from understudy import config as configuration
from understudy.reference import reference


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy config`."""
    parser.add_argument("action", choices=["check", "show", "keys"], nargs="?", default="check")


def run(args: argparse.Namespace) -> int:
    """Load the file; print a line per workload, or with `show` every key with its value."""
    if args.action == "keys":
        sys.stdout.write(reference())
        return 0
    loaded = configuration.load(args.config)
    if args.json or args.action == "show":
        sys.stdout.write(loaded.model_dump_json(indent=2) + "\n")
        return 0
    sys.stdout.write(f"{args.config}: fine; {len(loaded.workloads)} workloads\n")
    for name, workload in loaded.workloads.items():
        steps = len(workload.rollout.steps)
        owner = f"a rollout of {steps} steps" if steps else "this file"
        sys.stdout.write(f"  {name}: mode {workload.mode}, moved by {owner}\n")
    return 0
