"""Finished runs at scale, found below `scale/` and distinguished by their configurations, never by folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from paper_figs.result_files import Curves, made_by, unfit
from theory.base import require, runs
from theory.base.runs import lookup
from theory.methods import STOCK

CURVES: Mapping[str, str] = MappingProxyType(
    {
        "entropy": r"actor/entropy",
        "gradient_norm": r"actor/grad_norm",
        "pass_at_1": r"val-core/.+/mean@\d+",
        "pass_at_32": r"val-(core|aux)/.+/best@32/mean",
        "seconds_per_step": r"timing_s/step",
    }
)
"""verl's names of our metrics, as patterns; where several fit, as for several benchmarks, their mean is taken."""


def _setting(config: Mapping[str, Any], path: str) -> Any:
    """Return a setting that is no list or section."""
    value = lookup(config, path)
    if isinstance(value, (Mapping, list)):
        raise ValueError(f"a single value of {path}")
    return value


def model_name(config: Mapping[str, Any]) -> str:
    """Return the name of the model: the last telling part of its path.

    Examples
    --------
    >>> model_name({"actor_rollout_ref": {"model": {"path": "Qwen/Qwen2.5-Math-7B"}}})
    'Qwen2.5-Math-7B'
    >>> model_name({"actor_rollout_ref": {"model": {"path": "/runs/tiny/model"}}})
    'tiny'
    """
    parts = [part for part in str(_setting(config, "actor_rollout_ref.model.path")).split("/") if part]
    return next((part for part in reversed(parts) if part not in ("model", "huggingface")), "model")


def method_name(config: Mapping[str, Any]) -> str:
    """Return the name of the method; verl's own GRPO has one of its own."""
    stock = _setting(config, "dynamo.stock")
    if not isinstance(stock, bool):
        raise ValueError("true or false as dynamo.stock")
    return STOCK if stock else str(_setting(config, "dynamo.method"))


AXES: Mapping[str, Callable[[Mapping[str, Any]], str]] = MappingProxyType(
    {
        "model": model_name,
        "method": method_name,
        "rollouts": lambda c: f"{_setting(c, 'actor_rollout_ref.rollout.n')}",
        "bounds": lambda c: f"{_setting(c, 'dynamo.rollouts_low')}-{_setting(c, 'dynamo.rollouts_high')}",
        "allocator": lambda c: str(_setting(c, "dynamo.allocator")),
        "alpha": lambda c: str(_setting(c, "dynamo.alpha")),
        "aggregation": lambda c: str(_setting(c, "dynamo.aggregation")),
        "discount": lambda c: f"{_setting(c, 'dynamo.history_discount')}",
        "scope": lambda c: str(_setting(c, "dynamo.scope")),
        "prompts": lambda c: f"{_setting(c, 'data.train_batch_size')}",
        "response": lambda c: f"{_setting(c, 'data.max_response_length')}",
        "learning rate": lambda c: f"{_setting(c, 'actor_rollout_ref.actor.optim.lr')}",
        "steps": lambda c: f"{_setting(c, 'trainer.total_training_steps')}",
    }
)
"""What distinguishes runs other than their seeds, as text from the configuration."""


@dataclass(frozen=True)
class ScaleRun:
    """A finished run at scale, of one seed, with its values of `AXES`.

    `curves` are those of `CURVES` that it has, at the steps that have them; values are [1, num_steps].
    """

    folder: Path
    seed: int
    axes: Mapping[str, str]
    config: Mapping[str, Any]
    curves: Mapping[str, Curves]

    def measure(self, name: str) -> float:
        """Return a number of the run: the last value of a curve, `CURVE_mean` its mean over steps; NaN without it."""
        curve = self.curves.get(name.removesuffix("_mean"))
        if curve is None:
            return np.nan
        over_run = name.endswith("_mean") or name in ("gradient_norm", "seconds_per_step")
        return float(curve.values.mean() if over_run else curve.values[0, -1])


