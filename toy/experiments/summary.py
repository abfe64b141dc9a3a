"""The summary of a sweep: one number per seed and measure, aggregated over seeds and compared with a reference.

Aggregates are interquartile means over seeds; comparisons are interquartile means of the differences per seed, since
methods share worlds, prompts and draws (`theory.statistics.paired_gain`). A row depends on its own two cells and on
nothing else. With hundreds of rows, one in twenty intervals misses by chance.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from theory.base import files, runs
from theory.base.arrays import FloatArray
from theory.statistics import NUM_RESAMPLES, paired_gain
from toy.experiments.design import TIMING, Cell, Sweep

TIMING_TITLE = "seconds per step of all seeds together, wall time: not reproducible"

PARQUET, CHOSEN, JSON = "summary.parquet", "chosen.json", "summary.json"

Curves = Mapping[str, FloatArray]
"""Columns of a run by name, each [S, steps + 1]."""


class Measure(NamedTuple):
    """One number per seed of a run: what it is, and how it is taken from the curves."""

    title: str
    of: Callable[[Curves], FloatArray]


def _last(name: str) -> Callable[[Curves], FloatArray]:
    return lambda curves: curves[name][:, -1]


def _mean(name: str) -> Callable[[Curves], FloatArray]:
    return lambda curves: np.asarray(curves[name][:, 1:].mean(-1))


def _tail(curves: Curves) -> FloatArray:
    norms = curves["gradient_norm"][:, 1:]
    return np.asarray(np.quantile(norms, 0.99, axis=-1) / np.median(norms, axis=-1))


def _roughness(curves: Curves) -> FloatArray:
    bends = np.diff(curves["entropy"], n=2, axis=-1)
    return np.asarray(np.sqrt((bends**2).mean(-1)))


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "pass_at_1": Measure("pass@1 at the end", _last("pass_at_1")),
        "pass_at_1_mean": Measure("pass@1, mean over all steps", _mean("pass_at_1")),
        "pass_at_32": Measure("pass@32 at the end", _last("pass_at_32")),
        "entropy": Measure("entropy at the end", _last("entropy")),
        "entropy_roughness": Measure("root mean square second difference of the entropy over steps", _roughness),
        "gradient_norm": Measure("gradient norm, mean over all steps", _mean("gradient_norm")),
        "gradient_norm_tail": Measure("gradient norm, 99 % quantile over median of the steps", _tail),
        "rollouts": Measure("rollouts spent per step, pilots included", _mean("rollouts")),
        "degenerate_groups": Measure("share of groups with one reward only", _mean("degenerate_groups")),
    }
)


def title(measure: str) -> str:
    """Return what a measure is, in words."""
    return TIMING_TITLE if measure == TIMING else MEASURES[measure].title


@dataclass(frozen=True)
class SummaryRow:
    """One measure of one cell, over `num_seeds` seeds.

    Attributes
    ----------
    value, low, high : Interquartile mean over seeds, and its interval (None for timings).
    reference : Name of the cell that it is compared with; None for the reference itself.
    difference, difference_low, difference_high : Interquartile mean of the differences per seed, and its interval.
    """

    cell: str
    axes: Mapping[str, str]
    measure: str
    num_seeds: int
    value: float
    low: float | None = None
    high: float | None = None
    reference: str | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


def read_curves(cell: Cell, folder: Path) -> Curves:
    """Read the columns that measures need from a finished run, each [S, steps + 1]; NaN where a step has none."""
    found = runs.read_run(folder)
    path, seeds, num_rows = folder / runs.METRICS_FILE, cell.config.seeds, cell.config.num_steps + 1
    of_policy, of_step = ("pass_at_1", "pass_at_32", "entropy"), ("gradient_norm", "rollouts", "degenerate_groups")
    table = runs.select(found.metrics, path, integers=("seed", "step"), numbers=of_policy, numbers_or_null=of_step)
    expected = np.repeat(seeds, num_rows), np.tile(np.arange(num_rows), len(seeds))
    if not np.array_equal(np.stack([table["seed"], table["step"]]), np.stack(expected)):
        raise ValueError(f"{path}: expected {num_rows} rows for each of {len(seeds)} seeds, got others")
    curves = {name: table[name].reshape(len(seeds), num_rows) for name in (*of_policy, *of_step)}
    for name in of_step:
        if np.isnan(curves[name][:, 1:]).any():
            raise ValueError(f"{path}: expected a value of {name} at every step after 0, got gaps")
    return curves


def summarise(sweep: Sweep, folder: Path) -> list[SummaryRow]:
    """Return the rows of a finished sweep, whose runs are the subfolders of `folder`; cell by cell, in order."""
    if sweep.measures == (TIMING,):
        seconds = [runs.read_versions(folder / cell.name)["seconds"] / cell.config.num_steps for cell in sweep.cells]
        return [
            SummaryRow(cell.name, cell.axes, TIMING, cell.config.num_seeds, x)
            for cell, x in zip(sweep.cells, seconds, strict=True)
        ]
    values = {}
    for cell in sweep.cells:
        curves = read_curves(cell, folder / cell.name)
        with np.errstate(divide="ignore", invalid="ignore"):
            values[cell.name] = np.stack([MEASURES[name].of(curves) for name in sweep.measures], axis=-1)
        if not np.isfinite(values[cell.name]).all():
            measure = sweep.measures[int(np.argmin(np.isfinite(values[cell.name]).all(0)))]
            path = folder / cell.name / runs.METRICS_FILE
            raise ValueError(f"{path}: expected a finite {title(measure)}, got NaN or infinity")
    rows = []
    for cell in sweep.cells:
        reference = sweep.reference_of(cell)
        own, paired = _gains(values[cell.name]), _gains(values[cell.name], values[reference.name])
        for i, measure in enumerate(sweep.measures):
            row = SummaryRow(cell.name, cell.axes, measure, cell.config.num_seeds, *own[i])
            if reference is not cell:
                point, low, high = paired[i]
                row = replace(row, reference=reference.name, difference=point, difference_low=low, difference_high=high)
            rows.append(row)
    return rows


def _gains(values: FloatArray, reference: FloatArray | None = None) -> list[tuple[float, float | None, float | None]]:
    """Return the gain and its interval (None for one seed) for every column of `values` [S, measures]."""
    point, low, high = (x.tolist() for x in paired_gain(values, reference))
    nothing = [None] * len(point)
    return list(zip(point, low, high, strict=True) if len(values) > 1 else zip(point, nothing, nothing, strict=True))


def leaders(sweep: Sweep, rows: Sequence[SummaryRow], measure: str) -> list[SummaryRow]:
    """Return the row with the largest value of a measure in every block."""
    best: dict[tuple[str, ...], SummaryRow] = {}
    for row in rows:
        block = tuple(row.axes[axis] for axis in sweep.blocks)
        if row.measure == measure and (block not in best or row.value > best[block].value):
            best[block] = row
    return list(best.values())


def write(sweep: Sweep, rows: Sequence[SummaryRow], folder: Path, chosen: Mapping[str, Any] | None = None) -> None:
    """Write `summary.parquet`, `chosen.json` if the sweep chooses, and `summary.json` with their SHA-256, last.

    A summary has a row per cell and measure; axes are columns of their own.
    """
    records = _records(rows)
    columns = {}
    for name in records[0]:
        text = name in ("cell", *sweep.axes, "measure", "reference")
        columns[name] = np.array([record[name] for record in records], dtype=object if text else None)
    (folder / JSON).unlink(missing_ok=True)  # killed from here on, the same call writes all of them
    runs.write_metrics(folder / PARQUET, columns)
    if chosen is not None:
        files.write_json(folder / CHOSEN, chosen)
    hashes = files.hashes(folder, [PARQUET, *([CHOSEN] if chosen is not None else [])])
    files.write_json(folder / JSON, {**_about(sweep), "rows": records, "files": hashes})


def missing(
    sweep: Sweep, rows: Sequence[SummaryRow], folder: Path, chosen: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the names of the files that `write` has to write; one that was changed since is an error that names it."""
    names = [PARQUET, *([CHOSEN] if chosen is not None else []), JSON]
    if not os.path.lexists(folder / JSON):
        return names
    record = runs.read_record(folder / JSON, names[:-1])
    left = [name for name in names if not os.path.lexists(folder / name)]
    files.check_hashes(folder, {name: record["files"][name] for name in names[:-1] if name not in left}, folder / JSON)
    described = {name: value for name, value in record.items() if name != "files"}
    is_same = described == {**_about(sweep), "rows": _records(rows)}
    return left if is_same else names  # runs were extended since


def _records(rows: Sequence[SummaryRow]) -> list[dict[str, Any]]:
    records = []
    for row in rows:
        numbers = {name: value for name, value in vars(row).items() if name not in ("cell", "axes")}
        records.append({"cell": row.cell, **row.axes, **numbers})
    return records


def _about(sweep: Sweep) -> dict[str, Any]:
    return {
        "sweep": sweep.name,
        "title": sweep.title,
        "reproduces": sweep.reproduces,
        "measures": {name: title(name) for name in sweep.measures},
        "aggregate": "interquartile mean over seeds; differences: of each seed to the reference's same seed",
        "interval": f"95 % percentile bootstrap over seeds, {NUM_RESAMPLES} resamples",
    }
