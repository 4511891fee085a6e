"""`understudy train`: distil a LoRA student from a dataset."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy train`."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--dataset", type=Path, help="folder of `dataset build`")
    which.add_argument("--workload", help="instead of --dataset: the workload's newest one")
    parser.add_argument("--base", default="builtin", help="builtin, a folder, or a hub name")
    parser.add_argument("--lake", type=Path, help="the lake (default: the config's)")
    parser.add_argument("--out", type=Path, help="the student's folder (default: in the lake)")
    parser.add_argument("--name", help="the student's name (default: <workload>-NNNN, next free)")
    parser.add_argument("--epochs", type=float, help="passes over the rows (default: by the base)")
    parser.add_argument("--rank", type=int, default=32, help="LoRA's rank, one that vLLM serves")
    parser.add_argument("--alpha", type=int, help="LoRA's scale (default: twice the rank)")
    parser.add_argument("--lr", type=float, help="learning rate (default: by the base's width)")
    parser.add_argument("--batch-size", type=int, help="rows per step (default: by the base)")
    parser.add_argument("--accumulate", type=int, default=1, help="pieces a batch is split into")
    parser.add_argument("--max-tokens", type=int, default=2048, help="longer rows are left out")
    parser.add_argument("--patience", type=int, default=3, help="validations without progress")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--threads", type=int, help="CPU threads (default: one per core)")
    parser.add_argument("--experiment-name", default="understudy", help="experiment in MLflow")
    parser.add_argument("--tracking-uri", help="MLflow's address, or none (default: in the lake)")
    parser.add_argument("--resume", action="store_true", help="go on with this run's checkpoint")


def run(args: argparse.Namespace) -> int:
    """Train and export; the student's name, folder and figures go to stdout."""
    from trainer.session import Session, Settings

    settings = Settings(**{k: v for k, v in vars(args).items() if k in Settings.__annotations__})
    return Session(settings).run()
