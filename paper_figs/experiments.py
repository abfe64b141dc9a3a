"""Experiments read back: cells that compete, what was measured of them, and how they differ from their reference.

The sweeps of the tabular testbed come with a summary (`toy/SWEEP`); finished runs at scale (`scale/`, a folder per
seed) are summarised here in the same way. Either alone is enough for a figure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from paper_figs.result_files import Columns, Input, read_columns, read_json, unfit
from paper_figs.scale_runs import ScaleRun, blocks, find_runs
from theory.base.arrays import FloatArray
from theory.base.tables import Estimate, number
from theory.statistics import SIGNS, in_family, interval_method, paired_gain, paired_p_value

CONFIG: Mapping[str, tuple[type, ...]] = {
    "world_name": (str,), "num_steps": (int,), "batch_prompts": (int,), "world": (dict,), "optimizer": (dict,),
}  # fmt: skip
"""What figures need of a configuration."""


@dataclass(frozen=True)
class CellResult:
    """A cell of an experiment.

    Attributes
    ----------
    setting : World of the tabular testbed (`is_toy`), or model at scale; cells compete within one.
    axes : Values on the axes that are varied, as text.
    values : By measure: aggregate over the `num_seeds` seeds.
    differences : By measure: aggregate of the differences per seed to the reference; empty for the reference. Signs are
        decided among all comparisons of the measure: of the sweep, or of the runs at scale.
    config : The resolved configuration; empty where it was not needed.
    num_pairs : Seeds that it shares with its reference, behind each difference; None: all.
    """

    setting: str
    is_toy: bool
    axes: Mapping[str, str]
    num_seeds: int
    values: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]
    config: Mapping[str, Any]
    num_pairs: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExperimentResults(Input):
    """The cells of an experiment: `toy/NAME/summary.parquet`, and the runs below `scale/` that fit.

    Attributes
    ----------
    axes : Axes that are varied, apart from the setting.
    measures : Measures that must be there; others are ignored.
    where_reached : Measures that a cell has if its run gets there, such as those of `horizons`.
    worlds : Whether the sweep has the axis `world`; else its cells share one. The configuration is read of the first
        cell of each world, or of every cell where they share one.
    scale : Axes by which runs at scale differ in this experiment, names of `scale_runs.AXES`; none: it has no such
        runs.
    reference : Values of some axes; runs at scale are compared with the cell that has them.
    methods : Methods whose runs at scale belong to it, where they can be compared; none: all do.
    """

    name: str
    axes: tuple[str, ...]
    measures: tuple[str, ...]
    worlds: bool = True
    scale: tuple[str, ...] = ()
    reference: Mapping[str, str] | None = None
    methods: tuple[str, ...] = ()
    where_reached: tuple[str, ...] = ()

    def exists(self, source: Path) -> bool:
        """Return whether there is a summary, fit or not, or a run at scale to compare."""
        return (source / "toy" / self.name / "summary.parquet").exists() or bool(self._scale_cells(source))

    def read(self, source: Path) -> list[CellResult]:
        """Read the cells, those of the testbed first."""
        cells = self._scale_cells(source)
        if cells and not (source / "toy" / self.name).exists():
            return cells
        return [*self._toy_cells(source), *cells]

    def _toy_cells(self, source: Path) -> list[CellResult]:
        folder = source / "toy" / self.name
        path, command = folder / "summary.parquet", f"python -m toy sweep {self.name} --out {source / 'toy'}"
        numbers = ("low", "high", "difference", "difference_low", "difference_high", "difference_p")
        axes = ("world", *self.axes) if self.worlds else self.axes
        rows = read_columns(
            path,
            folder / "summary.json",
            command,
            integers=("num_seeds",),
            numbers=("value",),
            numbers_or_null=numbers,
            texts=("cell", "measure", *axes),
        )
        _require_intervals(rows, path, command)
        cells: list[CellResult] = []
        for name in dict.fromkeys(rows["cell"]):
            names = (*self.measures, *self.where_reached)
            of_cell = {m: np.flatnonzero((rows["cell"] == name) & (rows["measure"] == m)) for m in names}
            for measure, matches in of_cell.items():
                if len(matches) > 1 or (measure in self.measures and len(matches) < 1):
                    raise unfit(path, f"one row of {measure} for every cell", f"{len(matches)} for {name}", command)
            row_of = {measure: int(matches[0]) for measure, matches in of_cell.items() if len(matches)}
            first = next(iter(row_of.values()))
            config: Mapping[str, Any] = {}
            if not self.worlds or all(str(rows["world"][first]) != cell.setting for cell in cells):
                place = folder / str(name) / "config.json"
                config = read_json(place, CONFIG, command)
                if self.worlds and config["world_name"] != rows["world"][first]:
                    raise unfit(place, f"the world {rows['world'][first]}", config["world_name"], command)
            cells.append(
                CellResult(
                    str(rows["world"][first]) if self.worlds else str(config["world_name"]),
                    True,
                    {axis: str(rows[axis][first]) for axis in self.axes},
                    int(rows["num_seeds"][first]),
                    {m: Estimate(*(float(rows[x][i]) for x in ("value", "low", "high"))) for m, i in row_of.items()},
                    {
                        m: Estimate(*(float(rows[x][i]) for x in numbers[2:]))
                        for m, i in row_of.items()
                        if not np.isnan(rows["difference"][i])
                    },
                    config,
                )
            )
        return cells

    def _scale_cells(self, source: Path) -> list[CellResult]:
        if not self.scale or self.reference is None:
            return []
        cells = []
        runs_of = [run for run in find_runs(source) if not self.methods or run.axes["method"] in self.methods]
        for setting, block in blocks(runs_of, self.scale):
            of_block = []
            for values, runs in block.items():
                axes = dict(zip(self.scale, values, strict=True))
                reference = block.get(tuple({**axes, **self.reference}[axis] for axis in self.scale))
                of_block.append(_summarise(setting, axes, runs, reference, self.measures))
            if not self.methods or any(cell.differences for cell in of_block):
                cells += of_block
        return _in_families(cells)


def _require_intervals(rows: Columns, path: Path, command: str) -> None:
    """Require seeds, intervals that are whole and in order, or not there, and p-values of differences."""
    if rows["num_seeds"].min() < 1:
        raise unfit(path, "num_seeds of at least 1", str(rows["num_seeds"].min()), command)
    for name, low, high in (("value", "low", "high"), ("difference", "difference_low", "difference_high")):
        gaps = np.isnan(np.stack([rows[x].astype(np.float64) for x in (name, low, high)]))
        bad = (gaps[1] != gaps[2]) | (gaps[0] & ~gaps[1]) | (rows[low] > rows[high])
        if bad.any():
            got = f"{rows[low][bad][0]} to {rows[high][bad][0]}"
            raise unfit(path, f"an interval of every {name}, or none", got, command)
    p, there = rows["difference_p"].astype(np.float64), ~np.isnan(rows["difference_low"].astype(np.float64))
    bad = (p < 0) | (p > 1) | (~np.isnan(p) & ~there)
    if bad.any():
        raise unfit(path, "difference_p from 0 to 1, of differences with an interval", str(p[bad][0]), command)


def _in_families(cells: Sequence[CellResult]) -> list[CellResult]:
    """Return cells whose differences in a measure are one family."""
    changed: list[dict[str, Estimate]] = [dict(cell.differences) for cell in cells]
    for measure in {name for differences in changed for name in differences}:
        having = [differences for differences in changed if measure in differences]
        for differences, gain in zip(having, in_family(each[measure] for each in having), strict=True):
            differences[measure] = gain
    return [replace(cell, differences=of_cell) for cell, of_cell in zip(cells, changed, strict=True)]


def _summarise(
    setting: str,
    axes: Mapping[str, str],
    runs: Sequence[ScaleRun],
    reference: Sequence[ScaleRun] | None,
    measures: Sequence[str],
) -> CellResult:
    """Summarise the runs of a cell, one per seed."""
    values, differences = {}, {}
    shared = {run.seed for run in runs} & {run.seed for run in reference or ()}
    for measure in measures:
        own = {run.seed: run.measure(measure) for run in runs}
        if not np.isnan(list(own.values())).any():
            values[measure] = estimate(list(own.values()))
        other = {run.seed: run.measure(measure) for run in reference or ()}
        pairs = np.array([(own[seed], other[seed]) for seed in own if seed in other])
        if len(pairs) and reference is not runs and not np.isnan(pairs).any():
            differences[measure] = estimate(pairs[:, 0], pairs[:, 1])
    return CellResult(setting, False, axes, len(runs), values, differences, runs[0].config, len(shared))


def estimate(values: Sequence[float] | FloatArray, reference: Sequence[float] | FloatArray | None = None) -> Estimate:
    """Return the gain over a reference, with one value per seed; without a reference, the aggregate (`paired_gain`).

    Its p-value is that of one comparison; those that are counted together want `theory.statistics.in_family`.
    """
    return Estimate(*(float(x) for x in (*paired_gain(values, reference), paired_p_value(values, reference))))


def settings(cells: Sequence[CellResult]) -> list[str]:
    """Return the settings, in order."""
    return list(dict.fromkeys(cell.setting for cell in cells))


def about(cells: Sequence[CellResult]) -> str:
    """Say where the cells come from, how many seeds they have, and which intervals follow from that."""
    toy = [cell for cell in cells if cell.is_toy]
    parts = []
    if toy:
        worlds = [f"{world} ({_steps(toy, world)} steps)" for world in settings(toy)]
        parts.append(
            f"tabular world{'s' * (len(worlds) > 1)} {', '.join(worlds)}, "
            f"{seeds_and_intervals({cell.num_seeds for cell in toy})}"
        )
    for model in settings([cell for cell in cells if not cell.is_toy]):
        of_model = [cell for cell in cells if cell.setting == model]
        parts.append(
            f"{model} in verl ({_steps(of_model, model)} steps), "
            f"{seeds_and_intervals({cell.num_seeds for cell in of_model})}{_of_pairs(of_model)}"
        )
    return "; ".join(parts)


def _of_pairs(cells: Sequence[CellResult]) -> str:
    """Say how many pairs of seeds are behind differences, where a cell and its reference do not have the same seeds."""
    pairs = {(cell.num_pairs, cell.num_seeds) for cell in cells if cell.differences and cell.num_pairs is not None}
    if all(shared == own for shared, own in pairs):
        return ""
    return f", differences of {seeds_and_intervals([shared for shared, _ in pairs], 'shared seed')}"


INTERVALS = (
    "differences within seeds; no interval is adjusted for others; ahead and behind: "
    f"{SIGNS} over all comparisons of a measure"
)


def _steps(cells: Sequence[CellResult], setting: str) -> str:
    """Return how many steps the cells of a setting are trained, as far as their configurations were read."""
    counts = {
        str(cell.config["num_steps"] if cell.is_toy else cell.config["trainer"]["total_training_steps"])
        for cell in cells
        if cell.setting == setting and cell.config
    }
    return " or ".join(sorted(counts, key=number))


def seeds_of(counts: Collection[int], noun: str = "seed") -> str:
    """Say how many seeds there are, by the name `noun`.

    Examples
    --------
    >>> seeds_of([3, 2]), seeds_of([1])
    ('2 to 3 seeds', '1 seed, without interval')
    """
    low, high = min(counts), max(counts)
    return f"1 {noun}, without interval" if high == 1 else f"{high if low == high else f'{low} to {high}'} {noun}s"


def seeds_and_intervals(counts: Collection[int], noun: str = "seed") -> str:
    """Say how many seeds there are, and which aggregates and intervals they have.

    Examples
    --------
    >>> seeds_and_intervals([3, 2]), seeds_and_intervals([1])
    ("2 to 3 seeds (mean with Student's t, 95 %)", '1 seed, without interval')
    """
    methods = " or ".join(dict.fromkeys(interval_method(count) for count in sorted(counts) if count > 1))
    return seeds_of(counts, noun) + (f" ({methods})" if methods else "")
