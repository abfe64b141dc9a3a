"""A training run: its steps one after the other, what they measured, its checkpoints and its folder.

What a step does is in `toy.training.step`. A run of 2 N steps equals one of N steps that is saved, loaded, and goes on
for N more, to the same bit.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from theory.allocation import SuccessHistory
from theory.base import files, require, runs
from theory.base.arrays import FloatArray
from theory.base.text import plain
from toy.training import checkpoint, diagnostics, metrics
from toy.training.config import TrainConfig
from toy.training.state import Setup, State
from toy.training.step import step

logger = logging.getLogger(__name__)

DEVICES = ("cpu", "cuda")

FILES = (runs.CONFIG_FILE, runs.METRICS_FILE, checkpoint.NAME)
"""Files of a finished run, beside `versions.json`, which has their SHA-256."""

Progress = Callable[[int, float], None]
"""Called after every step with the number of steps done and the mean pass@1."""


@dataclass(frozen=True)
class Run:
    """What `train` returns.

    Attributes
    ----------
    metrics : Every column of `toy.training.METRICS`, [S, steps + 1]; NaN in column 0 of the metrics of a step.
    logits : The tables after training, [S, R, K].
    seconds : Time spent training, resumed parts included.
    """

    config: TrainConfig
    metrics: dict[str, FloatArray]
    logits: FloatArray
    seconds: float

    def columns(self) -> dict[str, Any]:
        """Return the table of `metrics.parquet`: one row per seed and step."""
        num_seeds, num_rows = self.metrics["pass_at_1"].shape
        return {
            "seed": np.repeat(np.array(self.config.seeds, dtype=np.int64), num_rows),
            "step": np.tile(np.arange(num_rows), num_seeds),
            **{name: values.reshape(-1) for name, values in self.metrics.items()},
        }


class Trainer:
    """A run between two steps: what stays, what changes, and the metrics so far.

    `software` lists the versions and the device of all parts of the run, this one's last.
    """

    def __init__(self, config: TrainConfig, device: str = "cpu") -> None:
        self.setup = Setup.draw(config, get_device(device))
        self.state = State.before_training(self.setup)
        self.software = [{**runs.software(), "device": device}]
        self.metrics: dict[str, list[FloatArray]] = {name: [] for name in metrics.METRICS}
        self._record({})

    def step(self) -> None:
        """Do one step, and record it."""
        every = self.setup.config.diagnose_every
        due = every and (self.state.num_steps + 1) % every == 0
        inspect = partial(diagnostics.of_step, self.setup, self.state) if due else None
        self._record(step(self.setup, self.state, inspect))

    def result(self) -> dict[str, FloatArray]:
        """Return the metrics so far, each [S, steps + 1]."""
        return {name: np.stack(rows, axis=1) for name, rows in self.metrics.items()}

    def _record(self, measured: dict[str, FloatArray]) -> None:
        absent = {name: np.full(len(self.setup.worlds), np.nan) for name in metrics.METRICS}
        policy = metrics.evaluate(self.state.logits, self.setup.correct, self.setup.rows, self.setup.tokens)
        metrics.require_finite(policy | measured)
        for name, values in (absent | policy | measured).items():
            self.metrics[name].append(values)

    def save(self, path: Path, seconds: float) -> None:
        """Write a checkpoint."""
        arrays = {"logits": self.state.logits.cpu().numpy()}
        arrays |= {f"optimizer.{name}": x.cpu().numpy() for name, x in self.state.optimizer.state.items()}
        arrays |= {f"metrics.{name}": x for name, x in self.result().items()}
        data = {
            "config": self.setup.config.to_dict(),
            "num_steps": self.state.num_steps,
            "optimizer_steps": self.state.optimizer.num_steps,
            "histories": [history.state_dict() for history in self.state.histories],
            "software": self.software,
            "seconds": seconds,
        }
        checkpoint.save(path, arrays, data)

    def load(self, path: Path) -> float:
        """Take over a checkpoint of the same config (`num_steps` apart); returns the seconds it took.

        A checkpoint of other software, or from another device, is taken over too; `software` lists both. A file that is
        damaged, lacks something or holds something else is a `ValueError` that names it, and changes nothing.
        """
        arrays, data = checkpoint.load(path)
        config, optimizer = self.setup.config, self.state.optimizer
        kinds = {
            "config": (dict,), "num_steps": (int,), "optimizer_steps": (int,), "histories": (list,),
            "software": (list,), "seconds": (int, float),
        }  # fmt: skip
        tables = ["logits", *(f"optimizer.{name}" for name in optimizer.state)]
        needed = [*kinds, *tables, *(f"metrics.{name}" for name in metrics.METRICS)]
        there = {*arrays, *data}
        if missing := [name for name in needed if name not in there]:
            raise ValueError(f"{path}: expected a checkpoint of this trainer, got one without {', '.join(missing)}")
        if others := sorted(there - set(needed)):
            raise ValueError(f"{path}: expected a checkpoint of this trainer, got one with {', '.join(others):.200}")
        files.check_fields(data, kinds, str(path))
        require_same(path, data["config"], config)
        try:
            num_steps = require.count("num_steps", data["num_steps"])
            steps_of_optimizer = num_steps * config.num_epochs * config.num_minibatches
            if data["optimizer_steps"] != steps_of_optimizer:
                raise ValueError(f"optimizer_steps: expected {steps_of_optimizer}, got {data['optimizer_steps']}")
            seconds = require.in_range("seconds", data["seconds"], 0.0)
            for used in data["software"]:
                if not isinstance(used, dict) or not all(isinstance(value, str) for value in used.values()):
                    raise ValueError(f"software: expected versions as text, got {used!r:.80}")
            for name in tables:
                _require_shape(name, arrays[name], tuple(self.state.logits.shape))
                if not np.isfinite(arrays[name]).all():
                    raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
            if "optimizer.second_moment" in arrays and (arrays["optimizer.second_moment"] < 0).any():
                raise ValueError("optimizer.second_moment: expected squares, got numbers below 0")
            measured = {name: arrays[f"metrics.{name}"] for name in metrics.METRICS}
            self._require_metrics(measured, num_steps)
            histories = self._histories(data["histories"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if num_steps > config.num_steps:
            raise ValueError(f"num_steps: expected at least the {num_steps} done in {path.parent}, got fewer")
        self.state.num_steps, optimizer.num_steps, self.state.histories = num_steps, steps_of_optimizer, histories
        self.state.logits.copy_(torch.from_numpy(arrays["logits"]))
        for name, x in optimizer.state.items():
            x.copy_(torch.from_numpy(arrays[f"optimizer.{name}"]))
        self.metrics = {name: list(values.T) for name, values in measured.items()}
        self.software = [*(used for used in data["software"] if used != self.software[-1]), self.software[-1]]
        return seconds

    def _require_metrics(self, measured: Mapping[str, FloatArray], num_steps: int) -> None:
        """Require metrics as `result` returns them after so many steps."""
        for name, values in measured.items():
            _require_shape(f"metrics.{name}", values, (len(self.setup.worlds), num_steps + 1))
            if name not in metrics.POLICY and not np.isnan(values[:, 0]).all():
                raise ValueError(f"metrics.{name}: expected nothing before the first step, got a number")
        metrics.require_finite({name: x if name in metrics.POLICY else x[:, 1:] for name, x in measured.items()})

    def _histories(self, states: list[Any]) -> list[SuccessHistory]:
        """Return the histories of saved states, one of every seed, of prompts of its world."""
        if len(states) != len(self.setup.worlds):
            raise ValueError(f"histories: expected one of each of {len(self.setup.worlds)} seeds, got {len(states)}")
        histories = [SuccessHistory(self.setup.config.history_discount) for _ in states]
        for history, state in zip(histories, states, strict=True):
            history.load_state_dict(state)
            if unknown := [key for key in state["keys"] if key not in self.setup.keys]:
                raise ValueError(f"histories: expected prompts of the world, got {unknown[0]!r:.80}")
        return histories


def _require_shape(name: str, values: np.ndarray[Any, Any], shape: tuple[int, ...]) -> None:
    if values.shape != shape or values.dtype != np.float64:
        raise ValueError(f"{name}: expected float64 {shape}, got {values.dtype} {values.shape}")


def get_device(name: str) -> torch.device:
    """Return one of `DEVICES` by name; it must be on this machine."""
    require.one_of("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected cpu, for torch finds no CUDA device, got cuda")
    return torch.device(name)


def require_same(path: Path, recorded: dict[str, Any], config: TrainConfig) -> None:
    """Require that `path` belongs to a run of this config; `num_steps` may differ, so that a run can be extended.

    A setting that the run's software did not know yet has its default.
    """
    defaults = {f.name: f.default for f in fields(config) if f.default is not MISSING}
    different = [name for name in runs.differences(defaults | recorded, config.to_dict()) if name != "num_steps"]
    if different:
        raise ValueError(
            f"{path}: expected a run of the same config, got one that differs in {', '.join(different)}; "
            "choose another folder, or the config that is in this one"
        )


def is_finished(folder: Path, config: TrainConfig) -> bool:
    """Return whether a folder holds the whole finished run of a config, so that nothing is left to train or to write.

    It does not while files are missing, or steps. The run of another config, and a file that was changed since the run
    has ended, are a `ValueError` that names the file.
    """
    return not _missing(folder) and _recorded_steps(folder, config) == config.num_steps


def _missing(folder: Path) -> list[str]:
    """Return the names of a finished run's files that are not in a folder."""
    return [name for name in (*FILES, runs.VERSIONS_FILE) if not os.path.lexists(folder / name)]


