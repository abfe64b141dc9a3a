"""Reading of result files; a `ValueError` names an unfit file, what it should hold, and the command that makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from theory.base.arrays import FloatArray, IntArray

Columns = Mapping[str, np.ndarray[Any, Any]]
"""Columns of a table by name, all of one length: int64, float64 or text."""


class Input:
    """Result files that a figure or a table needs, below a folder `source`."""

    def exists(self, source: Path) -> bool:
        """Return whether there are any; an item that `make reproduce` makes no results for is skipped without them."""
        return True

    def read(self, source: Path) -> Any:
        """Read them; a `ValueError` names an unfit file."""
        raise NotImplementedError


class Curves(NamedTuple):
    """A metric of a run: `steps` [num_steps], ascending, and `values` [num_seeds, num_steps]."""

    steps: IntArray
    values: FloatArray


@dataclass(frozen=True)
class RunCurves:
    """A finished training run.

    Attributes
    ----------
    seeds : Ascending, [num_seeds]: the rows of every metric.
    metrics : By name; a metric of the training steps has no step 0, which is the policy before training.
    """

    config: Mapping[str, Any]
    seeds: IntArray
    metrics: Mapping[str, Curves]


@dataclass(frozen=True)
class LedgerData(Input):
    """The data of a row of the ledger, `ledger/ID.parquet`.

    `numbers` and `texts` are the columns that must be there, of finite numbers and of text; others are ignored.
    """

    id: str
    numbers: tuple[str, ...]
    texts: tuple[str, ...] = ()

    def read(self, source: Path) -> Columns:
        """Read the required columns."""
        command = f"python -m theory --json {source / 'ledger' / 'ledger.json'} --data {source / 'ledger'}"
        return read_columns(source / "ledger" / f"{self.id}.parquet", self.numbers, self.texts, command)


@dataclass(frozen=True)
class ToyRun(Input):
    """A run of the tabular testbed, the folder `toy/METHOD`, with `metrics` that must be there; others are ignored."""

    method: str
    metrics: tuple[str, ...]

    def read(self, source: Path) -> RunCurves:
        """Read the configuration and the required metrics."""
        folder = source / "toy" / self.method
        return read_run(folder, self.metrics, f"python -m toy run --method {self.method} --out {folder}")


def read_run(folder: Path, metrics: tuple[str, ...], command: str) -> RunCurves:
    """Read a run of the tabular testbed; `command` is the one that makes it."""
    read_json(folder / "versions.json", (), command)  # written last, so that a run without it is not finished
    config = read_json(folder / "config.json", ("method_name", "world_name", "rollouts"), command)
    path = folder / "metrics.parquet"
    columns = read_columns(path, ("seed", "step"), (), command, numbers_or_null=metrics)
    seeds, steps = np.unique(columns["seed"]), np.unique(columns["step"])
    order = np.lexsort((columns["step"], columns["seed"]))
    rows = np.stack([columns["seed"][order], columns["step"][order]])
    if not np.array_equal(rows, np.stack([np.repeat(seeds, len(steps)), np.tile(steps, len(seeds))])):
        got = f"{len(order)} rows of {len(seeds)} seeds and {len(steps)} steps"
        raise unfit(path, "one row for every seed at every step", got, command)
    curves = {}
    for name in metrics:
        values = columns[name][order].reshape(len(seeds), len(steps))
        first = 1 if np.isnan(values[:, 0]).all() else 0
        curves[name] = Curves(steps[first:], values[:, first:])
        if np.isnan(values[:, first:]).any() or first == len(steps):
            raise unfit(path, f"a value of {name} for every seed at every step after 0", "gaps", command)
    return RunCurves(config, seeds, curves)


def read_columns(
    path: Path,
    numbers: tuple[str, ...],
    texts: tuple[str, ...],
    command: str,
    numbers_or_null: tuple[str, ...] = (),
) -> Columns:
    """Read columns of a Parquet file: finite numbers, text, and numbers whose gaps become NaN.

    `command` is the one that makes the file.
    """
    names = (*numbers, *numbers_or_null, *texts)
    expected = f"a Parquet table with the columns {', '.join(names)}"
    if not path.is_file():
        raise unfit(path, expected, "no such file", command)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise unfit(path, expected, f"a file that cannot be read ({_first_line(error)})", command) from error
    missing = [name for name in names if name not in table.column_names]
    if missing:
        got = f"a table without {', '.join(missing)} (it has {', '.join(table.column_names) or 'no column'})"
        raise unfit(path, expected, got, command)
    if table.num_rows == 0:
        raise unfit(path, f"{expected} and at least one row", "no row", command)
    columns = {}
    for name in names:
        kind, column = table.schema.field(name).type, table.column(name)
        if pa.types.is_null(kind) and name in numbers_or_null:
            columns[name] = np.full(table.num_rows, np.nan)
            continue
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if is_text != (name in texts) or not (is_text or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise unfit(path, f"{'text' if name in texts else 'numbers'} in column {name}", f"type {kind}", command)
        if column.null_count and name not in numbers_or_null:
            raise unfit(path, f"no gap in column {name}", f"{column.null_count} of them", command)
        if not is_text and not np.isfinite(column.drop_null().to_numpy()).all():
            raise unfit(path, f"finite numbers in column {name}", "NaN or infinity", command)
        columns[name] = column.to_numpy()
    return columns


def read_json(path: Path, keys: tuple[str, ...], command: str) -> Mapping[str, Any]:
    """Read a JSON object with at least `keys`; `command` is the one that makes the file."""
    expected = f"a JSON object{' with ' if keys else ''}{', '.join(keys)}"
    if not path.is_file():
        raise unfit(path, expected, "no such file", command)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise unfit(path, expected, f"a file that cannot be read ({_first_line(error)})", command) from error
    if not isinstance(content, dict):
        raise unfit(path, expected, f"a JSON {type(content).__name__}", command)
    missing = [key for key in keys if key not in content]
    if missing:
        raise unfit(path, expected, f"one without {', '.join(missing)}", command)
    return content


def unfit(path: Path, expected: str, got: str, command: str) -> ValueError:
    """Return the error of an unfit file; `command` is the one that makes it."""
    return ValueError(f"{path}: expected {expected}, got {got}; make it with `{command}`")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
