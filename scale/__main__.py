"""`python -m scale COMMAND`: DynaMO and its rivals in verl and vLLM, on GPUs or, for a tiny model, without."""

from __future__ import annotations

import argparse
import importlib
import logging
import math
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scale import launch
from scale.launch import budgets, experiments
from scale.launch.budgets import BUDGETS
from scale.plugin.config import RULES, SCOPES
from scale.rewards import answer_reader
from theory.base import require, terminal
from theory.base.terminal import Console
from theory.methods import METHODS, STOCK

NEEDED = ("verl", "vllm", "ray", "hydra", "transformers")

COMMANDS = {
    "audit": "what a rule would have changed, from the logs of any run; needs no GPU and no verl",
    "prepare": "training data and benchmarks to Parquet",
    "experiments": "the paper's tables and figures, a command for every run",
    "train": "train a model, or resume",
    "evaluate": "pass@k of checkpoints, in the shape of table 1",
    "smoke": "train a tiny model by some methods, without a GPU",
}

MODULES = {
    "audit": "scale.audit.replay_log",
    "prepare": "scale.data.prepare",
    "evaluate": "scale.evaluation.evaluate",
    "smoke": "scale.smoke",
}
"""Modules of the commands that have one, with `command`, and `ARGUMENTS` (what `add_argument` takes) if not here."""

INSTALL = """\
python -m scale {command} needs verl and vLLM, and cannot import {missing}. Install them next to this package:
  on GPUs:          pip install -r requirements/scale.lock
  without a GPU:    make scale-cpu
theory, toy, paper_figs, and the commands audit, prepare and experiments work without."""

EXAMPLES = {
    "train": """\
examples:
  python -m scale train --model tiny --method dynamo                           # without a GPU
  python -m scale train --budget first-look                                    # 1.5B on one GPU, some hours
  python -m scale train --model qwen2.5-math-7b --method dynamo --seed 1 --dry-run
  python -m scale train --experiment table1 --cell 7b-dynamo-1                 # a run of table 1

The same command resumes a run that was killed. SIGTERM lets it save a checkpoint and end with status 75; Ctrl-C, or a
second SIGTERM, ends it at once. Anything of verl's configuration can be set at the end of the line:
  ... trainer.total_training_steps=100 actor_rollout_ref.actor.optim.lr=2e-6
""",
    "evaluate": """\
examples:
  python -m scale evaluate runs/7b-dynamo-1 runs/7b-grpo-1 --data data/aime24.parquet data/math500.parquet
  python -m scale evaluate results/scale/tiny-dynamo-1 --cluster cpu --data results/scale/tiny/val.parquet

The same command resumes an evaluation that was killed. Runs that differ in their seed alone share a row. A call uses
all GPUs that it sees (CUDA_VISIBLE_DEVICES); --engines N uses fewer.
""",
}


def _limits(deadline: float | None = None, silence: float | None = None) -> dict[str, dict[str, Any]]:
    said = "what the estimate says, with a margin: --dry-run prints it"
    return {
        "--deadline": {
            "type": float,
            "default": deadline,
            "metavar": "S",
            "help": f"end the run after this many seconds (default: {deadline or said})",
        },
        "--silence": {
            "type": float,
            "default": silence,
            "metavar": "S",
            "help": "end a run after this long without progress in any phase, or after three times as long if it moves "
            f"(default: {silence or said})",
        },
        "--grace": {
            "type": float,
            "metavar": "S",
            "help": "after SIGTERM, end a run that has not saved by then (default: by the estimate)",
        },
        "--restarts": {
            "type": int,
            "default": 0,
            "metavar": "N",
            "help": "start a run that failed or hung again from its last checkpoint, this many times without a new one "
            "(%(default)s)",
        },
    }


_TRUST = {
    "--trust-network": {
        "action": "store_true",
        "help": "start even where others may reach the run's ports, and so run code as you (network.trust)",
    }
}


ARGUMENTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "train": {
        "--model": {"metavar": "NAME", "help": "a file of conf/model (default: tiny)"},
        "--cluster": {"metavar": "NAME", "help": "a file of conf/cluster (default: the model's own)"},
        "--method": {"metavar": "NAME", "help": f"one of {', '.join(METHODS)} (default: dynamo)"},
        "--experiment": {"metavar": "NAME", "help": f"one of {', '.join(experiments.EXPERIMENTS)}, with --cell"},
        "--cell": {"metavar": "NAME", "help": "a run of the experiment (`python -m scale experiments NAME`)"},
        "--allocator": {"metavar": "RULE", "help": f"another rule than the method's: {', '.join(RULES)}"},
        "--alpha": {"type": float, "metavar": "X", "help": "another strength of the modulation; 0 is none"},
        "--scope": {"metavar": "SCOPE", "help": f"batch of the normalisers: {', '.join(SCOPES)}"},
        "--stock": {"action": "store_true", "help": "stock GRPO: verl's own trainer, with seeds, to compare with"},
        "--seed": {"type": int, "metavar": "N", "help": "seed of the run (default: 1)"},
        "--budget": {
            "metavar": "NAME",
            "help": "; ".join(f"{name}: {x.title}" for name, x in BUDGETS.items())
            + f" (default: {budgets.DEFAULT}, and {budgets.OF_EXPERIMENTS} with --experiment)",
        },
        "--steps": {"type": int, "metavar": "N", "help": "training steps, those of a resumed run included"},
        "--out": {
            "type": Path,
            "metavar": "DIR",
            "help": "folder of the run (default: results/scale/MODEL-METHOD-SEED)",
        },
        "--dry-run": {
            "action": "store_true",
            "help": "compose and check the configuration, say what it needs, start nothing",
        },
        **_TRUST,
        **_limits(),
        "overrides": {"nargs": "*", "metavar": "KEY=VALUE", "help": "of verl's configuration"},
    },
    "smoke": {
        "--out": {
            "type": Path,
            "default": Path("results/scale/smoke"),
            "metavar": "DIR",
            "help": "default: %(default)s",
        },
        "--steps": {"type": int, "default": 20, "metavar": "N", "help": "default: %(default)s"},
        "--seed": {"type": int, "default": 1, "metavar": "N", "help": "default: %(default)s"},
        "--methods": {
            "nargs": "+",
            "default": ["grpo", "dynamo"],
            "metavar": "NAME",
            "help": "default: grpo dynamo; stock is GRPO by verl's own trainer",
        },
        "--jobs": {
            "type": int,
            "default": 2,
            "metavar": "N",
            "help": "runs at a time, 7 GB and a core each (%(default)s)",
        },
        **_TRUST,
        **_limits(1200.0, 1800.0),
        "overrides": {"nargs": "*", "metavar": "KEY=VALUE", "help": "of verl's configuration, for every method"},
    },
    "experiments": {
        "names": {"nargs": "*", "metavar": "NAME", "help": f"of {', '.join(experiments.EXPERIMENTS)} (default: all)"},
        "--estimate": {"action": "store_true", "help": "compose and check every run, and say what they need"},
        "--budget": {"metavar": "NAME", "help": f"as of train (default: {budgets.OF_EXPERIMENTS})"},
    },
}
"""What `add_argument` takes for every argument of these commands; the others' are in their modules."""


def parser(command: str | None = None) -> terminal.Parser:
    """Return the command line's parser; `command` is the one that will be run, and only its module is imported."""
    top = terminal.Parser(prog="python -m scale", description="DynaMO inside verl and vLLM.")
    commands = top.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    arguments = dict(ARGUMENTS)
    for name, text in COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text, epilog=EXAMPLES.get(name))
        if name in EXAMPLES:
            added.formatter_class = argparse.RawDescriptionHelpFormatter
        if name == command and name not in ARGUMENTS:
            arguments[name] = importlib.import_module(MODULES[name]).ARGUMENTS
        for argument, settings in arguments.get(name, {}).items():
            added.add_argument(argument, **settings)
    return top


