"""Running and showing: progress of one run, its folder at the end, and the smoke test of everything."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scale import launch, records, supervisor, tiny
from scale.auditing import audit
from scale.data import prepare
from scale.evaluation import evaluate

HELD_OUT = "val-core/tiny-arithmetic/acc/mean@8"
"""verl's name for the mean reward over the tiny task's held-out prompts, 8 trajectories each."""


def tiny_files(folder: Path, console: Console, seed: int = 0) -> Path:
    """Return the folder of the tiny model and its task, made if it is not there."""
    with console.status("making a tiny model and its task"):
        tiny.make(folder, seed=seed)
    return folder.resolve()


def run(config: Any, out: Path, limits: launch.Limits, console: Console) -> int:
    """Run verl with a progress bar; returns the exit status, after the cause of a failure."""
    total = int(config.trainer.total_training_steps)
    columns = (
        TextColumn(f"{config.dynamo.method}{' (verl)' if config.dynamo.stock else ''}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    start = time.perf_counter()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total, state="starting")

        def echo(line: str) -> None:
            progress = supervisor.progress(out)
            if progress is not None:
                bar.update(task, completed=progress["step"], state=f"reward {progress.get('reward', float('nan')):.3f}")

        outcome = launch.train(config, out, limits, echo)
    if outcome.reason != "finished":
        console.print(outcome.cause(), highlight=False, soft_wrap=True, style="red", markup=False)
        console.print(f"log: {out / 'log.txt'}; the same command resumes", highlight=False, soft_wrap=True)
        return 130 if outcome.reason == "interrupted" else 1
    records.finish(out, config, time.perf_counter() - start)
    console.print(f"{total} steps, {outcome.seconds:.0f} s, written to {out}", highlight=False, soft_wrap=True)
    return 0


def smoke(args: argparse.Namespace, console: Console) -> int:
    """Prepare data, train the tiny model by some methods, evaluate, audit and draw; returns the exit status.

    Every part is the command of that name (`prepare`, `train`, `evaluate`, `audit`, `paper_figs`), so that what works
    here is what is used on GPUs.
    """
    start = time.perf_counter()
    files = tiny_files(args.out / "tiny", console)
    data, root = args.out / "data", args.out / "scale"
    tiny.write_source(args.out / "source")
    asked = ["--source", args.out / "source", "--out", data, "--template", "plain", "--force"]
    _command(prepare, [tiny.SOURCE, *asked], console)
    table = Table("method", "held-out reward before", "after", "rollouts of a prompt", "seconds")
    folders = []
    for method in args.methods:
        out = root / f"{method}-seed{args.seed}"
        overrides = [
            f"dynamo.method={method}",
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
        config = launch.compose("tiny", "cpu", out=out, overrides=overrides)
        launch.check(config, out)
        left = args.deadline - (time.perf_counter() - start)
        began = time.perf_counter()
        status = run(config, out, launch.Limits(left, args.silence), console)
        if status:
            return status
        table.add_row(method, *summary(out), f"{time.perf_counter() - began:.0f}")
        folders.append(out)
    asked = ["--data", files / "val.parquet", "--samples", "32", "--k", "1", "32", "--seeds", "1", "2"]
    status = _command(evaluate, [*folders, *asked, "--out", root / "evaluation"], console)
    if status:
        return status
    for out in folders:
        console.print(f"audit of {out}", highlight=False, soft_wrap=True)
        _command(audit, [out / "rollouts", "--out", out / "audit", "--force"], console)
    if {"grpo", "dynamo"} <= set(args.methods) and args.steps > 2:
        draw = [sys.executable, "-m", "paper_figs", "--source", str(args.out), "--only", "fig5_dynamics"]
        subprocess.run(draw, check=True)
    console.print(table)
    console.print(
        f"seed {args.seed}, {time.perf_counter() - start:.0f} s; held-out reward is the mean over prompts that are not "
        "trained on, 8 trajectories each; one seed tells that methods run and learn, not which is better",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _command(implementation: ModuleType, arguments: Sequence[Any], console: Console) -> int:
    """Run a command of `python -m scale`."""
    parser = argparse.ArgumentParser()
    implementation.add_arguments(parser)
    return int(implementation.command(parser.parse_args([str(x) for x in arguments]), console))


def summary(out: Path) -> tuple[str, str, str]:
    """Return the held-out reward before and after, and the range of rollouts, of a run."""
    lines = records.read_lines(out / records.METRICS)
    rewards = [line[HELD_OUT] for line in lines if HELD_OUT in line]
    counts = [n for line in records.read_lines(out / records.ALLOCATION) for n in line["counts"]]
    return f"{rewards[0]:.3f}", f"{rewards[-1]:.3f}", f"{min(counts)} to {max(counts)}"
