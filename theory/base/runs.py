"""The folder of a run: its config, its metrics, and the software that made them.

A finished run holds `config.json` (the resolved config), `metrics.parquet` (one row per seed and step: columns `seed`,
`step`, then the metrics) and `versions.json` (software, device, seeds, seconds, and the SHA-256 of the run's files).
`versions.json` is written last: a folder that has it is complete. Each file is written whole or not at all, and checked
before it is read (`theory.base.files`). This module knows no trainer.

Tables outside of runs have their SHA-256 in a JSON file of their folder, too, under `files` (`read_record`).
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from theory.base import require
from theory.base.files import check_fields, check_hashes, hashes, read_hashed, read_json, write_atomically, write_json
from theory.base.text import plain

CONFIG_FILE, METRICS_FILE, VERSIONS_FILE = "config.json", "metrics.parquet", "versions.json"

DATA_FILE = "data.json"
"""Record of a folder of tables that are no run's: the software that made them, and their SHA-256 by name."""

PACKAGES = ("dynamo-testbed", "numpy", "scipy", "torch")
"""Packages that every run needs."""

REQUIRED: Any = object()
"""Stands for "no default" in `lookup`."""


@dataclass(frozen=True)
class RunFolder:
    """A finished run, read back: config and versions as plain data, and metrics with one row per seed and step."""

    config: dict[str, Any]
    metrics: pa.Table
    versions: dict[str, Any]