def check_names(args: argparse.Namespace) -> None:
    """Require names that exist before anything heavy is imported or made, each by its own option."""
    overrides = getattr(args, "overrides", ())
    methods, rules = ((), ()) if launch.names_modules(overrides) else (METHODS, RULES)
    for option, choices in (
        ("model", launch.names("model")),
        ("cluster", launch.names("cluster")),
        ("method", methods),
        ("allocator", rules),
        ("scope", SCOPES),
        ("experiment", experiments.EXPERIMENTS),
        ("budget", BUDGETS),
    ):
        if choices:
            launch.require_name(f"--{option}", getattr(args, option, None), choices)
    for method in getattr(args, "methods", None) or ():
        launch.require_name("--methods", method, (*METHODS, STOCK))
    for name in getattr(args, "names", None) or ():
        launch.require_name("NAME", name, experiments.EXPERIMENTS)
    if getattr(args, "experiment", None) and args.cell:
        cells = [x.name for x in experiments.get_experiment(args.experiment).cells]
        launch.require_name("--cell", args.cell, cells)
    if args.command in ("train", "smoke"):
        _check_numbers(args)
    if getattr(args, "stock", False):
        _check_stock(args)
    launch.require_settings(overrides)


def _check_numbers(args: argparse.Namespace) -> None:
    """Require numbers in their ranges, each by its own option."""
    for name, low in (("steps", 1), ("seed", 0), ("restarts", 0), ("jobs", 1)):
        if getattr(args, name, None) is not None:
            require.count(f"--{name}", getattr(args, name), low)
    for name, high in (("deadline", math.inf), ("silence", math.inf), ("grace", math.inf), ("alpha", 1.0)):
        if getattr(args, name, None) is not None:
            require.in_range(f"--{name}", getattr(args, name), 0.0, high, open_low=name in ("deadline", "silence"))


def _check_stock(args: argparse.Namespace) -> None:
    """Require no choice of a method's beside verl's own GRPO, which would not make it."""
    for name in ("method", "allocator", "alpha", "scope"):
        value = getattr(args, name)
        if value is not None and (name, value) != ("method", "grpo"):
            raise ValueError(f"--{name}: expected none with --stock, which is GRPO by verl's own trainer, got {value}")


def train_command(args: argparse.Namespace, console: Console) -> int:
    """Train one model, or print what would run; returns the exit status."""
    from scale import tiny
    from scale.launch import limits, progress

    cell = _cell(args)
    name = experiments.run_name(cell.model, STOCK if args.stock else cell.method, cell.seed, cell.variant)
    out = args.out or experiments.ROOT / name
    overrides = [*cell.settings, *args.overrides]
    for name in ("allocator", "alpha", "scope"):
        if getattr(args, name) is not None:
            overrides.append(f"dynamo.{name}={getattr(args, name)}")
    if args.stock:
        overrides.append("dynamo.stock=true")
    if args.steps is not None:
        overrides.append(f"trainer.total_training_steps={args.steps}")
    if cell.model == "tiny" and not any(x.startswith("tiny_folder=") for x in overrides):
        folder = Path("results/scale/tiny").resolve()
        overrides.append(f"tiny_folder={folder}")
        if not args.dry_run:
            with console.status(tiny.MAKING):
                tiny.make(folder)
    cluster = args.cluster or (BUDGETS[cell.budget].cluster if cell.model == BUDGETS[cell.budget].model else None)
    config = launch.compose(cell.model, cluster, out=out, overrides=overrides)
    launch.check(config, out, files=not args.dry_run)
    allowed = launch.limits_of(config, args.deadline, args.silence, args.grace, args.restarts)
    if args.dry_run:
        words = ["python", "-m", "scale", *(x for x in args.words if x != "--dry-run")]
        said = [*limits.describe(config, allowed).splitlines(), *launch.describe(config).splitlines()]
        for line in (f"launch       {shlex.join(words)}", f"folder       {out}", *said):
            console.print(line, soft_wrap=True)
        return 0
    return progress.train_all({out: config}, {out: allowed}, console)


