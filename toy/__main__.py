"""`python -m toy run|sweep|list`: train tabular policies, run whole experiments, and list methods, worlds and rules."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import TaskID, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from theory.allocation import ALLOCATORS
from theory.base.arrays import FloatArray
from theory.base.files import LOCK_FILE, only_writer
from theory.base.terminal import Console, Parser, command, progress
from theory.losses import AGGREGATIONS
from theory.methods import METHODS, Method
from theory.statistics import interval_method, paired_gain
from toy.experiments import (
    AFTER_VISITS,
    AT_REFERENCE,
    DEFAULT,
    HORIZONS,
    SWEEPS,
    TIMING,
    SummaryRow,
    Sweep,
    get_sweeps,
    runner,
    summary,
)
from toy.training import DEVICES, OPTIMIZERS, OptimizerConfig, Run, TrainConfig, train
from toy.training.loop import is_finished
from toy.worlds import WORLDS, Population

EXAMPLES = """\
examples:
  python -m toy run                                   # DynaMO, mixed world, 32 seeds, 200 steps; nothing is written
  python -m toy run --method grpo --world binary --out runs/grpo-binary
  python -m toy run --method grpo --allocator neyman  # GRPO with another allocation rule
  python -m toy run --out DIR                         # again: resumes, extends (--steps 400), or shows the results

A seed's result depends on nothing but the config and the seed: not on the other seeds, not on interruptions. Methods
share their random draws, so compare them seed by seed.
"""

SWEEP_EXAMPLES = """\
examples:
  python -m toy sweep table1                # nine methods, 32 seeds; into results/toy/table1
  python -m toy sweep default               # what `make reproduce` runs, in minutes
  python -m toy sweep all --long            # everything with twice the seeds and steps, in hours
  python -m toy sweep tuning                # then, with the learning rates it has chosen:
  python -m toy sweep table1 --tuned results/toy/tuning/chosen.json
  python -m toy sweep norms                 # or with those of equal early gradient norms:
  python -m toy sweep table1 --tuned results/toy/norms/chosen.json --out results/toy-norms

