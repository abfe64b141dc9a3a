"""`python -m scale train|smoke`: DynaMO and its rivals in verl and vLLM, on GPUs or, for a tiny model, without."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from scale.config import RULES, SCOPES
from theory.methods import METHODS

NEEDED = ("verl", "vllm", "ray", "hydra", "transformers")

INSTALL = """\
python -m scale needs verl and vLLM, and cannot import {missing}. Install them beside this package:
  on GPUs:          pip install -r requirements/scale.lock
  without a GPU:    make scale-cpu
theory, toy and paper_figs work without."""

EXAMPLES = """\
examples:
  python -m scale smoke                                      # a tiny Qwen2 on two cores: GRPO and DynaMO, 10 minutes
  python -m scale train --model tiny --cluster cpu --method dynamo --out results/scale/tiny-dynamo
  python -m scale train --model qwen2.5-math-7b --cluster 1x8-a100 --method dynamo --seed 1 --out runs/7b --dry-run

The same command resumes a run that was killed. Anything of verl's configuration can be set at the end of the line:
  ... trainer.total_training_steps=100 actor_rollout_ref.actor.optim.lr=2e-6
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; defaults come from `scale.config` and `conf/`."""
    top = argparse.ArgumentParser(prog="python -m scale", description="DynaMO inside verl and vLLM.")
    commands = top.add_subparsers(dest="command", required=True, metavar="train|smoke")
    raw = argparse.RawDescriptionHelpFormatter
    train = commands.add_parser("train", help="train a model, or resume", epilog=EXAMPLES, formatter_class=raw)
    train.add_argument("--model", default="tiny", help="a file of conf/model (default: tiny)")
    train.add_argument("--cluster", default="cpu", help="a file of conf/cluster (default: cpu)")
    train.add_argument("--method", default="dynamo", metavar="NAME", help=f"one of {', '.join(METHODS)}")
    train.add_argument("--allocator", metavar="RULE", help=f"another rule than the method's: {', '.join(RULES)}")
    train.add_argument("--alpha", type=float, metavar="X", help="another strength of the modulation; 0 is none")
    train.add_argument("--scope", metavar="SCOPE", help=f"batch of the normalisers: {', '.join(SCOPES)}")
    train.add_argument("--stock", action="store_true", help="verl's own GRPO, with seeds, to compare with")
    train.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the run (default: 1)")
    train.add_argument("--steps", type=int, metavar="N", help="training steps, those of a resumed run included")
    train.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run (default: results/scale/MODEL-METHOD-SEED)"
    )
    train.add_argument("--dry-run", action="store_true", help="compose and check the configuration, start nothing")
    _limits(train, deadline=14 * 24 * 3600)
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of verl's configuration")

    smoke = commands.add_parser("smoke", help="a tiny model, GRPO and DynaMO, on two cores")
    smoke.add_argument(
        "--out", type=Path, default=Path("results/scale/smoke"), metavar="DIR", help="default: %(default)s"
    )
    smoke.add_argument("--steps", type=int, default=20, metavar="N", help="default: %(default)s")
    smoke.add_argument("--seed", type=int, default=1, metavar="N", help="default: %(default)s")
    smoke.add_argument("--methods", nargs="+", default=["grpo", "dynamo"], metavar="NAME", help="default: grpo dynamo")
    _limits(smoke, deadline=1200)
    return top


def _limits(command: argparse.ArgumentParser, deadline: float) -> None:
    command.add_argument(
        "--deadline",
        type=float,
        default=deadline,
        metavar="S",
        help="end the run after this many seconds (%(default)s)",
    )
    command.add_argument(
        "--silence", type=float, default=1800.0, metavar="S", help="end it after this long without a step (%(default)s)"
    )


def train_command(args: argparse.Namespace, console: Console) -> int:
    """Train."""
    from scale import launch, runs

    out = args.out or Path("results/scale") / f"{args.model}-{'stock' if args.stock else args.method}-{args.seed}"
    overrides = [f"dynamo.seed={args.seed}", *args.overrides]
    for name in ("method", "allocator", "alpha", "scope"):
        if getattr(args, name) is not None:
            overrides.append(f"dynamo.{name}={getattr(args, name)}")
    if args.stock:
        overrides.append("dynamo.stock=true")
    if args.steps is not None:
        overrides.append(f"trainer.total_training_steps={args.steps}")
    if args.model == "tiny":
        overrides.append(f"tiny_folder={runs.tiny_files(Path('results/scale/tiny'), console)}")
    config = launch.compose(args.model, args.cluster, out=out, overrides=overrides)
    if args.dry_run:
        launch.check(config, out, files=False)
        console.print(launch.describe(config), highlight=False, soft_wrap=True)
        return 0
    launch.check(config, out)
    return runs.run(config, out, launch.Limits(args.deadline, args.silence), console)


def smoke_command(args: argparse.Namespace, console: Console) -> int:
    """Train a tiny model by some methods and compare them."""
    from scale import runs

    return runs.smoke(args, console)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for a run that failed, 2 for a wrong call, 130 if interrupted."""
    args: Any = parser().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(INSTALL.format(missing=", ".join(missing)), file=sys.stderr)
        return 2
    try:
        return (smoke_command if args.command == "smoke" else train_command)(args, console)
    except ValueError as error:
        print(f"python -m scale {args.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes at the last checkpoint", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
