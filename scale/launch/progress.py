"""Runs under a progress bar, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.progress import TaskID, TimeElapsedColumn

from scale.launch.checks import check_folder
from scale.launch.start import Limits, train
from scale.run import Outcome, interruptible, read_progress, records
from scale.run.supervisor import LOG, PATIENCE
from theory.base import terminal
from theory.base.files import only_writer
from theory.base.terminal import Console
from theory.methods import STOCK


def train_all(configs: Mapping[Path, Any], limits: Limits, console: Console, jobs: int = 1) -> int:
    """Run verl with a progress bar for every run, until all have finished or one has failed; returns the exit status.

    `configs` has checked configurations by the run's folder; at most `jobs` run at a time. A failure, Ctrl-C or SIGTERM
    ends all runs.
    """
    stop = threading.Event()
    with terminal.progress(console, "{task.fields[state]}", TimeElapsedColumn()) as bar:

        def one(out: Path, task: TaskID) -> Outcome:
            def echo(line: str) -> None:
                progress = read_progress(out)
                if progress is not None:
                    reward = progress.get("reward", float("nan"))
                    bar.update(task, completed=progress["step"], state=f"reward {reward:.3f}")

            with only_writer(out, PATIENCE) as lock:
                check_folder(configs[out], out)  # again: another call may have written it meanwhile
                records.reopen(out)
                bar.start_task(task)
                bar.update(task, state="starting")
                outcome = train(configs[out], out, limits, echo, stop, [lock])
                if outcome.reason == "finished":
                    records.finish(out, outcome.seconds)
            return outcome

        with ThreadPoolExecutor(jobs) as pool, interruptible():
            futures = {}
            for out, config in configs.items():
                name = STOCK if config.dynamo.stock else config.dynamo.method
                total = int(config.trainer.total_training_steps)
                futures[pool.submit(one, out, bar.add_task(name, start=False, total=total, state="waiting"))] = out
            try:
                for future in as_completed(futures):
                    out, outcome = futures[future], future.result()
                    if outcome.reason != "finished":
                        console.print(outcome.cause(), soft_wrap=True, style="red")
                        console.print(f"log: {out / LOG}; the same command resumes", soft_wrap=True)
                        return 1
                    steps = configs[out].trainer.total_training_steps
                    done = f"{steps} steps, {outcome.seconds:.0f} s, written to {out}"
                    console.print(done, soft_wrap=True)
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
    return 0