def write_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns of one length as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(columns)), sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def write_tables(folder: Path, tables: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write tables as NAME.parquet, and `DATA_FILE` last; other tables that it lists stay. Returns the paths."""
    listed = listed_tables(folder)
    paths = [folder / f"{name}.parquet" for name in tables]
    for path, columns in zip(paths, tables.values(), strict=True):
        write_columns(path, columns)
    files = {**listed, **hashes(folder, [path.name for path in paths])}
    write_json(folder / DATA_FILE, {**software(), "files": files})
    return paths


def listed_tables(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the tables of a folder, by name of the file; none in a folder without `DATA_FILE`."""
    path = folder / DATA_FILE
    return dict(read_record(path)["files"]) if os.path.lexists(path) else {}


def write_metrics(path: Path, columns: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write columns of one length as Parquet; NaN becomes null, so it must mean that there is no such number."""
    write_columns(path, {name: pa.array(column, from_pandas=True) for name, column in columns.items()})


def software(*others: str) -> dict[str, str]:
    """Return what results depend on: versions of Python, `PACKAGES` and other distributions, BLAS, machine, commit."""
    return {
        "python": platform.python_version(),
        **{name: installed(name) for name in (*PACKAGES, *others)},
        "blas": _blas(),
        "machine": _machine(),
        "commit": _commit(),
    }


@cache
def _blas() -> str:
    """Return the library that NumPy multiplies matrices with."""
    found: Any = np.show_config(mode="dicts")
    library = found.get("Build Dependencies", {}).get("blas", {})
    return plain(f"{library.get('name', 'unknown')} {library.get('version', '')}".strip())


@cache
def _machine() -> str:
    """Return the system and the processor."""
    model = platform.processor()
    with suppress(OSError, UnicodeDecodeError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return plain(f"{platform.system()} {platform.machine()} {model}".strip())


@cache
def _commit() -> str:
    """Return the commit of this project, with a mark where files differ from it; "unknown" outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return "unknown"
    command = ("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return plain(found.stdout.strip())


def installed(package: str) -> str:
    """Return a distribution's version, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def finish(
    folder: Path,
    seeds: Sequence[int],
    seconds: float,
    used: Sequence[Mapping[str, str]] = (),
    others: Sequence[str] = (),
) -> None:
    """Write `versions.json`, which says that a run is complete.

    It holds the last software `used` (default: the present one) and `earlier` ones, since results agree to the bit
    within one software only; and the SHA-256 of `config.json`, `metrics.parquet` and `others`, names of files within
    the folder.
    """
    *earlier, last = used or [software()]
    files = hashes(folder, (CONFIG_FILE, METRICS_FILE, *others))
    about = {"earlier": earlier, "seeds": list(seeds), "seconds": round(seconds, 3), "files": files}
    write_json(folder / VERSIONS_FILE, {**last, **about})


def read_record(path: Path, names: Sequence[str] = ()) -> dict[str, Any]:
    """Read a JSON file with the SHA-256 of files beside it, `files`; one without those of `names` is an error."""
    found = read_json(path)
    files = found.get("files")
    if not isinstance(files, dict) or not set(names) <= set(files):
        hint = "it is of an earlier version: make it again"
        raise ValueError(f"{path}: expected the SHA-256 of {', '.join(names) or 'files'}, got {files!r:.80}: {hint}")
    for name, digest in files.items():
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"{path}: expected a SHA-256 of {name!r:.80}, got {digest!r:.80}")
    return found


def read_versions(folder: Path, others: Sequence[str] = ()) -> dict[str, Any]:
    """Read `versions.json` of a finished run; one without hashes of its files, and of `others`, is a ValueError."""
    path = folder / VERSIONS_FILE
    kinds = {"earlier": (list,), "seeds": (list,), "seconds": (int, float)}
    found = check_fields(read_record(path, (CONFIG_FILE, METRICS_FILE, *others)), kinds, str(path))
    try:
        require.in_range("seconds", found["seconds"], 0.0)
        require.integer_vector("seeds", _plain(found["seeds"]))
        if len(set(found["seeds"])) < len(found["seeds"]):
            raise ValueError(f"seeds: expected different ones, got {found['seeds']!r:.80}")
        last = {name: value for name, value in found.items() if name not in ("earlier", "seeds", "seconds", "files")}
        for used in (last, *found["earlier"]):
            if not isinstance(used, dict) or not all(isinstance(value, str) for value in used.values()):
                raise ValueError(f"software: expected versions as text, got {used!r:.80}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def _plain(values: list[Any]) -> list[Any]:
    """Return a list as it is; true and false in it are an error, which NumPy takes for 1 and 0."""
    if any(isinstance(value, bool) for value in values):
        raise ValueError(f"seeds: expected integers, got {values!r:.80}")
    return values


def read_run(folder: Path) -> RunFolder:
    """Read a finished run; a missing, damaged or changed file is a ValueError that names it.

    So is `metrics.parquet` without a row for every seed and step, the seeds in the order of `versions.json` and the
    steps ascending.
    """
    versions = read_versions(folder)
    check_hashes(folder, {CONFIG_FILE: versions["files"][CONFIG_FILE]}, folder / VERSIONS_FILE)
    path = folder / METRICS_FILE
    metrics = read_table(path, versions["files"], folder / VERSIONS_FILE)
    columns = select(metrics, path, integers=("seed", "step"))
    seeds, steps = columns["seed"], np.unique(columns["step"])
    for name, found, expected in (
        ("seeds", seeds, np.repeat(versions["seeds"], len(steps))),
        ("steps", columns["step"], np.tile(steps, len(versions["seeds"]))),
    ):
        if not np.array_equal(found, expected):
            got = f"{len(seeds)} rows of {len(np.unique(seeds))} seeds and {len(steps)} steps"
            raise ValueError(f"{path}: expected one row for every seed and step, in order, got other {name} ({got})")
    return RunFolder(read_json(folder / CONFIG_FILE), metrics, versions)


def read_table(path: Path, recorded: Mapping[str, Any], record: Path) -> pa.Table:
    """Read a Parquet file whose SHA-256 is `recorded`, as `theory.base.files.read_hashed` does."""
    content = read_hashed(path, recorded, record)
    try:
        return pq.ParquetFile(pa.BufferReader(content)).read()  # also with two columns of one name, for `select`
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path}: expected a readable Parquet file, got {_first_line(error)}") from error


def select(
    table: pa.Table,
    path: Path,
    *,
    integers: Sequence[str] = (),
    numbers: Sequence[str] = (),
    numbers_or_null: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> dict[str, np.ndarray[Any, Any]]:
    """Return columns of a table by name: integers, finite numbers, those whose gaps become NaN, and text.

    A table without such columns, or without a row, is an error that names its `path`.
    """
    names = (*integers, *numbers, *numbers_or_null, *texts)
    expected = f"a table with the columns {', '.join(names)}"
    if missing := [name for name in names if table.column_names.count(name) != 1]:
        there = ", ".join(table.column_names) or "no column"
        raise ValueError(f"{path}: expected {expected}, got one without {', '.join(missing)} (it has {there:.400})")
    if table.num_rows == 0:
        raise ValueError(f"{path}: expected {expected} and at least one row, got no row")
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for name in names:
        kind, column = table.schema.field(name).type, table.column(name)
        if pa.types.is_null(kind) and name in numbers_or_null:
            columns[name] = np.full(table.num_rows, np.nan)
            continue
        is_integer, is_float = pa.types.is_integer(kind), pa.types.is_floating(kind)
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        wanted = "text" if name in texts else "integers" if name in integers else "numbers"
        fits = {"text": is_text, "integers": is_integer, "numbers": is_integer or is_float}[wanted]
        if not fits:
            raise ValueError(f"{path}: expected {wanted} in column {name}, got type {kind}")
        if column.null_count and name not in numbers_or_null:
            raise ValueError(f"{path}: expected no gap in column {name}, got {column.null_count} of them")
        try:
            columns[name] = column.to_numpy()
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path}: expected {wanted} in column {name}, got {_first_line(error)}") from error
        if not is_text and not np.isfinite(column.drop_null().to_numpy()).all():
            raise ValueError(f"{path}: expected finite numbers in column {name}, got NaN or infinity")
    return columns


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def differences(first: Mapping[str, Any], second: Mapping[str, Any], path: str = "") -> list[str]:
    """Return the sorted dotted names at which two configurations as plain data differ; a missing field is null.

    Examples
    --------
    >>> differences({"data": {"seed": 1, "n": 8}}, {"data": {"seed": 2, "n": 8}, "name": "x"})
    ['data.seed', 'name']
    """
    names: list[str] = []
    for name in sorted({*first, *second}):
        a, b = first.get(name), second.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names += differences(a, b, f"{path}{name}.")
        elif a != b:
            names.append(f"{path}{name}")
    return names


def lookup(config: Mapping[str, Any], path: str, default: Any = REQUIRED) -> Any:
    """Return the value at a dotted name; a default replaces a missing value and null. Without one, KeyError names it.

    Examples
    --------
    >>> lookup({"data": {"seed": 3}}, "data.seed"), lookup({"data": {}}, "data.seed", 1)
    (3, 1)
    """
    value: Any = config
    for name in path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif default is REQUIRED:
            raise KeyError(path)
        else:
            return default
    return default if value is None and default is not REQUIRED else value
