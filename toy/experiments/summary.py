"""The summary of a sweep: one number per seed and measure, aggregated over seeds and compared with a reference.

Methods share worlds, prompts and draws, so comparisons aggregate the differences per seed. The aggregate and its
interval follow from the number of seeds (`theory.statistics.paired_gain`, `interval_method`). An interval depends on
its own two cells and on nothing else: with hundreds of rows, one in twenty misses by chance. A p-value is adjusted for
its family, all comparisons of its measure in the sweep (`theory.statistics.holm`). The numbers of the seeds are kept
beside the aggregates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from theory.base import files, runs
from theory.base.arrays import FloatArray
from theory.statistics import SIGNS, holm, interval_method, paired_gain, paired_p_value
from toy.experiments.design import AFTER_VISITS, AT_REFERENCE, TIMING, Cell, Sweep
from toy.training import TrainConfig

TIMING_TITLE = "seconds per step of all seeds together, wall time: not reproducible"

PARQUET, VALUES, CHOSEN, JSON = "summary.parquet", "values.parquet", "chosen.json", "summary.json"

Curves = Mapping[str, FloatArray]
"""Columns of a run by name, each [S, steps + 1]."""


class Measured(NamedTuple):
    """A finished run: its config, its curves, and those of the run that it is compared with (its own, if none)."""

    config: TrainConfig
    curves: Curves
    reference: Curves


class Measure(NamedTuple):
    """One number per seed of a run: what it is, and how it is taken from the curves; None where there is no such."""

    title: str
    of: Callable[[Measured], FloatArray | None]


def _last(name: str) -> Callable[[Measured], FloatArray]:
    return lambda run: run.curves[name][:, -1]


def _mean(name: str) -> Callable[[Measured], FloatArray]:
    return lambda run: np.asarray(run.curves[name][:, 1:].mean(-1))


def _tail(run: Measured) -> FloatArray:
    norms = run.curves["gradient_norm"][:, 1:]
    return np.asarray(np.quantile(norms, 0.99, axis=-1) / np.median(norms, axis=-1))


def _roughness(run: Measured) -> FloatArray:
    bends = np.diff(run.curves["entropy"], n=2, axis=-1)
    return np.asarray(np.sqrt((bends**2).mean(-1)))


def _after(visits: int) -> Callable[[Measured], FloatArray | None]:
    def of(run: Measured) -> FloatArray | None:
        step = -(-visits * run.config.world.num_prompts // run.config.batch_prompts)  # rounded up
        return run.curves["pass_at_1"][:, step] if step <= run.config.num_steps else None

    return of


def _at_reference(accuracy: float) -> Callable[[Measured], FloatArray | None]:
    def of(run: Measured) -> FloatArray | None:
        reached = run.reference["pass_at_1"].mean(0) >= accuracy
        step = int(reached.argmax())  # 0 where it never does
        return run.curves["pass_at_1"][:, step] if 0 < step <= run.config.num_steps else None

    return of


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
        **{
            name: Measure(f"pass@1 after {visits} visits a prompt", _after(visits))
            for name, visits in AFTER_VISITS.items()
        },
        **{
            name: Measure(f"pass@1 when the reference has first {accuracy:g}, mean over seeds", _at_reference(accuracy))
            for name, accuracy in AT_REFERENCE.items()
        },
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
    value, low, high : Aggregate over seeds, and its interval (None for timings).
    reference : Name of the cell that it is compared with; None for the reference itself.
    difference, difference_low, difference_high : Aggregate of the differences per seed, and its interval.
    difference_p : Its p-value, adjusted for all comparisons of the measure in the sweep; None below three seeds.
    per_seed : What `value` is taken of, [S]; None for timings.
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
    difference_p: float | None = None
    per_seed: FloatArray | None = field(default=None, repr=False, compare=False)


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
    curves = {cell.name: read_curves(cell, folder / cell.name) for cell in sweep.cells}
    values = {cell.name: _values(sweep, cell, curves, folder) for cell in sweep.cells}
    return _in_families([row for cell in sweep.cells for row in _rows(sweep, cell, values)])


def _values(sweep: Sweep, cell: Cell, curves: Mapping[str, Curves], folder: Path) -> dict[str, FloatArray]:
    """Return the cell's numbers per seed, [S], by measure; those that do not exist for it are left out."""
    run = Measured(cell.config, curves[cell.name], curves[sweep.reference_of(cell).name])
    values = {}
    for measure in sweep.measures:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = MEASURES[measure].of(run)
        if found is None:
            continue
        if not np.isfinite(found).all():
            path = folder / cell.name / runs.METRICS_FILE
            raise ValueError(f"{path}: expected a finite {title(measure)}, got NaN or infinity")
        values[measure] = found
    return values


