"""Reading of result files; a `ValueError` names an unfit file, what it should hold, and the command that makes it.

Every file is read as it was written: JSON by its checksum, and all others by the SHA-256 in the JSON file beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from theory.base import files, runs
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
        folder = source / "ledger"
        command = f"python -m theory --json {folder / 'ledger.json'} --data {folder}"
        path, record = folder / f"{self.id}.parquet", folder / runs.DATA_FILE
        return read_columns(path, record, command, numbers=self.numbers, texts=self.texts)


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
    path = folder / runs.METRICS_FILE
    kinds = {"method_name": (str,), "world_name": (str,), "rollouts": (int,)}
    with made_by(command):
        run = runs.read_run(folder)
        files.check_fields(run.config, kinds, str(folder / runs.CONFIG_FILE))
        columns = runs.select(run.metrics, path, integers=("seed", "step"), numbers_or_null=metrics)
    seeds, steps = np.unique(columns["seed"]), np.unique(columns["step"])
    order = np.lexsort((columns["step"], columns["seed"]))
    curves = {}
    for name in metrics:
        values = columns[name][order].reshape(len(seeds), len(steps))
        first = 1 if np.isnan(values[:, 0]).all() else 0
        curves[name] = Curves(steps[first:], values[:, first:])
        if np.isnan(values[:, first:]).any() or first == len(steps):
            raise unfit(path, f"a value of {name} for every seed at every step after 0", "gaps", command)
    return RunCurves(run.config, seeds, curves)


def read_columns(
    path: Path,
    record: Path,
    command: str,
    *,
    integers: Sequence[str] = (),
    numbers: Sequence[str] = (),
    numbers_or_null: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> Columns:
    """Read columns of a Parquet file as `theory.base.runs.select` does; its SHA-256 is in the JSON file `record`.

    `command` is the one that makes the files.
    """
    with made_by(command):
        table = runs.read_table(path, runs.read_record(record, (path.name,))["files"], record)
        return runs.select(
            table, path, integers=integers, numbers=numbers, numbers_or_null=numbers_or_null, texts=texts
        )


def read_json(path: Path, kinds: Mapping[str, tuple[type, ...]], command: str) -> dict[str, Any]:
    """Read a JSON object with fields of these kinds at least; `command` is the one that makes the file."""
    with made_by(command):
        return files.check_fields(files.read_json(path), kinds, str(path))


@contextmanager
def made_by(command: str) -> Iterator[None]:
    """Add to an error of a file the command that makes it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; make it with `{command}`") from error


def unfit(path: Path, expected: str, got: str, command: str) -> ValueError:
    """Return the error of an unfit file; `command` is the one that makes it."""
    return ValueError(f"{path}: expected {expected}, got {got}; make it with `{command}`")
