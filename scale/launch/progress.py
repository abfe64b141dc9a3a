"""Runs under a progress bar, a few at a time: asked to stop by SIGTERM, and started again after a failure."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import TaskID, TimeElapsedColumn

from scale.launch.checks import check_folder
from scale.launch.limits import Limits, in_time
from scale.launch.start import train
from scale.run import Outcome, interruptible, read_progress, records
from scale.run.supervisor import LOG, PATIENCE
from theory.base import terminal
from theory.base.files import only_writer
from theory.base.terminal import Console
from theory.methods import STOCK

STOPPED_STATUS = 75
"""Exit status of a call whose runs were asked to stop and have saved: EX_TEMPFAIL, the same command goes on."""

PAUSE = 10.0
"""Seconds before a run is started again, twice as many with each restart without a new checkpoint."""


class Restarts:
    """Decides whether a run that has ended is started again.

    A run that failed or hung counts, one that was interrupted, stopped or at its deadline does not. A new checkpoint
    sets the count back. Two ends of the same kind at the same step, without a new checkpoint in between, are the last.
    """

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self.before: tuple[Any, ...] | None = None
        self.checkpoint: str | None = None

    def refusal(self, outcome: Outcome, checkpoint: str | None) -> str | None:
        """Return why the run is not started again, or None, which counts as a restart; `checkpoint` is its last."""
        if outcome.reason not in ("failed", "silence"):
            return f"it was not a failure: {outcome.reason}"
        if checkpoint != self.checkpoint:
            self.checkpoint, self.count, self.before = checkpoint, 0, None
        first = outcome.failures[0] if outcome.failures else None
        kind = (first.where, first.type) if first else (outcome.phase, outcome.returncode)
        here = (outcome.step, outcome.reason, *kind)
        if self.most and here == self.before:
            return f"it ended twice in the same way after step {outcome.step}, without a new checkpoint"
        if self.count >= self.most:
            return f"it was started again {self.count} times without a new checkpoint" if self.most else "no --restarts"
        self.before = here
        self.count += 1
        return None

    @property
    def pause(self) -> float:
        """Return the seconds to wait before the next start."""
        return float(PAUSE * 2 ** (self.count - 1))


def train_all(configs: Mapping[Path, Any], limits: Mapping[Path, Limits], console: Console, jobs: int = 1) -> int:
    """Run verl with a progress bar for every run, until all have finished or one has failed; returns the exit status.

    `configs` and `limits` have checked configurations, and limits, by the run's folder; at most `jobs` run at a time. A
    failure or Ctrl-C ends all runs. SIGTERM asks all to save and to end, and a second one ends them at once.
    """
    stop, ask = threading.Event(), threading.Event()

    def asked() -> bool:
        first = not ask.is_set()
        ask.set()
        return first

    with terminal.progress(console, "{task.fields[state]}", TimeElapsedColumn()) as bar:

        def one(out: Path, task: TaskID) -> Outcome:
            def echo(line: str) -> None:
                progress = None
                with contextlib.suppress(ValueError):  # The next line shows what cannot be read now.
                    progress = read_progress(out)
                if progress is not None:
                    reward = progress.get("reward", float("nan"))
                    state = f"{progress.get('phase', '')}, reward {reward:.3f}"
                    bar.update(task, completed=progress["step"], state=state)

            with only_writer(out, PATIENCE) as lock:
                check_folder(configs[out], out)  # again: another call may have written it meanwhile
                records.reopen(out)
                bar.start_task(task)
                restarts, begun, allowed = Restarts(limits[out].restarts), time.monotonic(), limits[out]
                while True:
                    bar.update(task, state="starting")
                    if ask.is_set():
                        return Outcome("stopped", 0, 0.0)
                    outcome = train(configs[out], out, allowed, echo, stop, ask, [lock])
                    latest = records.latest_checkpoint(out)
                    over = stop.is_set() or ask.is_set()  # One that failed when it should have saved has failed.
                    if over or restarts.refusal(outcome, latest.name if latest else None):
                        break
                    left = limits[out].deadline - (time.monotonic() - begun) - restarts.pause
                    if left <= 0:
                        break
                    allowed = replace(allowed, deadline=left)
                    place = latest.name if latest else "its beginning"
                    console.print(
                        f"{outcome.cause()}; restart {restarts.count} of {restarts.most} from {place} in "
                        f"{in_time(restarts.pause)}",
                        soft_wrap=True,
                    )
                    _wait(restarts.pause, stop, ask)
                if outcome.reason == "finished":
                    records.finish(out, outcome.seconds)
            return outcome

        with ThreadPoolExecutor(jobs) as pool, interruptible(asked):
            futures = {}
            for out, config in configs.items():
                name = STOCK if config.dynamo.stock else config.dynamo.method
                total = int(config.trainer.total_training_steps)
                futures[pool.submit(one, out, bar.add_task(name, start=False, total=total, state="waiting"))] = out
            status = 0
            try:
                for future in as_completed(futures):
                    out, outcome = futures[future], future.result()
                    if outcome.reason == "stopped":
                        console.print(f"{outcome.cause()}; the same command resumes", soft_wrap=True)
                        status = STOPPED_STATUS
                        continue
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
    return status


def _wait(seconds: float, *events: threading.Event) -> None:
    """Wait, but not for longer than until one of the events is set."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(event.is_set() for event in events):
        time.sleep(0.1)