Every cell of a sweep is a run folder DIR/SWEEP/CELL, as of `run --out`; a sweep ends with DIR/SWEEP/summary.parquet,
values.parquet (those of every seed) and summary.json. Stop it at any time: the same command goes on where it was. The
number of jobs changes no result.
"""


def _name_in(names: Collection[str]) -> Any:
    """Return an argparse type that accepts the known names and lists them otherwise."""

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text!r}")
        return text

    return name


DEFAULTS = TrainConfig.named("dynamo", "mixed")

DEVICE = {
    "type": _name_in(DEVICES),
    "default": "cpu",
    "metavar": "NAME",
    "help": f"{' or '.join(DEVICES)} (default: cpu)",
}

SIZES = {
    "num_seeds": ("--seeds", "independent seeds, side by side"),
    "first_seed": ("--first-seed", "seeds count from here"),
    "num_steps": ("--steps", "rollout batches"),
    "batch_prompts": ("--batch", "prompts per rollout batch"),
    "rollouts": ("--rollouts", "average rollouts per prompt"),
    "rollouts_low": ("--low", "least rollouts of a prompt"),
    "rollouts_high": ("--high", "most rollouts of a prompt"),
    "num_minibatches": ("--minibatches", "optimiser steps per rollout batch"),
    "num_epochs": ("--epochs", "passes over a rollout batch"),
    "diagnose_every": ("--diagnose-every", "steps between two with exact gradient diagnostics, 0 for none"),
}
"""Whole numbers of `TrainConfig` that have an option of `run`, and what it says of them."""

RUN: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "what (names: python -m toy list)": {
        "--method": {"type": _name_in(METHODS), "default": "dynamo", "metavar": "NAME", "help": "default: dynamo"},
        "--world": {"type": _name_in(WORLDS), "default": "mixed", "metavar": "NAME", "help": "default: mixed"},
        "--allocator": {"type": _name_in(ALLOCATORS), "metavar": "RULE", "help": "allocate by another rule"},
        "--aggregation": {
            "type": _name_in(AGGREGATIONS),
            "metavar": "MODE",
            "help": f"one of {', '.join(AGGREGATIONS)}",
        },
        "--alpha": {"type": float, "metavar": "X", "help": "strength of DynaMO's modulation; 0 is none"},
    },
    "how much": {
        **{
            option: {"type": int, "dest": name, "metavar": "N", "help": f"{text} (default: {getattr(DEFAULTS, name)})"}
            for name, (option, text) in SIZES.items()
        },
        "--prompts": {
            "type": int,
            "metavar": "N",
            "help": f"prompts in the world (default: {DEFAULTS.world.num_prompts})",
        },
    },
    "how to learn": {
        "--optimizer": {
            "type": _name_in(OPTIMIZERS),
            "metavar": "NAME",
            "help": f"{' or '.join(OPTIMIZERS)} (default: sgd)",
        },
        "--history-discount": {
            "type": float,
            "metavar": "X",
            "help": f"factor on a prompt's old counts at each visit (default: {DEFAULTS.history_discount:g})",
        },
        "--learning-rate": {
            "type": float,
            "metavar": "X",
            "help": f"step on the logits (default: {DEFAULTS.optimizer.learning_rate:g}, for sgd; adamw needs one)",
        },
    },
    "where": {
        "--out": {
            "type": Path,
            "metavar": "DIR",
            "help": "folder for config.json, metrics.parquet, versions.json; the same command resumes a killed run",
        },
        "--checkpoint-every": {
            "type": int,
            "default": 20,
            "metavar": "N",
            "help": "steps between checkpoints (default: 20)",
        },
        "--device": DEVICE,
    },
}
"""Options of `run` by group: what `add_argument` takes."""


def parser() -> Parser:
    """Return the command line's parser; defaults come from `toy.training.config`."""
    top = Parser(prog="python -m toy", description="Tabular RLVR: many seeds as one computation.")
    commands = top.add_subparsers(dest="command", required=True, metavar="run|sweep|list")
    commands.add_parser("list", help="name the methods, worlds, allocation rules and sweeps")
    run = commands.add_parser(
        "run",
        help="train a method in a world",
        description="Train one method in one world over many seeds, in memory or into a folder that can be resumed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sweep = commands.add_parser(
        "sweep",
        help="run an experiment: many runs and a summary",
        description="Run the cells of one or more sweeps, or what is left of them, and summarise them over seeds.",
        epilog=SWEEP_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = (*SWEEPS, "default", "all")
    options_of_sweep: dict[str, dict[str, Any]] = {
        "names": {
            "nargs": "+",
            "type": _name_in(names),
            "metavar": "NAME",
            "help": f"one of {', '.join(names)}",
        },
        "--out": {
            "type": Path,
            "metavar": "DIR",
            "help": "folder of the sweeps (default: results/toy, with -long and -tuned)",
        },
        "--jobs": {"type": int, "default": 2, "metavar": "N", "help": "processes, one thread each (default: 2)"},
        "--long": {"action": "store_true", "help": "twice the seeds and twice the steps"},
        "--tuned": {
            "type": Path,
            "metavar": "FILE",
            "help": "take learning rates from the chosen.json of the sweep tuning, or norms",
        },
        "--device": DEVICE,
    }
    groups = [(run.add_argument_group(title), options) for title, options in RUN.items()]
    for group, options in (*groups, (sweep, options_of_sweep)):
        for option, settings in options.items():
            group.add_argument(option, **settings)
    return top


def resolve(args: argparse.Namespace) -> TrainConfig:
    """Return the config that the arguments of `run` ask for."""
    method: Method = METHODS[args.method]
    world = WORLDS[args.world]
    for name in ("allocator", "aggregation"):
        if getattr(args, name) is not None:
            method = replace(method, **{name: getattr(args, name)})
    if args.alpha is not None:
        try:
            method = method.with_modulation(alpha=args.alpha)
        except ValueError as error:
            raise ValueError(f"--{error}") from error
    if args.prompts is not None:
        world = replace(world, num_prompts=args.prompts)
    learning = {"name": args.optimizer, "learning_rate": args.learning_rate}
    if args.optimizer == "adamw" and args.learning_rate is None:
        raise ValueError("--learning-rate: expected a value for adamw (the default is one for sgd), got none")
    given = {name: getattr(args, name) for name in (*SIZES, "history_discount") if getattr(args, name) is not None}
    return TrainConfig(
        method_name=args.method,
        method=method,
        world_name=args.world,
        world=world,
        optimizer=OptimizerConfig(**{name: value for name, value in learning.items() if value is not None}),
        **given,
    )


def over_seeds(values: FloatArray) -> str:
    """Return the aggregate over seeds with its interval (`paired_gain`), as text."""
    point, low, high = (float(x) for x in paired_gain(values))
    return format_interval(".4f", point, *((low, high) if len(values) > 1 else (None, None)))


def _seeds(count: int) -> str:
    """Say how many seeds there are, and which interval they give."""
    return interval_method(1) if count == 1 else f"{count} seeds: {interval_method(count)}"


def report(run: Run, out: Path | None, console: Console) -> None:
    """Print what the run has learnt."""
    table = Table("metric", "before", "after", "change")
    for name in ("pass_at_1", "pass_at_32", "entropy"):
        values = run.metrics[name]
        first, last = values[:, 0], values[:, -1]
        table.add_row(name, *(over_seeds(np.asarray(x)) for x in (first, last, last - first)))
    console.print(table)
    values, config = run.metrics["pass_at_1"], run.config
    before, after = float(paired_gain(values[:, 0]).point), over_seeds(values[:, -1])
    console.print(
        f"{config.method_name} on {config.world_name}: pass@1 {before:.4f} -> {after} "
        f"({_seeds(config.num_seeds)}), {values.shape[1] - 1} steps, {run.seconds:.1f} s, "
        f"{out if out is not None else 'not written (no --out)'}",
        soft_wrap=True,
    )


def run_command(args: argparse.Namespace, console: Console) -> None:
    """Train."""
    config = resolve(args)
    if args.out is not None:
        leave_to_its_sweep(args.out, config)
    columns = ("pass@1 {task.fields[pass_at_1]:.4f}", TimeElapsedColumn(), TimeRemainingColumn())
    with progress(console, *columns) as bar:
        name = f"{config.method_name} on {config.world_name}"
        task = bar.add_task(name, total=config.num_steps, pass_at_1=float("nan"))

        def advance(step: int, pass_at_1: float) -> None:
            bar.update(task, completed=step, pass_at_1=pass_at_1)

        run = train(config, out=args.out, checkpoint_every=args.checkpoint_every, progress=advance, device=args.device)
    report(run, args.out, console)


def leave_to_its_sweep(out: Path, config: TrainConfig) -> None:
    """Refuse to train in a folder of a sweep that is at work, which would find its cell locked, and end."""
    sweep = out.resolve().parent
    if sweep.name in SWEEPS and (sweep / LOCK_FILE).exists() and not is_finished(out, config):
        with only_writer(sweep):
            pass  # the sweep has ended, or was killed


def sweep_command(args: argparse.Namespace, console: Console) -> None:
    """Run sweeps."""
    sweeps = get_sweeps(args.names)
    if args.long:
        sweeps = tuple(sweep.longer() for sweep in sweeps)
    if args.tuned is not None:
        choices = runner.read_choices(args.tuned)
        try:
            sweeps = tuple(sweep.tuned(choices) for sweep in sweeps)
        except ValueError as error:
            raise ValueError(f"{args.tuned}: {error}") from error
    size = ("-long" if args.long else "") + ("-tuned" if args.tuned is not None else "")
    out = args.out or Path("results") / f"toy{size}"
    sizes = {out / sweep.name / cell.name: cell.config.num_steps for sweep in sweeps for cell in sweep.cells}
    with progress(console, "{task.fields[unit]}", TimeElapsedColumn(), TimeRemainingColumn()) as bar:
        cells = bar.add_task(
            f"{len(sweeps)} sweeps" if len(sweeps) > 1 else sweeps[0].name, total=len(sizes), unit="cells"
        )
        running: dict[Path, TaskID] = {}

        def advance(folder: Path, step: int) -> None:
            if folder not in running and step < sizes[folder]:
                running[folder] = bar.add_task(f"{folder.parent.name}/{folder.name}", total=sizes[folder], unit="steps")
            if step < sizes[folder]:
                bar.update(running[folder], completed=step)
                return
            if folder in running:
                bar.remove_task(running.pop(folder))
            bar.advance(cells)

        for sweep, rows in runner.run_sweeps(sweeps, out, jobs=args.jobs, progress=advance, device=args.device):
            for line in summary_of(sweep, rows):
                console.print(line, soft_wrap=isinstance(line, str))
            console.print(f"written to {out / sweep.name}", soft_wrap=True)
            console.print()


def summary_of(sweep: Sweep, rows: Sequence[SummaryRow]) -> Iterator[Table | str]:
    """Yield a table for every measure of a sweep, and the best cells of every block."""
    yield f"{sweep.name} ({sweep.reproduces}): {sweep.title}"
    config = sweep.cells[0].config
    reference = " ".join(sweep.reference.values())
    alone = [measure for measure in sweep.measures if measure not in HORIZONS]
    for measure in alone:
        table = Table(*sweep.axes, "value", f"minus {reference}", title=summary.title(measure))
        chosen = [row for row in rows if row.measure == measure]
        largest = max(abs(row.value) for row in chosen)
        decimals = min(max(4 - math.ceil(math.log10(largest)), 0), 9) if largest else 0  # four digits
        for row in chosen:
            interval = format_interval(f".{decimals}f", row.value, row.low, row.high)
            paired = format_interval(f"+.{decimals}f", row.difference, row.difference_low, row.difference_high)
            table.add_row(*row.axes.values(), interval, paired)
        yield table
    if sweep.measures == (TIMING,):
        return
    yield from horizons(sweep, rows)
    yield (f"{_seeds(config.num_seeds)}; differences are within seeds, and no interval is adjusted for the others.")
    for measure in alone:
        if measure.startswith("pass") and len(sweep.cells) > len(leaders := summary.leaders(sweep, rows, measure)):
            yield f"Highest {summary.title(measure)}: " + ", ".join(
                " ".join(row.axes.values()) + f" {row.value:.4f}" for row in leaders
            )


def horizons(sweep: Sweep, rows: Sequence[SummaryRow]) -> Iterator[Table]:
    """Yield a table of pass@1 after equal numbers of visits, and one at equal progress of the reference."""
    reference = " ".join(sweep.reference.values())
    found = {(row.cell, row.measure): row for row in rows}
    heading = f"pass@1 of {reference}, of others minus {reference}, in points: {{}}"
    for measures, when in (
        (AFTER_VISITS, "after so many visits a prompt"),
        (AT_REFERENCE, f"when {reference} has first so much, mean over seeds"),
    ):
        there = {name: x for name, x in measures.items() if any(row.measure == name for row in rows)}
        if not there:
            continue
        table = Table(*sweep.axes, *(f"{x:g}" for x in there.values()), title=heading.format(when))
        for cell in sweep.cells:
            texts = []
            for name in there:
                row = found.get((cell.name, name))
                if row is None:
                    texts.append("")
                elif row.difference is None:
                    texts.append(f"{100 * row.value:.1f}")
                else:
                    ends = (row.difference, row.difference_low, row.difference_high)
                    texts.append(format_interval("+.1f", *(x if x is None else 100 * x for x in ends)))
            table.add_row(*cell.axes.values(), *texts)
        yield table


def format_interval(spec: str, value: float | None, low: float | None, high: float | None) -> str:
    """Return a number and its interval as text; without the interval, or empty, where they are None."""
    texts = [f"{x:{spec}}" for x in (value, low, high) if x is not None]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" if len(texts) == 3 else "".join(texts)


def list_command(args: argparse.Namespace, console: Console) -> None:
    """List the methods, worlds, allocation rules and sweeps."""
    table = Table(title="methods")
    table.add_column("method", no_wrap=True)
    for heading in ("in the paper", "allocation", "made of"):
        table.add_column(heading)
    for name, method in METHODS.items():
        parts = (method.shaping, method.loss, method.entropy_bonus, method.token_selection)
        made_of = ", ".join(type(part).__name__ for part in parts if part is not None)
        table.add_row(name, method.title, method.allocator, made_of)
    console.print(table)
    table = Table("world", "made of", "concentration", "difficulty", title="worlds")
    for name, world in WORLDS.items():
        if isinstance(world, Population):
            made_of = f"{world.num_answers} answers, {world.num_correct} correct"
        else:
            made_of = f"chains of {world.length_low} to {world.length_high} tokens, each one of {world.num_tokens}; "
            made_of += f"{world.num_skills} skills, {world.num_decisions} of them decisions"
        ends = dict.fromkeys(f"{x:g}" for x in (world.concentration_low, world.concentration_high))
        table.add_row(name, made_of, " to ".join(ends), repr(world.difficulty))
    console.print(table)
    console.print(f"allocation rules: {', '.join(ALLOCATORS)}", soft_wrap=True)
    console.print()
    table = Table("sweep", "what is varied", "reproduces", "cells", title="sweeps")
    for name, sweep in SWEEPS.items():
        table.add_row(name, sweep.title, sweep.reproduces, str(len(sweep.cells)))
    console.print(table)
    console.print(f"sweep default: {', '.join(DEFAULT)}", soft_wrap=True)


@command("python -m toy", {"run": "with --out, the same command resumes", "sweep": "the same command resumes"})
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or as in `theory.base.terminal`."""
    args = parser().parse_args(argv)
    torch.set_num_threads(1)  # The tensors are too small for threads to pay.
    {"run": run_command, "sweep": sweep_command, "list": list_command}[args.command](args, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
