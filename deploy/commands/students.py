"""`understudy students`: the registry of students; list, show, register, promote, roll back.

The registry is MLflow's (`mlflow_uri` of the config, else SQLite in the lake); each change is
mirrored in the lake and, where the config file is at hand, put in force as a new policy.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.registry import Registered, Registry


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy students`."""
    parser.add_argument("--lake", type=Path, help="the lake (default: the config's)")
    parser.add_argument(
        "--tracking-uri", help="MLflow's address (default: the config's, else SQLite in the lake)"
    )
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="the students of a workload, or of all")
    listing.add_argument("workload", nargs="?")
    show = actions.add_parser("show", help="one student with its lineage and verdicts")
    show.add_argument("workload")
    show.add_argument("name")
    register = actions.add_parser("register", help="register a trained student as candidate")
    register.add_argument("folder", type=Path, metavar="DIR")
    promote = actions.add_parser("promote", help="candidate becomes champion")
    promote.add_argument("workload")
    promote.add_argument("name", nargs="?", help="another student than the candidate")
    promote.add_argument(
        "--force", action="store_true", help="promote without a PASS of its gate; this is recorded"
    )
    rollback = actions.add_parser("rollback", help="previous becomes champion")
    rollback.add_argument("workload")
    for action in (listing, show, register, promote, rollback):
        action.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="machine-readable output"
        )


def run(args: argparse.Namespace) -> int:
    """Do the one action and print what is there now."""
    from deploy.registry import Registry
    from understudy.lake import Lake

    root, uri = _places(args)
    registry = Registry(Lake(root), args.tracking_uri or uri)
    match args.action:
        case "list":
            workloads = [args.workload] if args.workload else registry.workloads()
            _print_list(args, [s for w in workloads for s in registry.students(w)])
        case "show":
            _print_one(args, registry.student(args.workload, args.name), Lake(root))
        case _:
            student = _change(args, registry)
            _publish(args, Lake(root), f"{args.action} {student.name}")
            _print_one(args, student, Lake(root))
    return 0


def _change(args: argparse.Namespace, registry: "Registry") -> "Registered":
    match args.action:
        case "register":
            return registry.register(args.folder)
        case "promote":
            return registry.promote(args.workload, args.name, force=args.force)
        case _:
            return registry.rollback(args.workload)


def _places(args: argparse.Namespace) -> tuple[Path, str | None]:
    """The lake's folder and MLflow's address, from the arguments or the config."""
    from understudy.config import load

    if args.lake and not args.config.is_file():
        return args.lake, None
    config = load(args.config)
    return args.lake or config.lake, config.mlflow_uri


def _publish(args: argparse.Namespace, lake: Any, reason: str) -> None:
    """Put the change in force at once; without the config file the controller does it."""
    from understudy.config import config_hash, load
    from understudy.state import refresh

    if args.config.is_file():
        digest = config_hash(args.config.read_text())
        refresh(load(args.config), digest, lake, "students", reason)


def _print_list(args: argparse.Namespace, students: "list[Registered]") -> None:
    if args.json:
        sys.stdout.write(json.dumps([_as_json(s) for s in students]) + "\n")
        return
    if not students:
        sys.stdout.write("no students yet; register one with `understudy students register DIR`\n")
    width = max((len(s.name) for s in students), default=0)
    for s in students:
        held = ", ".join(s.aliases) or "-"
        line = f"{s.workload}  v{s.version:<3} {s.name:<{width}}  {held:<20} {s.folder}"
        sys.stdout.write(line.rstrip() + "\n")


def _print_one(args: argparse.Namespace, student: "Registered", lake: Any) -> None:
    from understudy.documents import verdicts

    said = [v for v in verdicts(lake, student.workload) if v.student == student.name]
    if args.json:
        words = ("kind", "signal", "verdict", "at", "report")
        found = [{word: getattr(v, word) for word in words} for v in said]
        sys.stdout.write(json.dumps(_as_json(student) | {"verdicts": found}) + "\n")
        return
    lines = {
        "student": student.name,
        "workload": student.workload,
        "version": student.version,
        "aliases": ", ".join(student.aliases) or "none",
        "folder": student.folder,
    }
    tags = {key: value for key, value in student.tags.items() if key != "name"}
    for key, value in (lines | tags).items():
        sys.stdout.write(f"{key:<22}{value}\n")
    for v in said:
        sys.stdout.write(f"{v.kind + ' ' + v.signal:<22}{v.verdict}\n")


def _as_json(student: "Registered") -> dict[str, Any]:
    return student._asdict() | {"folder": str(student.folder), "aliases": list(student.aliases)}
