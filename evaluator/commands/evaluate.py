"""`understudy evaluate`: a student against the teacher on held-out rows, with a verdict.

Ends with 0 whatever the verdict: the verdict is in the lake, on stdout and in the report. It is the
rollout that refuses a student whose gate has not passed.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluator.evaluation import Outcome
    from understudy.config import Config


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy evaluate`."""
    parser.add_argument("--workload", required=True, help="the workload, for gate and verdict")
    parser.add_argument(
        "--dataset", type=Path, help="folder of `dataset build` (default: the workload's newest)"
    )
    parser.add_argument(
        "--test", type=Path, help="held-out rows (default: the dataset's test split)"
    )
    parser.add_argument("--student", help="served name (default: the adapter's)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--student-url", help="its server's address, with /v1 (default: the file's)")
    where.add_argument("--adapter", type=Path, help="serve this student folder meanwhile")
    parser.add_argument(
        "--engine", choices=["auto", "vllm", "transformers"], default="auto", help="for --adapter"
    )
    parser.add_argument("--base-model-name", help="also ask the untrained base by this served name")
    parser.add_argument(
        "--lake", type=Path, help="where report and verdict go (default: the file's)"
    )
    parser.add_argument("--concurrency", type=int, default=8, help="requests at once (default 8)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write report and verdict, print the table."""
    from evaluator.ask import Endpoint
    from evaluator.evaluation import Task, evaluate
    from evaluator.serve import served, student_name
    from understudy.config import Gate
    from understudy.datasets import newest
    from understudy.errors import GateError
    from understudy.lake import Lake

    config = _config(args)
    known = config.workloads.get(args.workload) if config else None
    ref = known.student if known else None
    name = args.student or (student_name(args.adapter) if args.adapter else None)
    if name is None:
        raise GateError("which student? name it with --student, or its folder with --adapter")
    with contextlib.ExitStack() as stack:
        if args.adapter:
            url = stack.enter_context(served(args.adapter, name, args.engine))
        elif args.student_url or ref:
            url = args.student_url or (ref.base_url if ref else "")
        else:
            raise GateError(f"where is {name} served? give --student-url or --adapter")
        key_env = ref.api_key_env if ref else None
        endpoint = Endpoint(url.rstrip("/"), name, key_env, args.concurrency)
        gate = known.gate if known else Gate()
        lake = Lake(args.lake or (config.lake if config else Path("lake")))
        dataset = args.dataset or newest(lake.root, args.workload)
        test = args.test or dataset / "test.jsonl"
        task = Task(args.workload, dataset, test, endpoint, gate, args.base_model_name)
        outcome = evaluate(task, lake, _say)
    sys.stdout.write(_as_json(outcome) if args.json else _as_table(outcome))
    return 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _config(args: argparse.Namespace) -> "Config | None":
    """The file; None where there is none and --lake says where to write."""
    from understudy.config import load

    if args.lake and not args.config.exists():
        return None
    return load(args.config)


def _as_json(outcome: "Outcome") -> str:
    from evaluator.report import to_json

    facts = to_json(outcome.about, outcome.comparison, outcome.verdict)
    return json.dumps(facts | {"report": str(outcome.html)}) + "\n"


def _as_table(outcome: "Outcome") -> str:
    comparison, verdict = outcome.comparison, outcome.verdict
    scores = [comparison.agreement, *(rival.score for rival in comparison.rivals)]
    scores += [s for s in (outcome.about.base, comparison.balanced, comparison.soft) if s]
    width = max(len(score.name) for score in scores) + 2
    lines = [
        f"  {s.name:<{width}}{s.mean:7.1%}   [{s.low:.1%}, {s.high:.1%}]   n={s.n}"
        for s in scores
        if s.n
    ]
    reads = outcome.about.reads
    return "\n".join(
        [
            *lines,
            "",
            f"{verdict.verdict}  {outcome.about.student} on {outcome.about.workload}",
            *(f"  {reason}" for reason in verdict.reasons),
            f"  {verdict.question}",
            f"  Calls that failed: {len(comparison.failed)}. This test set was read {reads.times} "
            f"times, for {reads.students} students; alpha is per candidate.",
            f"  {outcome.html}",
            "",
        ]
    )