def _rows(sweep: Sweep, cell: Cell, values: Mapping[str, Mapping[str, FloatArray]]) -> list[SummaryRow]:
    own, others = values[cell.name], values[sweep.reference_of(cell).name]
    rows = {
        measure: SummaryRow(cell.name, cell.axes, measure, cell.config.num_seeds, *gain, per_seed=own[measure])
        for measure, gain in zip(own, _gains(np.stack(list(own.values()), axis=-1)), strict=True)
    }
    shared = [measure for measure in own if measure in others]
    if sweep.reference_of(cell) is not cell and shared:
        paired = _gains(*(np.stack([each[measure] for measure in shared], axis=-1) for each in (own, others)))
        for measure, (point, low, high) in zip(shared, paired, strict=True):
            rows[measure] = replace(
                rows[measure],
                reference=sweep.reference_of(cell).name,
                difference=point,
                difference_low=low,
                difference_high=high,
                difference_p=float(paired_p_value(own[measure], others[measure])),
            )
    return list(rows.values())


def _in_families(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """Return rows whose p-values in a measure are one family; None where there are too few seeds for one."""
    p_values = np.array([np.nan if row.difference_p is None else row.difference_p for row in rows])
    for measure in {row.measure for row in rows}:
        family = np.array([row.measure == measure for row in rows])
        p_values[family] = holm(p_values[family])
    adjusted = [None if np.isnan(p) else p for p in p_values.tolist()]
    return [replace(row, difference_p=p) for row, p in zip(rows, adjusted, strict=True)]


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
    """Write the summary, the values of seeds, what the sweep chooses, if it does, and last a JSON with their SHA-256.

    A summary has a row per cell and measure, and axes are columns of their own. The values are those of every seed, so
    that anybody can take another mean or interval of them; timings have none.
    """
    records = _records(rows)
    columns = {}
    for name in records[0]:
        text = name in ("cell", *sweep.axes, "measure", "reference")
        columns[name] = np.array([record[name] for record in records], dtype=object if text else None)
    (folder / JSON).unlink(missing_ok=True)  # killed from here on, the same call writes all of them
    runs.write_metrics(folder / PARQUET, columns)
    if VALUES in (names := _files(sweep, chosen)):
        runs.write_metrics(folder / VALUES, _per_seed(sweep, rows))
    if chosen is not None:
        files.write_json(folder / CHOSEN, chosen)
    files.write_json(folder / JSON, {**_about(sweep), "rows": records, "files": files.hashes(folder, names)})


def missing(
    sweep: Sweep, rows: Sequence[SummaryRow], folder: Path, chosen: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the names of the files that `write` has to write; one that was changed since is an error that names it."""
    names = [*_files(sweep, chosen), JSON]
    if not os.path.lexists(folder / JSON):
        return names
    record = runs.read_record(folder / JSON, [PARQUET])
    left = [name for name in names if not os.path.lexists(folder / name)]
    recorded = {name: record["files"][name] for name in names if name in record["files"]}
    files.check_hashes(folder, {name: recorded[name] for name in recorded if name not in left}, folder / JSON)
    described = {name: value for name, value in record.items() if name != "files"}
    is_same = described == {**_about(sweep), "rows": _records(rows)} and [*recorded, JSON] == names
    return left if is_same else names  # runs were extended since, or the summary is of an earlier version


def _files(sweep: Sweep, chosen: Mapping[str, Any] | None) -> list[str]:
    """Return the names of the files whose SHA-256 the summary has."""
    has_values = sweep.measures != (TIMING,)
    return [PARQUET, *([VALUES] if has_values else []), *([CHOSEN] if chosen is not None else [])]


def _per_seed(sweep: Sweep, rows: Sequence[SummaryRow]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the table of `values.parquet`: one row per cell, measure and seed."""
    seeds = {cell.name: cell.config.seeds for cell in sweep.cells}
    sizes = [row.num_seeds for row in rows]
    return {
        **{
            name: np.repeat(np.array([getattr(row, name) for row in rows], dtype=object), sizes)
            for name in ("cell", "measure")
        },
        "seed": np.concatenate([np.array(seeds[row.cell], dtype=np.int64) for row in rows]),
        "value": np.concatenate([row.per_seed for row in rows if row.per_seed is not None]),
    }


def _records(rows: Sequence[SummaryRow]) -> list[dict[str, Any]]:
    records = []
    for row in rows:
        numbers = {name: value for name, value in vars(row).items() if name not in ("cell", "axes", "per_seed")}
        records.append({"cell": row.cell, **row.axes, **numbers})
    return records


def _about(sweep: Sweep) -> dict[str, Any]:
    return {
        "sweep": sweep.name,
        "title": sweep.title,
        "reproduces": sweep.reproduces,
        "measures": {name: title(name) for name in sweep.measures},
        "aggregate": "over seeds; differences: of each seed to the reference's same seed",
        "interval": " or ".join(dict.fromkeys(interval_method(cell.config.num_seeds) for cell in sweep.cells)),
        "sign": f"{SIGNS} over all comparisons of a measure",
    }
