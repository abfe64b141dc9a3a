"""`python -m toy run|list`: train tabular policies, and name what can be trained."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from scipy import stats

from theory._checks import FloatArray
from theory.aggregation import AGGREGATIONS
from theory.methods import METHODS, Method
from theory.modulation import Modulation
from theory.rules import ALLOCATORS
from toy.config import OPTIMIZERS, OptimizerConfig, TrainConfig
from toy.trainer import Run, train
from toy.worlds import WORLDS, Population

EXAMPLES = """\
examples:
  python -m toy run                                   # DynaMO, mixed world, 32 seeds, 200 steps; nothing is written
  python -m toy run --method grpo --world binary --out runs/grpo-binary
  python -m toy run --method grpo --allocator neyman  # GRPO with another allocation rule
  python -m toy run --out DIR                         # again: resumes, extends (--steps 400), or shows what is there

A seed's result depends on nothing but the config and the seed: not on the other seeds, not on interruptions. Methods
share their random draws, so compare them seed by seed.
"""


def _known(names: Collection[str]) -> Any:
    """Return an argparse type that accepts the known names and lists them otherwise."""

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text!r}")
        return text

    return name


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; defaults come from `toy.config`."""
    top = argparse.ArgumentParser(prog="python -m toy", description="Tabular RLVR: many seeds as one computation.")
    commands = top.add_subparsers(dest="command", required=True, metavar="run|list")
    commands.add_parser("list", help="name the methods, worlds and allocation rules")
    run = commands.add_parser(
        "run",
        help="train a method in a world",
        description="Train one method in one world over many seeds, in memory or into a folder that can be resumed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = TrainConfig.named("dynamo", "mixed")

    what = run.add_argument_group("what (names: python -m toy list)")
    what.add_argument("--method", type=_known(METHODS), default="dynamo", metavar="NAME", help="default: dynamo")
    what.add_argument("--world", type=_known(WORLDS), default="mixed", metavar="NAME", help="default: mixed")
    what.add_argument("--allocator", type=_known(ALLOCATORS), metavar="RULE", help="allocate by another rule")
    what.add_argument(
        "--aggregation", type=_known(AGGREGATIONS), metavar="MODE", help=f"one of {', '.join(AGGREGATIONS)}"
    )
    what.add_argument("--alpha", type=float, metavar="X", help="strength of DynaMO's modulation; 0 is none")

    size = run.add_argument_group("how much")
    for option, name, text in (
        ("--seeds", "num_seeds", "independent seeds, side by side"),
        ("--first-seed", "first_seed", "seeds count from here"),
        ("--steps", "num_steps", "rollout batches"),
        ("--batch", "batch_prompts", "prompts per rollout batch"),
        ("--rollouts", "rollouts", "average rollouts per prompt"),
        ("--low", "rollouts_low", "least rollouts of a prompt"),
        ("--high", "rollouts_high", "most rollouts of a prompt"),
        ("--minibatches", "num_minibatches", "optimiser steps per rollout batch"),
        ("--epochs", "num_epochs", "passes over a rollout batch"),
    ):
        size.add_argument(option, type=int, dest=name, metavar="N", help=f"{text} (default: {getattr(default, name)})")
    size.add_argument(
        "--prompts", type=int, metavar="N", help=f"prompts in the world (default: {default.world.num_prompts})"
    )

    learn = run.add_argument_group("how to learn")
    learn.add_argument(
        "--optimizer", type=_known(OPTIMIZERS), metavar="NAME", help=f"{' or '.join(OPTIMIZERS)} (default: sgd)"
    )
    learn.add_argument(
        "--learning-rate",
        type=float,
        metavar="X",
        help=f"step on the logits (default: {default.optimizer.learning_rate:g}, for sgd; adamw needs one)",
    )

    where = run.add_argument_group("where")
    where.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for config.json, metrics.parquet, versions.json; the same command resumes a killed run",
    )
    where.add_argument(
        "--checkpoint-every", type=int, default=20, metavar="N", help="steps between checkpoints (default: 20)"
    )
    return top


