"""Ten million rollouts through `python -m scale audit`: seconds and peak memory, in a process of its own.

`pytest tests/benchmarks/test_audit.py --benchmark-enable`. Without benchmarks there is no claim on time.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
ROLLOUTS, SECONDS, GIBIBYTES = 10_000_000, 60.0, 4.0
SIZE, BATCH, CHARACTERS = 16, 512, 300
"""Rollouts of a prompt, prompts of a step, and length of a prompt: those of DAPO-Math-17k in the paper's runs."""

COMMAND = """
import argparse, resource, sys
from theory.base.terminal import Console
from scale.audit import replay_log as audit
parser = argparse.ArgumentParser()
for name, settings in audit.ARGUMENTS.items():
    parser.add_argument(name, **settings)
audit.command(parser.parse_args(sys.argv[1:]), Console(width=120))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def batches(rollouts, prompts, text):
    """Yield tables of rollouts: whole epochs over the prompts, in steps, success rates that rise."""
    rng = np.random.default_rng(20261121)
    rates = rng.beta(0.6, 0.6, prompts)
    names = np.arange(prompts)
    if text:
        names = np.array([f"{i:06d}" + "x" * (CHARACTERS - 6) for i in range(prompts)], dtype=object)
    groups = rollouts // SIZE
    order = np.concatenate([rng.permutation(prompts) for _ in range(-(-groups // prompts))])
    for start in range(0, groups, 16 * BATCH):
        which = order[start : min(start + 16 * BATCH, groups)]
        step = (start + np.arange(which.size)) // BATCH
        p = np.clip(rates[which] + 0.2 * start / groups, 0, 1)
        yield pa.table(
            {
                "prompt": np.repeat(names[which], SIZE),
                "step": np.repeat(step + 1, SIZE),
                "reward": (rng.random((which.size, SIZE)) < p[:, None]).astype(float).reshape(-1),
            }
        )


def write_verl(folder, tables):
    """Write verl's dumps, a file for each step; responses are short, since time goes with bytes."""
    folder.mkdir()
    for table in tables:
        columns = (table.column(name).to_pylist() for name in ("step", "prompt", "reward"))
        for step, rows in itertools.groupby(zip(*columns, strict=True), key=lambda row: row[0]):
            lines = [
                f'{{"input": "{prompt}", "output": "so 4", "gts": "4", "score": {reward}, "step": {step}}}\n'
                for _, prompt, reward in rows
            ]
            with (folder / f"{step}.jsonl").open("a") as file:
                file.writelines(lines)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["parquet", "csv", "verl"])
def test_ten_million_rollouts(benchmark, kind, tmp_path):
    path, writer = tmp_path / f"log.{kind}", None
    # Whole epochs, so that a step has a prompt once.
    tables = batches(ROLLOUTS, 17_408, kind != "csv")
    if kind == "verl":
        write_verl(path, tables)
    else:
        for table in tables:
            if writer is None:
                writer = (pq.ParquetWriter if kind == "parquet" else pa.csv.CSVWriter)(path, table.schema)
            writer.write_table(table)
        writer.close()
    command = [sys.executable, "-c", COMMAND, str(path), "--out", str(tmp_path / "out"), "--force"]

    def run():
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    said = benchmark.pedantic(run, rounds=1)
    assert f"{ROLLOUTS:,} rollouts" in said
    gibibytes = int(said.split()[-1]) / 2 ** (30 if sys.platform == "darwin" else 20)
    benchmark.extra_info["peak GiB"] = round(gibibytes, 2)
    assert gibibytes < GIBIBYTES
    if benchmark.enabled:
        assert benchmark.stats.stats.max < SECONDS
    shutil.rmtree(tmp_path)  # gigabytes, which pytest would keep
