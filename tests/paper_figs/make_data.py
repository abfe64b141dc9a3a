"""Recipe of `tests/paper_figs/data`: real results, thinned to a few kB.

Run `python -m tests.paper_figs.make_data [FOLDER]` from the root of the repository.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from theory.__main__ import main as judge
from toy.config import TrainConfig
from toy.trainer import train

DATA = Path(__file__).parent / "data"
ROWS = ("S3", "S4", "G3", "G4", "A5")
METHODS = ("grpo", "dynamo")


def write_ledger(source: Path) -> None:
    """Write the data of the ledger's rows as `python -m theory` does."""
    with contextlib.redirect_stdout(io.StringIO()):
        judge(["--only", *ROWS, "--data", str(source / "ledger")])


def write_runs(source: Path, num_seeds: int, num_steps: int) -> None:
    """Write a short run of each method."""
    for method in METHODS:
        config = TrainConfig.named(method, "mixed", num_seeds=num_seeds, num_steps=num_steps)
        with tempfile.TemporaryDirectory() as folder:
            train(config, out=Path(folder))
            (source / "toy" / method).mkdir(parents=True, exist_ok=True)
            for name in ("config.json", "metrics.parquet", "versions.json"):
                shutil.copy(Path(folder) / name, source / "toy" / method / name)


def thin(source: Path) -> None:
    """Keep whole policies of S4, pairs with and without bounds of A5, and every few rows of the others."""
    keep = {
        "S3": lambda i, table: i % 8 == 0,
        "S4": lambda i, table: table["policy"].to_numpy() < 6,
        "G3": lambda i, table: i % 6 == 0,
        "A5": lambda i, table: i // 2 % 6 == 0,
    }
    for row, chosen in keep.items():
        path = source / "ledger" / f"{row}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.filter(chosen(np.arange(len(table)), table)), path)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    write_ledger(target)
    thin(target)
    write_runs(target, num_seeds=6, num_steps=10)