def resolve(args: argparse.Namespace) -> TrainConfig:
    """Return the config that the arguments of `run` ask for."""
    method: Method = METHODS[args.method]
    world: Population = WORLDS[args.world]
    for name in ("allocator", "aggregation"):
        if getattr(args, name) is not None:
            method = replace(method, **{name: getattr(args, name)})
    if args.alpha is not None:
        if not isinstance(method.shaping, Modulation):
            raise ValueError(f"--alpha: expected a method with DynaMO's modulation, got {args.method}")
        method = replace(method, shaping=replace(method.shaping, alpha=args.alpha))
    if args.prompts is not None:
        world = replace(world, num_prompts=args.prompts)
    learning = {"name": args.optimizer, "learning_rate": args.learning_rate}
    if args.optimizer == "adamw" and args.learning_rate is None:
        raise ValueError("--learning-rate: expected a value for adamw (the default is one for sgd), got none")
    names = ("num_seeds", "first_seed", "num_steps", "batch_prompts", "rollouts", "rollouts_low", "rollouts_high")
    fields = {name: getattr(args, name) for name in (*names, "num_minibatches", "num_epochs")}
    given = {name: value for name, value in fields.items() if value is not None}
    return TrainConfig(
        method_name=args.method,
        method=method,
        world_name=args.world,
        world=world,
        optimizer=OptimizerConfig(**{name: value for name, value in learning.items() if value is not None}),
        **given,
    )


def mean_and_interval(values: FloatArray) -> str:
    """Return the mean over seeds with the half-width of its 95 % t interval, as text."""
    text = f"{values.mean():.4f}"
    if len(values) > 1:
        text += f" ± {stats.t.ppf(0.975, len(values) - 1) * stats.sem(values):.4f}"
    return text


def report(run: Run, out: Path | None, console: Console) -> None:
    """Print what the run has learnt."""
    table = Table("metric", "before", "after", "change")
    for name in ("pass_at_1", "pass_at_32", "entropy"):
        values = run.metrics[name]
        first, last = values[:, 0], values[:, -1]
        table.add_row(name, *(mean_and_interval(np.asarray(x)) for x in (first, last, last - first)))
    console.print(table)
    values, config = run.metrics["pass_at_1"], run.config
    console.print(
        f"{config.method_name} on {config.world_name}: pass@1 {values[:, 0].mean():.4f} -> "
        f"{mean_and_interval(values[:, -1])} (95 % over {config.num_seeds} seeds), {values.shape[1] - 1} steps, "
        f"{run.seconds:.1f} s, {out if out is not None else 'not written (no --out)'}",
        highlight=False,
        soft_wrap=True,
    )


def run_command(args: argparse.Namespace, console: Console) -> None:
    """Train."""
    config = resolve(args)
    columns = (
        TextColumn(f"{config.method_name} on {config.world_name}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pass@1 {task.fields[pass_at_1]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=config.num_steps, pass_at_1=float("nan"))

        def advance(step: int, pass_at_1: float) -> None:
            bar.update(task, completed=step, pass_at_1=pass_at_1)

        run = train(config, out=args.out, checkpoint_every=args.checkpoint_every, progress=advance)
    report(run, args.out, console)


def list_command(console: Console) -> None:
    """Name what there is."""
    table = Table(title="methods")
    table.add_column("method", no_wrap=True)
    for heading in ("in the paper", "allocation", "made of"):
        table.add_column(heading)
    for name, method in METHODS.items():
        parts = (method.shaping, method.loss, method.entropy_bonus, method.token_selection)
        made_of = ", ".join(type(part).__name__ for part in parts if part is not None)
        table.add_row(name, method.title, method.allocator, made_of)
    console.print(table)
    table = Table("world", "answers", "correct", "concentration", "difficulty", title="worlds")
    for name, world in WORLDS.items():
        ends = dict.fromkeys(f"{x:g}" for x in (world.concentration_low, world.concentration_high))
        table.add_row(name, str(world.num_answers), str(world.num_correct), " to ".join(ends), repr(world.difficulty))
    console.print(table)
    console.print(f"allocation rules: {', '.join(ALLOCATORS)}", highlight=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 2 for a wrong call, 130 when interrupted."""
    args = parser().parse_args(argv)
    console = Console()
    torch.set_num_threads(1)  # The tensors are too small for threads to pay.
    try:
        if args.command == "list":
            list_command(console)
        else:
            run_command(args, console)
    except ValueError as error:
        print(f"python -m toy {args.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; with --out, the same command resumes at the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
