"""Running sweeps: every cell is a run folder SWEEP/CELL, trained in this process or in several, and then a summary.

Killed at any moment, the same call goes on: finished cells are not trained again, others resume at their last
checkpoint. Results do not depend on the number of processes. A missing file is made again; one that was changed is an
error. A sweep that is whole is read, and nothing is written.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch

from theory.base import files, require, runs
from theory.base.processes import end_with_parent
from theory.base.text import plain
from theory.methods import METHODS
from toy.experiments import summary
from toy.experiments.design import Sweep
from toy.experiments.summary import SummaryRow
from toy.training import TrainConfig, train
from toy.training.loop import FILES, get_device, is_finished, saying_what_to_do
from toy.worlds import WORLDS

logger = logging.getLogger(__name__)

Progress = Callable[[Path, int], None]
"""Called with a cell's folder and the number of its steps that are done."""

Cells = Mapping[Path, TrainConfig]


def run_sweeps(
    sweeps: Sequence[Sweep],
    out: Path,
    *,
    jobs: int = 1,
    checkpoint_every: int = 20,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Iterator[tuple[Sweep, list[SummaryRow]]]:
    """Run sweeps, or what is left of them; yield each with its summary, also written to its folder, when it is done.

    Parameters
    ----------
    out : Folder of all sweeps; sweep s has the folder out/s. Another run in it, a longer or a damaged one is an error.
    jobs : Processes, >= 1, each with one thread; 1 trains in this process.
    checkpoint_every, device : As in `toy.training.train`.
    progress : Called in this process.
    """
    require.count("jobs", jobs, 1)
    get_device(device)
    cells = {out / sweep.name / cell.name: cell.config for sweep in sweeps for cell in sweep.cells}
    finished = [folder for folder, config in cells.items() if is_finished(folder, config)]
    report = progress or _silent
    with ExitStack() as stack:
        written: set[Path] = set()

        def write_in(folder: Path) -> None:
            if folder not in written:
                stack.enter_context(files.only_writer(folder))
                written.add(folder)

        for folder in cells:
            if folder not in finished:
                write_in(folder.parent)
        # Another process may have gone on until it gave up its folder.
        finished = [folder for folder, config in cells.items() if folder in finished or is_finished(folder, config)]
        yield from _run(sweeps, out, cells, finished, write_in, jobs, checkpoint_every, report, device)


def _run(
    sweeps: Sequence[Sweep],
    out: Path,
    cells: Cells,
    finished: Sequence[Path],
    write_in: Callable[[Path], None],
    jobs: int,
    checkpoint_every: int,
    report: Progress,
    device: str,
) -> Iterator[tuple[Sweep, list[SummaryRow]]]:
    for folder in finished:
        report(folder, cells[folder].num_steps)
    # Sweeps share runs: of the cells with one config one is trained, unless it is there already; the others are copies.
    originals: dict[TrainConfig, Path] = {}
    for folder in (*finished, *cells):
        originals.setdefault(cells[folder], folder)
    copies: dict[Path, list[Path]] = {folder: [] for folder in originals.values()}
    todo: dict[Path, TrainConfig] = {}
    for folder, config in cells.items():
        # A finished run that lacks a file is repaired, not replaced: it may be of other software.
        if folder not in finished and (originals[config] == folder or (folder / runs.VERSIONS_FILE).exists()):
            todo[folder] = config
        elif folder not in finished:
            copies[originals[config]].append(folder)
    left = {sweep.name: {out / sweep.name / cell.name for cell in sweep.cells} for sweep in sweeps}
    waiting = {sweep.name: sweep for sweep in sweeps}

    def settle(folder: Path) -> Iterator[tuple[Sweep, list[SummaryRow]]]:
        """Copy a finished cell to the sweeps that share it, and conclude every sweep that is complete."""
        for copy in copies.get(folder, []):
            _copy(folder, copy)
            report(copy, cells[copy].num_steps)
        for each in (folder, *copies.get(folder, [])):
            left[each.parent.name].discard(each)
        for name in [name for name in waiting if not left[name]]:
            yield waiting[name], conclude(waiting.pop(name), out, write_in)

    for folder in finished:
        yield from settle(folder)
    train_all = _train_here if min(jobs, len(todo)) <= 1 else _train_in_processes
    for folder in train_all(todo, jobs, checkpoint_every, report, device):
        yield from settle(folder)


def conclude(sweep: Sweep, out: Path, write_in: Callable[[Path], None]) -> list[SummaryRow]:
    """Summarise a finished sweep and write what it found, unless that is there."""
    folder = out / sweep.name
    rows = summary.summarise(sweep, folder)
    chosen = None
    if sweep.chooses is not None:
        chosen = choices(sweep, rows)
    elif sweep.equalizes is not None:
        chosen = equal_rates(sweep, rows)
    with saying_what_to_do():
        missing = summary.missing(sweep, rows, folder, chosen)
    if missing:
        write_in(folder)
        for name in missing if (folder / summary.JSON).exists() else ():
            logger.warning("%s: missing in a finished sweep; made again", plain(folder / name))
        summary.write(sweep, rows, folder, chosen)
    return rows


def choices(sweep: Sweep, rows: Sequence[SummaryRow]) -> dict[str, Any]:
    """Return the best value of the axis `sweep.chooses` in every block, by the sweep's first measure.

    `at_edge` says whether it is the first or last one tried, so that a better one may lie beyond.
    """
    axis, measure = str(sweep.chooses), sweep.measures[0]
    tried = list(dict.fromkeys(cell.axes[axis] for cell in sweep.cells))
    best = summary.leaders(sweep, rows, measure)
    return {
        "criterion": f"largest {summary.title(measure)}, aggregated over seeds",
        "seeds": list(sweep.cells[0].config.seeds),
        "tried": tried,
        "chosen": [
            {
                **{name: row.axes[name] for name in (*sweep.blocks, axis)},
                measure: row.value,
                "at_edge": row.axes[axis] in (tried[0], tried[-1]),
            }
            for row in best
        ],
    }


def equal_rates(sweep: Sweep, rows: Sequence[SummaryRow]) -> dict[str, Any]:
    """Return the learning rate of every cell, times what the reference has of `sweep.equalizes` over what it has."""
    measure = str(sweep.equalizes)
    values = {
        row.cell: require.in_range(f"{measure} of {row.cell}", row.value, 0.0, open_low=True)
        for row in rows
        if row.measure == measure
    }
    chosen = []
    for cell in sweep.cells:
        ratio = values[cell.name] / values[sweep.reference_of(cell).name]
        rate = f"{cell.config.optimizer.learning_rate / ratio:g}"
        chosen.append({**cell.axes, "learning_rate": rate, measure: values[cell.name], "ratio": ratio})
    return {
        "criterion": f"{summary.title(measure)}, aggregated over seeds, made equal to the reference's",
        "seeds": list(sweep.cells[0].config.seeds),
        "num_steps": sweep.cells[0].config.num_steps,
        "chosen": chosen,
    }


def read_choices(path: Path) -> list[dict[str, Any]]:
    """Read the choices of a sweep from its `chosen.json`: world, method and learning rate, each pair once."""
    chosen = files.read_json(path).get("chosen")
    try:
        if not isinstance(chosen, list):
            raise ValueError(f"expected a list, got {chosen!r:.80}")
        for choice in chosen:
            kinds: dict[str, tuple[type, ...]] = dict.fromkeys(("world", "method", "learning_rate"), (str,))
            files.check_fields(choice, kinds, "choice")
            require.one_of("world", choice["world"], WORLDS)
            require.one_of("method", choice["method"], METHODS)
            rate = require.in_range("learning_rate", float(choice["learning_rate"]), 0.0, open_low=True)
            if f"{rate:g}" != choice["learning_rate"]:
                raise ValueError(f"learning_rate: expected {rate:g}, got {choice['learning_rate']!r:.80}")
        pairs = [(choice["world"], choice["method"]) for choice in chosen]
        if len(set(pairs)) < len(pairs):
            raise ValueError("expected one choice for a method in a world, got several")
    except ValueError as error:
        raise ValueError(f"{path}: expected choices as the sweep tuning writes them: {error}") from error
    return chosen


def _silent(folder: Path, step: int) -> None:
    """Report nothing."""


def _copy(folder: Path, copy: Path) -> None:
    """Copy a finished run, its `versions.json` last; an unfinished copy is replaced."""
    hashes = runs.read_versions(folder, FILES)["files"]
    versions = files.read_bytes(folder / runs.VERSIONS_FILE)
    with files.only_writer(copy):
        if not (copy / runs.CONFIG_FILE).exists() and (found := [name for name in FILES if (copy / name).exists()]):
            raise ValueError(f"{copy / found[0]}: expected it beside a {runs.CONFIG_FILE}, got none; move it away")
        (copy / runs.VERSIONS_FILE).unlink(missing_ok=True)
        for name in FILES:
            files.write_atomically(copy / name, files.read_hashed(folder / name, hashes, folder / runs.VERSIONS_FILE))
        files.write_atomically(copy / runs.VERSIONS_FILE, versions)


# Training


def _train_here(cells: Cells, jobs: int, checkpoint_every: int, progress: Progress, device: str) -> Iterator[Path]:
    for folder, config in cells.items():
        report = partial(_report, progress, folder)
        train(config, out=folder, checkpoint_every=checkpoint_every, progress=report, device=device)
        yield folder


def _report(progress: Progress, folder: Path, step: int, _: float) -> None:
    progress(folder, step)


def _train_in_processes(
    cells: Cells, jobs: int, checkpoint_every: int, progress: Progress, device: str
) -> Iterator[Path]:
    context = multiprocessing.get_context("spawn")  # A fork would copy half of torch's state.
    steps: SimpleQueue[tuple[Path, int]] = context.SimpleQueue()
    # A closed pipe says stop. An event has a lock, which a worker that is killed while it looks would hold for good.
    stop, stopper = context.Pipe(duplex=False)
    with ProcessPoolExecutor(jobs, context, _start_worker, (steps, stop)) as pool:
        try:
            with _ignoring_interrupts():
                futures = {
                    pool.submit(_train_cell, folder, cells[folder], checkpoint_every, device): folder
                    for folder in cells
                }
            left = set(futures)
            while left:
                done, left = wait(left, timeout=0.1, return_when=FIRST_COMPLETED)
                while not steps.empty():
                    progress(*steps.get())
                for future in done:
                    future.result()
                    yield futures[future]
        except BrokenProcessPool as error:
            reason = "expected training processes that go on, got one that was killed, as for lack of memory"
            raise ChildProcessError(reason) from error
        finally:
            stopper.close()
            pool.shutdown(cancel_futures=True)


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, as children inherit that: this process alone reacts, and stops them."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


class _Stopped(Exception):
    """The parent process has asked this one to stop."""


_steps: SimpleQueue[tuple[Path, int]]
_stop: Connection


def _start_worker(steps: SimpleQueue[tuple[Path, int]], stop: Connection) -> None:
    global _steps, _stop
    _steps, _stop = steps, stop
    torch.set_num_threads(1)
    end_with_parent()


def _train_cell(folder: Path, config: TrainConfig, checkpoint_every: int, device: str) -> None:
    def progress(step: int, _: float) -> None:
        _steps.put((folder, step))
        if _stop.poll():
            raise _Stopped

    train(config, out=folder, checkpoint_every=checkpoint_every, progress=progress, device=device)
