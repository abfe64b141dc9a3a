"""The folder of a run: its config, its metrics, and the software that made them.

A finished run holds `config.json` (the resolved config), `metrics.parquet` (one row per seed and step: columns `seed`,
`step`, then the metrics) and `versions.json` (software, device, seeds, seconds, and the SHA-256 of the run's files).
`versions.json` is written last: a folder that has it is complete. Each file is written whole or not at all, and checked
before it is read (`theory.base.files`). This module knows no trainer.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from theory.base.files import check_hashes, hashes, read_hashed, read_json, write_atomically, write_json

CONFIG_FILE, METRICS_FILE, VERSIONS_FILE = "config.json", "metrics.parquet", "versions.json"

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


def write_metrics(path: Path, columns: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write columns of one length as Parquet; NaN, which no measured metric is, becomes null."""
    write_columns(path, {name: pa.array(column, from_pandas=True) for name, column in columns.items()})


def software(*others: str) -> dict[str, str]:
    """Return the versions of the present software: Python, `PACKAGES` and other distributions."""
    return {"python": platform.python_version(), **{name: installed(name) for name in (*PACKAGES, *others)}}


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


def read_versions(folder: Path) -> dict[str, Any]:
    """Read `versions.json` of a finished run; one without hashes of the run's files is a ValueError that names it."""
    path = folder / VERSIONS_FILE
    found = read_json(path)
    files = found.get("files")
    if not isinstance(files, dict) or not {CONFIG_FILE, METRICS_FILE} <= set(files):
        raise ValueError(f"{path}: expected the SHA-256 of {CONFIG_FILE} and {METRICS_FILE}, got {files!r:.80}")
    return found


def read_run(folder: Path) -> RunFolder:
    """Read a finished run; a missing, damaged or changed file is a ValueError that names it."""
    versions = read_versions(folder)
    check_hashes(folder, {CONFIG_FILE: versions["files"][CONFIG_FILE]}, folder / VERSIONS_FILE)
    metrics = read_table(folder / METRICS_FILE, versions["files"], folder / VERSIONS_FILE)
    return RunFolder(read_json(folder / CONFIG_FILE), metrics, versions)


def read_table(path: Path, recorded: Mapping[str, Any], record: Path) -> pa.Table:
    """Read a Parquet file whose SHA-256 is `recorded`, as `theory.base.files.read_hashed` does."""
    content = read_hashed(path, recorded, record)
    try:
        return pq.read_table(pa.BufferReader(content))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: expected a readable Parquet file, got {error}") from error


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