def find_runs(source: Path) -> tuple[ScaleRun, ...]:
    """Read every finished run below `scale/`, in the order of their folders; runs that still go on are left out."""
    folders = []
    for folder, inner, files in os.walk(source / "scale"):
        inner.sort()
        if "versions.json" in (*files, *inner):  # it is written last
            folders.append(Path(folder))
        if "metrics.jsonl" in files or "versions.json" in files:
            inner.clear()  # checkpoints are large
    return tuple(_read(folder, _written(folder)) for folder in folders)


def _written(folder: Path) -> tuple[int, ...]:
    """Return when the files of a run were written, in nanoseconds."""
    times = []
    for name in (runs.CONFIG_FILE, runs.METRICS_FILE, runs.VERSIONS_FILE):
        try:
            times.append((folder / name).stat().st_mtime_ns)
        except OSError as error:
            raise unfit(folder / name, "a readable file", str(error), "python -m scale train") from error
    return tuple(times)


@cache
def _read(folder: Path, written: tuple[int, ...]) -> ScaleRun:
    """Read a run once, however many figures draw it."""
    command = "python -m scale train"
    with made_by(command):
        run = runs.read_run(folder)
    config = run.config
    try:
        axes = {name: of(config) for name, of in AXES.items()}
        seed = require.count("dynamo.seed", lookup(config, "dynamo.seed"))
        require.count("trainer.total_training_steps", lookup(config, "trainer.total_training_steps"))
    except (KeyError, TypeError, ValueError) as error:
        expected = "the configuration of a run at scale"
        raise unfit(folder / "config.json", expected, f"one without {error}", command) from error
    path = folder / "metrics.parquet"
    there = run.metrics.column_names
    sources = {curve: [c for c in there if re.fullmatch(like, c)] for curve, like in CURVES.items()}
    names = tuple(dict.fromkeys(name for of_curve in sources.values() for name in of_curve))
    with made_by(command):
        columns = runs.select(run.metrics, path, integers=("seed", "step"), numbers_or_null=names)
    if set(columns["seed"]) != {seed}:
        raise unfit(path, f"rows of seed {seed}, the one of config.json", "other rows", command)
    curves = {}
    for curve, of_curve in sources.items():
        if of_curve:
            values = np.stack([columns[name] for name in of_curve])
            measured = ~np.isnan(values)
            if (measured.any(0) != measured.all(0)).any():
                raise unfit(path, f"{' and '.join(of_curve)} at the same steps", "gaps in some of them", command)
            if measured.any():
                curves[curve] = Curves(columns["step"][measured[0]], values[:, measured[0]].mean(0)[None])
    return ScaleRun(folder, seed, axes, config, curves)


Block = Mapping[tuple[str, ...], Sequence[ScaleRun]]
"""Runs by their values on the axes of an experiment; one per seed."""


def blocks(runs: Sequence[ScaleRun], varied: tuple[str, ...]) -> list[tuple[str, Block]]:
    """Return the runs that may be compared: alike in all of `AXES` that are not varied, with a name for each.

    Blocks in which nothing varies are left out. Of two runs that differ in nothing, as two experiments may share, the
    first counts.
    """
    if "rollouts" in varied:
        varied = (*varied, "bounds")  # they are scaled along
    same = [axis for axis in AXES if axis not in varied]
    grouped: dict[tuple[str, ...], dict[tuple[str, ...], dict[int, ScaleRun]]] = {}
    for run in runs:
        key = tuple(run.axes[axis] for axis in same)
        cell = tuple(run.axes[axis] for axis in varied if axis != "bounds" or "rollouts" not in varied)
        grouped.setdefault(key, {}).setdefault(cell, {}).setdefault(run.seed, run)
    kept = {key: cells for key, cells in grouped.items() if len(cells) > 1}
    named: list[tuple[str, Block]] = []
    for key, cells in kept.items():
        alike = [other for other in kept if other[0] == key[0]]
        differing = [f"{same[i]} {key[i]}" for i in range(1, len(same)) if len({other[i] for other in alike}) > 1]
        name = ", ".join([key[0], *differing])
        named.append((name, {cell: [by_seed[s] for s in sorted(by_seed)] for cell, by_seed in cells.items()}))
    return named
