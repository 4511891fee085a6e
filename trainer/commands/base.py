"""`understudy base build`: make the small base model from generated text."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `understudy base`."""
    actions = parser.add_subparsers(dest="action", required=True)
    build = actions.add_parser("build", help="pre-train the base and write it as a model folder")
    build.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    build.add_argument("--steps", type=int, help="steps of 4,096 tokens (default: as shipped)")
    build.add_argument("--seed", type=int, help="decides weights, merges and text")
    build.add_argument("--hidden", type=int, help="width of the model")
    build.add_argument("--layers", type=int, help="depth of the model")
    build.add_argument("--device", default="cpu", help="cpu or cuda")
    build.add_argument("--threads", type=int, help="CPU threads (default: one per core)")
    build.add_argument("--json", action="store_true", default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Build with a bar on stderr; prints where the model lies and its last loss."""
    import json
    import sys

    from trainer.base.build import build
    from trainer.base.pretrain import Recipe
    from trainer.display import Display

    given = {name: getattr(args, name) for name in ("steps", "seed", "hidden", "layers")}
    recipe = Recipe(**{name: value for name, value in given.items() if value is not None})
    with Display("pre-training the base") as display:
        made = build(recipe, args.out, args.device, args.threads, display)
    if args.json:
        sys.stdout.write(json.dumps(made) + "\n")
    else:
        sys.stdout.write(
            f"{made['parameters']:,} parameters, loss {made['loss']:.3f}, "
            f"{made['seconds']:.0f} s\n{args.out}\n"
        )
    return 0
