"""The smoke test of everything: prepare, train a tiny model by some methods, evaluate, audit and draw."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.table import Table

from scale import launch, tiny
from scale.audit import replay_log
from scale.data import prepare
from scale.evaluation import evaluate
from scale.launch import progress
from scale.rewards import answer_reader
from scale.run import records
from theory.base import runs as run_format
from theory.base.terminal import Console
from theory.methods import STOCK

HELD_OUT = "val-core/tiny-arithmetic/acc/mean@8"
"""verl's name for the mean reward over the tiny task's held-out prompts, 8 trajectories each."""


def command(args: argparse.Namespace, console: Console) -> int:
    """Prepare data, train the tiny model by some methods, evaluate, audit and draw; returns the exit status.

    Every part is the command of that name (`prepare`, `train`, `evaluate`, `audit`, `paper_figs`), so that what works
    here is what is used on GPUs.
    """
    start = time.perf_counter()
    files = (args.out / "tiny").resolve()
    with console.status(tiny.MAKING):
        tiny.make(files)
    data, root = args.out / "data", args.out / "scale"
    tiny.write_source(args.out / "source")
    asked = ["--source", args.out / "source", "--out", data, "--template", "plain", "--force"]
    _command(prepare, [tiny.SOURCE, *asked], console, answer_reader())
    folders = {method: root / f"{method}-seed{args.seed}" for method in args.methods}
    configs, limits = {}, {}
    for method, out in folders.items():
        overrides = [
            *(["dynamo.method=grpo", "dynamo.stock=true"] if method == STOCK else [f"dynamo.method={method}"]),
            f"dynamo.seed={args.seed}",
            f"tiny_folder={files}",
            f"data.train_files={(data / tiny.SOURCE).resolve()}.parquet",
            f"trainer.total_training_steps={args.steps}",
            f"trainer.save_freq={args.steps}",
            f"trainer.test_freq={max(args.steps // 2, 1)}",
            f"trainer.rollout_data_dir={(out / 'rollouts').resolve()}",
            "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
            *args.overrides,
        ]
        configs[out] = launch.compose("tiny", "cpu", out=out, overrides=overrides)
        launch.check(configs[out], out)
        limits[out] = launch.limits_of(configs[out], args.deadline, args.silence, args.grace, args.restarts)
    status = progress.train_all(configs, limits, console, args.jobs)
    if status:
        return status
    asked = ["--data", files / "val.parquet", "--samples", "32", "--k", "1", "32", "--seeds", "1", "2"]
    status = _command(evaluate, [*folders.values(), *asked, "--out", root / "evaluation"], console)
    if status:
        return status
    table = Table("method", "held-out reward before", "after", "rollouts of a prompt", "seconds")
    for method, out in folders.items():
        console.print(f"audit of {out}", soft_wrap=True)
        _command(replay_log, [out / "rollouts", "--out", out / "audit", "--force"], console)
        table.add_row(method, *summary(out))
    if "dynamo" in folders and {"grpo", STOCK} & set(folders) and args.steps > 2:
        draw = [sys.executable, "-m", "paper_figs", "--source", str(args.out), "--only", "fig5_dynamics"]
        subprocess.run(draw, check=True)
    console.print(table)
    console.print(
        f"seed {args.seed}, {time.perf_counter() - start:.0f} s; held-out reward is the mean over prompts that are not "
        "trained on, 8 trajectories each; one seed shows that methods run and learn, not which is better",
        soft_wrap=True,
    )
    return 0


def _command(implementation: ModuleType, arguments: Sequence[Any], console: Console, *parts: Any) -> int:
    """Run a command of `python -m scale`, with the parts that it is given from outside."""
    parser = argparse.ArgumentParser()
    for name, settings in implementation.ARGUMENTS.items():
        parser.add_argument(name, **settings)
    return int(implementation.command(parser.parse_args([str(x) for x in arguments]), console, *parts))


def summary(out: Path) -> tuple[str, str, str, str]:
    """Return the held-out reward before and after, the range of rollouts, and the seconds, of a run."""
    run = run_format.read_run(out)
    rewards = run.metrics[HELD_OUT].drop_null().to_pylist()
    counts = [run.config["actor_rollout_ref"]["rollout"]["n"]]
    if not run.config["dynamo"]["stock"]:
        counts = [n for line in records.read_allocation(out / records.ALLOCATION_LOG) for n in line["counts"]]
    seconds = run.versions["seconds"]
    return f"{rewards[0]:.3f}", f"{rewards[-1]:.3f}", f"{min(counts)} to {max(counts)}", f"{seconds:.0f}"
