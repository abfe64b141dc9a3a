"""A training run: its steps one after the other, what they measured, its checkpoints and its folder.

What a step does is in `toy.training.step`. A run of 2 N steps equals one of N steps that is saved, loaded, and goes on
for N more, to the same bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from theory.base import files, require, runs
from theory.base.arrays import FloatArray
from toy.training import checkpoint, diagnostics, metrics
from toy.training.config import TrainConfig
from toy.training.state import Setup, State
from toy.training.step import step

DEVICES = ("cpu", "cuda")

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
        damaged or lacks something is a `ValueError` that names it.
        """
        arrays, data = checkpoint.load(path)
        needed = ["config", "num_steps", "optimizer_steps", "histories", "seconds", "logits"]
        needed += [f"optimizer.{name}" for name in self.state.optimizer.state]
        needed += [f"metrics.{name}" for name in metrics.METRICS]
        missing = [name for name in needed if name not in arrays and name not in data]
        if missing:
            raise ValueError(f"{path}: expected a checkpoint of this trainer, got one without {', '.join(missing)}")
        require_same(path, data["config"], self.setup.config)
        if data["num_steps"] > self.setup.config.num_steps:
            raise ValueError(f"num_steps: expected at least the {data['num_steps']} done in {path.parent}, got fewer")
        self.state.num_steps, self.state.optimizer.num_steps = data["num_steps"], data["optimizer_steps"]
        self.state.logits.copy_(torch.from_numpy(arrays["logits"]))
        for name, x in self.state.optimizer.state.items():
            x.copy_(torch.from_numpy(arrays[f"optimizer.{name}"]))
        for history, state in zip(self.state.histories, data["histories"], strict=True):
            history.load_state_dict(state)
        self.metrics = {name: list(arrays[f"metrics.{name}"].T) for name in metrics.METRICS}
        # Older checkpoints have no list of software.
        self.software = [*(used for used in data.get("software", []) if used != self.software[-1]), self.software[-1]]
        return float(data["seconds"])


def get_device(name: str) -> torch.device:
    """Return one of `DEVICES` by name; it must be on this machine."""
    require.one_of("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected cpu, for torch finds no CUDA device, got cuda")
    return torch.device(name)


def require_same(path: Path, recorded: dict[str, Any], config: TrainConfig) -> None:
    """Require that `path` belongs to a run of this config; `num_steps` may differ, so that a run can be extended."""
    different = [name for name in runs.differences(recorded, config.to_dict()) if name != "num_steps"]
    if different:
        raise ValueError(
            f"{path}: expected a run of the same config, got one that differs in {', '.join(different)}; "
            "choose another folder, or the config that is in this one"
        )


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
        the same config in it is resumed from its last checkpoint; so is a finished one of fewer steps. Another
        config, or a damaged checkpoint, is an error.
    checkpoint_every : Steps between two checkpoints, >= 1; without effect on the result.
    progress : Called after every step.
    device : One of `DEVICES`. Draws, allocation and histories are the CPU's on all of them; results of "cuda" agree
        with those of "cpu" up to rounding, and are not promised to repeat to the bit.
    """
    require.count("checkpoint_every", checkpoint_every, 1)
    start = time.perf_counter()
    if out is not None and (out / runs.CONFIG_FILE).exists():
        require_same(out / runs.CONFIG_FILE, files.read_json(out / runs.CONFIG_FILE), config)
    trainer = Trainer(config, device)
    saved = None if out is None else out / checkpoint.NAME
    if saved is not None and saved.exists():
        start -= trainer.load(saved)
    if out is not None and (trainer.state.num_steps < config.num_steps or not (out / runs.VERSIONS_FILE).exists()):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"out: expected a folder, got {out} ({error.strerror})") from error
        (out / runs.VERSIONS_FILE).unlink(missing_ok=True)
        files.write_json(out / runs.CONFIG_FILE, config.to_dict())
    while trainer.state.num_steps < config.num_steps:
        trainer.step()
        if saved is not None and (
            trainer.state.num_steps % checkpoint_every == 0 or trainer.state.num_steps == config.num_steps
        ):
            trainer.save(saved, time.perf_counter() - start)
        if progress is not None:
            progress(trainer.state.num_steps, float(trainer.metrics["pass_at_1"][-1].mean()))
    run = Run(config, trainer.result(), trainer.state.logits.cpu().numpy(), time.perf_counter() - start)
    if out is not None and not (out / runs.VERSIONS_FILE).exists():
        runs.write_metrics(out / runs.METRICS_FILE, run.columns())
        runs.finish(out, config.seeds, run.seconds, trainer.software)
    return run