def _recorded_steps(folder: Path, config: TrainConfig) -> Any:
    """Return the steps that the config in a folder has; None without one. What is there must be as it was written."""
    missing = _missing(folder)
    recorded: dict[str, Any] | None = None
    if runs.CONFIG_FILE not in missing:
        with saying_what_to_do():
            recorded = files.read_json(folder / runs.CONFIG_FILE)
        require_same(folder / runs.CONFIG_FILE, recorded, config)
    if runs.VERSIONS_FILE not in missing:
        with saying_what_to_do():
            hashes = runs.read_versions(folder, (checkpoint.NAME,))["files"]
            there = {name: hashes[name] for name in FILES if name not in missing}
            files.check_hashes(folder, there, folder / runs.VERSIONS_FILE)
    return None if recorded is None else recorded.get("num_steps")


@contextmanager
def saying_what_to_do() -> Iterator[None]:
    """Add to an error of a file that the same command makes a missing one again."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; move it away, and the same command does") from error


def train(
    config: TrainConfig,
    *,
    out: Path | None = None,
    checkpoint_every: int = 20,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Run:
    """Train, or resume the training in `out`; the result is the same to the bit.

    That is promised for the CPU and the same versions of the software; `versions.json` lists what made a run, and what
    made earlier parts of it if that was something else.

    Parameters
    ----------
    out : Folder of the run (`theory.base.runs`), made if missing; None keeps everything in memory. An unfinished run of
        the same config in it is resumed from its last checkpoint; so is a finished one of fewer steps. A finished one
        is read, and its missing files are made again. Another config, a file that was changed, or another process that
        writes the folder is an error.
    checkpoint_every : Steps between two checkpoints, >= 1; without effect on the result.
    progress : Called after every step.
    device : One of `DEVICES`. Draws, allocation and histories are the CPU's on all of them; results of "cuda" agree
        with those of "cpu" up to rounding, and are not promised to repeat to the bit.
    """
    require.count("checkpoint_every", checkpoint_every, 1)
    get_device(device)
    start = time.perf_counter()
    if out is None:
        return _train(Trainer(config, device), start, progress)
    if is_finished(out, config):
        trainer = Trainer(config, device)
        return _train(trainer, start - trainer.load(out / checkpoint.NAME), progress)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out: expected a folder, got {out} ({error.strerror})") from error
    with files.only_writer(out):
        return _train_in(out, Trainer(config, device), start, progress, checkpoint_every)


def _train(
    trainer: Trainer,
    start: float,
    progress: Progress | None = None,
    saved: Path | None = None,
    checkpoint_every: int = 1,
) -> Run:
    """Do the steps that are left, with a checkpoint at `saved` every so often."""
    config, state = trainer.setup.config, trainer.state
    while state.num_steps < config.num_steps:
        trainer.step()
        if saved is not None and (state.num_steps % checkpoint_every == 0 or state.num_steps == config.num_steps):
            trainer.save(saved, time.perf_counter() - start)
        if progress is not None:
            progress(state.num_steps, float(trainer.metrics["pass_at_1"][-1].mean()))
    return Run(config, trainer.result(), state.logits.cpu().numpy(), time.perf_counter() - start)


def _train_in(out: Path, trainer: Trainer, start: float, progress: Progress | None, checkpoint_every: int) -> Run:
    """Do what is left of a run in its folder, which no other process writes: steps, and files that are missing."""
    config, saved, versions = trainer.setup.config, out / checkpoint.NAME, out / runs.VERSIONS_FILE
    recorded_steps, missing = _recorded_steps(out, config), _missing(out)
    was_finished, was_saved = versions.name not in missing, saved.name not in missing
    for name in missing if was_finished else ():
        logger.warning("%s: missing in a finished run; made again", plain(out / name))
    if was_saved:
        start -= trainer.load(saved)
        if not missing and recorded_steps == config.num_steps:  # another process has finished it just now
            return _train(trainer, start)
    elif was_finished:
        run = _train(trainer, start, progress)
        if runs.METRICS_FILE not in missing:
            _require_same_metrics(out, run)
    elif runs.METRICS_FILE not in missing:
        raise ValueError(
            f"{out / runs.METRICS_FILE}: expected it with its checkpoint or its {versions.name}, got it alone; move it "
            "away to start again"
        )
    versions.unlink(missing_ok=True)
    files.write_json(out / runs.CONFIG_FILE, config.to_dict())
    run = _train(trainer, start, progress, saved, checkpoint_every)
    if not saved.exists():
        trainer.save(saved, run.seconds)
    runs.write_metrics(out / runs.METRICS_FILE, run.columns())
    runs.finish(out, config.seeds, run.seconds, trainer.software, (checkpoint.NAME,))
    return run


def _require_same_metrics(out: Path, run: Run) -> None:
    """Require what a finished run has measured to begin `run`, which was trained again because its checkpoint is lost.

    It does with the same software. Otherwise the folder holds the only copy.
    """
    path, record = out / runs.METRICS_FILE, out / runs.VERSIONS_FILE
    table = runs.read_table(path, runs.read_versions(out)["files"], record)
    found = runs.select(table, path, integers=("seed", "step"), numbers_or_null=tuple(metrics.METRICS))
    columns = run.columns()
    rows = columns["step"] <= found["step"].max()
    if not all(np.array_equal(columns[name][rows], found[name], equal_nan=True) for name in columns):
        raise ValueError(
            f"{out / checkpoint.NAME}: expected the checkpoint of the finished run, got none, and training again gives "
            f"other numbers than {path.name} has; choose another folder"
        )
