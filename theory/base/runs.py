"""The folder of a run: its config, its metrics, and the software that made them.

A finished run holds `config.json` (the resolved config), `metrics.parquet` (one row per seed and step: columns `seed`,
`step`, then the metrics) and `versions.json` (software, device, seeds, seconds). `versions.json` is written last: a
folder that has it is complete. Each file is written whole or not at all. This module knows no trainer.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or none; a second call replaces the rest of a killed first one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data as JSON."""
    write_atomically(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a missing or damaged file is a ValueError that names it."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a readable JSON file, got {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


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


def versions(seeds: Sequence[int], seconds: float, used: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """Return the content of `versions.json`: the last software `used` (default: the present one), and `earlier` ones.

    Results agree to the bit within one software only.
    """
    *earlier, last = used or [software()]
    return {**last, "earlier": earlier, "seeds": list(seeds), "seconds": round(seconds, 3)}


def read_run(folder: Path) -> RunFolder:
    """Read a finished run; a missing or damaged file is a ValueError that names it."""
    versions_read = read_json(folder / VERSIONS_FILE)
    try:
        metrics = pq.read_table(folder / METRICS_FILE)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{folder / METRICS_FILE}: expected a readable Parquet file, got {error}") from error
    return RunFolder(read_json(folder / CONFIG_FILE), metrics, versions_read)


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
