"""Running and showing: progress of one run, its folder at the end, and the smoke test of everything."""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from scale import launch, tiny
from scale.auditing import audit
from scale.data import prepare
from scale.evaluation import evaluate
from scale.run import records, supervisor
from theory.base import runs as run_format

HELD_OUT = "val-core/tiny-arithmetic/acc/mean@8"
"""verl's name for the mean reward over the tiny task's held-out prompts, 8 trajectories each."""


def tiny_files(folder: Path, console: Console, seed: int = 0) -> Path:
    """Return the folder of the tiny model and its task, made if it is not there."""
    with console.status("making a tiny model and its task"):
        tiny.make(folder, seed=seed)
    return folder.resolve()


def run(configs: Mapping[Path, Any], limits: launch.Limits, console: Console, jobs: int = 1) -> int:
    """Run verl with a progress bar for every run, a few at a time, until all have finished or one has failed.

    Parameters
    ----------
    configs
        Checked configurations by the run's folder.
    limits
        Of each run.
    console
        Gets the progress, and the cause of a failure.
    jobs
        Runs at a time, >= 1.

    Returns
    -------
    int
        The exit status; after a failure the other runs are ended.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, with all runs ended.
    """
    stop = threading.Event()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:

        def one(out: Path, task: TaskID) -> supervisor.Outcome:
            def echo(line: str) -> None:
                progress = supervisor.progress(out)
                if progress is not None:
                    reward = f"reward {progress.get('reward', float('nan')):.3f}"
                    bar.update(task, completed=progress["step"], state=reward)

            bar.start_task(task)
            bar.update(task, state="starting")
            outcome = launch.train(configs[out], out, limits, echo, stop)
            if outcome.reason == "finished":
                records.finish(out, configs[out], outcome.seconds)
            return outcome

        with ThreadPoolExecutor(jobs) as pool, supervisor.interruptible():
            futures = {}
            for out, config in configs.items():
                name = f"{config.dynamo.method}{' (verl)' if config.dynamo.stock else ''}"
                total = int(config.trainer.total_training_steps)
                futures[pool.submit(one, out, bar.add_task(name, start=False, total=total, state="waiting"))] = out
            try:
                for future in as_completed(futures):
                    out, outcome = futures[future], future.result()
                    if outcome.reason != "finished":
                        console.print(outcome.cause(), highlight=False, soft_wrap=True, style="red", markup=False)
                        told = f"log: {out / 'log.txt'}; the same command resumes"
                        console.print(told, highlight=False, soft_wrap=True)
                        return 1
                    steps = configs[out].trainer.total_training_steps
                    done = f"{steps} steps, {outcome.seconds:.0f} s, written to {out}"
                    console.print(done, highlight=False, soft_wrap=True)
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
    return 0


STOCK = "stock"
"""What `smoke` calls verl's own trainer of GRPO among its methods."""


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
    folders = {method: root / f"{method}-seed{args.seed}" for method in args.methods}
    configs = {}
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
    status = run(configs, launch.Limits(args.deadline, args.silence), console, args.jobs)
    if status:
        return status
    asked = ["--data", files / "val.parquet", "--samples", "32", "--k", "1", "32", "--seeds", "1", "2"]
    status = _command(evaluate, [*folders.values(), *asked, "--out", root / "evaluation"], console)
    if status:
        return status
    table = Table("method", "held-out reward before", "after", "rollouts of a prompt", "seconds")
    for method, out in folders.items():
        console.print(f"audit of {out}", highlight=False, soft_wrap=True)
        _command(audit, [out / "rollouts", "--out", out / "audit", "--force"], console)
        table.add_row(method, *summary(out))
    if "dynamo" in folders and {"grpo", STOCK} & set(folders) and args.steps > 2:
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


def summary(out: Path) -> tuple[str, str, str, str]:
    """Return the held-out reward before and after, the range of rollouts, and the seconds, of a run."""
    found = run_format.read_run(out)
    rewards = found.metrics[HELD_OUT].drop_null().to_pylist()
    counts = [found.config["actor_rollout_ref"]["rollout"]["n"]]
    if not found.config["dynamo"]["stock"]:
        counts = [n for line in records.read_lines(out / records.ALLOCATION) for n in line["counts"]]
    seconds = found.versions["seconds"]
    return f"{rewards[0]:.3f}", f"{rewards[-1]:.3f}", f"{min(counts)} to {max(counts)}", f"{seconds:.0f}"