def _cell(args: argparse.Namespace) -> experiments.Cell:
    """Return the run that the arguments name: a cell of an experiment, or a model, a method and a seed."""
    named = {name: getattr(args, name) for name in ("model", "method", "seed")}
    if args.experiment is None and args.cell is None:
        budget = args.budget or budgets.DEFAULT
        model = args.model or ((BUDGETS[budget].model or experiments.MODEL_7B) if args.budget else "tiny")
        if model == "tiny" and args.budget:
            raise ValueError("--budget: expected one of the paper's models, got tiny, whose steps --steps sets")
        variant = BUDGETS[budget].variant if model != "tiny" else ""
        seed = 1 if args.seed is None else args.seed
        return experiments.Cell("", model, args.method or "dynamo", seed, variant=variant, budget=budget)
    if args.experiment is None or args.cell is None:
        raise ValueError("experiment: expected --experiment and --cell together, got one of them")
    given = [f"--{name}" for name, value in named.items() if value is not None]
    if given:
        raise ValueError(f"cell: expected a run named by --experiment and --cell alone, got {', '.join(given)} too")
    return _of_budget(experiments.get_cell(args.experiment, args.cell), args.budget)


def _of_budget(cell: experiments.Cell, name: str | None) -> experiments.Cell:
    """Return a cell of an experiment with another number of steps; its other settings make it what it is."""
    if name is not None and BUDGETS[name].variant:
        others = ", ".join(x for x, budget in BUDGETS.items() if not budget.variant)
        raise ValueError(f"--budget: expected one of {others} for a run of an experiment, got {name}")
    return replace(cell, budget=name or cell.budget)


def experiments_command(args: argparse.Namespace, console: Console) -> int:
    """List the runs of experiments, as commands; or what they need."""
    names = args.names or list(experiments.EXPERIMENTS)
    _of_budget(experiments.get_experiment(names[0]).cells[0], args.budget)  # an error before the first line
    for name in names:
        experiment = experiments.get_experiment(name)
        console.print(f"# {name}: {experiment.title}; {len(experiment.cells)} runs", soft_wrap=True)
        if args.estimate:
            _estimate([_of_budget(x, args.budget) for x in experiment.cells], console)
        else:
            for cell in (_of_budget(x, args.budget) for x in experiment.cells):
                console.print(cell.command(), soft_wrap=True)
    runs = experiments.distinct(names)
    console.print(f"# {len(runs)} runs in all, since some are in several experiments", soft_wrap=True)
    if args.estimate and len(names) > 1:
        _estimate([_of_budget(x, args.budget) for x in runs], console)
    return 0


def _estimate(cells: Sequence[experiments.Cell], console: Console) -> None:
    from scale.launch import estimate, estimate_report

    hours: dict[str, list[list[float]]] = {}
    for cell in cells:
        tiny = [f"tiny_folder={Path('results/scale/tiny').resolve()}"] if cell.model == "tiny" else []
        config = launch.compose(cell.model, out=cell.folder, overrides=[*cell.settings, *tiny])
        launch.check(config, cell.folder, files=False)
        hours.setdefault(cell.model, []).append(estimate.needs(config).get("gpu_hours", [0.0, 0.0]))
    for model, pairs in hours.items():
        total = [sum(x) for x in zip(*pairs, strict=True)]
        console.print(
            f"#   {model}: {len(pairs)} runs, {estimate_report.in_words(total)} GPU-hours",
            soft_wrap=True,
        )


RESUMES = dict.fromkeys(("train", "evaluate"), "the same command resumes")


@terminal.command("python -m scale", RESUMES)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for a run that failed, or as in `theory.base.terminal`."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args: Any = parser(argv[0] if argv else None).parse_args(argv)
    args.words = argv
    if getattr(args, "trust_network", False):
        args.overrides.append("network.trust=true")
    console = Console()
    needed = {
        "train": NEEDED,
        "smoke": NEEDED,
        "experiments": ("verl", "hydra") if getattr(args, "estimate", 0) else (),
    }
    missing = [name for name in needed.get(args.command, ()) if find_spec(name) is None]
    if missing:
        print(INSTALL.format(command=args.command, missing=", ".join(missing)), file=sys.stderr)
        return 2
    check_names(args)
    # What verl says on import of engines and platforms that this machine lacks; a run's own log keeps it.
    warnings.filterwarnings("ignore", message=".*engine is not available")
    logging.getLogger("verl.plugin.platform.platform_manager").addFilter(lambda record: False)
    own = {"train": train_command, "experiments": experiments_command}
    if args.command in own:
        return own[args.command](args, console)
    parts = [answer_reader()] if args.command == "prepare" else []
    return int(importlib.import_module(MODULES[args.command]).command(args, console, *parts))


if __name__ == "__main__":
    sys.exit(main())
