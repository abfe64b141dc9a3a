"""Unfit result files are named, with what they should hold and the command that makes them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from paper_figs.result_files import LedgerData, ToyRun
from tests.paper_figs.make_data import DATA

TABLE = LedgerData("G3", ("entropy", "bound"), ("family",))
RUN = ToyRun("grpo", ("pass_at_1", "gradient_norm"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "results"))


def edit(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda path: pq.write_table(change(pq.read_table(path)), path)


def column(name: str, values: Callable[[pa.ChunkedArray], Any]) -> Callable[[Path], None]:
    return edit(lambda t: t.set_column(t.column_names.index(name), name, values(t[name])))


def cell(name: str, row: int, value: float | None) -> Callable[[Path], None]:
    return column(name, lambda c: pa.array([value if i == row else x for i, x in enumerate(c.to_pylist())]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_reads_what_is_there(source: Path) -> None:
    table = TABLE.read(source)
    assert {name: column.dtype.kind for name, column in table.items()} == {"entropy": "f", "bound": "f", "family": "O"}
    written = pq.read_table(source / "ledger" / "G3.parquet")
    np.testing.assert_array_equal(table["bound"], written["bound"].to_numpy())


def test_reads_a_run_by_seed_and_step_whatever_the_order_of_rows(source: Path) -> None:
    run = RUN.read(source)
    assert run.seeds.tolist() == list(range(6))
    assert run.metrics["pass_at_1"].steps.tolist() == list(range(11))
    assert run.metrics["gradient_norm"].steps.tolist() == list(range(1, 11))  # no step led to the first policy
    path = source / "toy" / "grpo" / "metrics.parquet"
    row = pq.read_table(path).filter((pc.field("seed") == 4) & (pc.field("step") == 7))
    assert run.metrics["gradient_norm"].values[4, 6] == row["gradient_norm"][0].as_py()
    edit(lambda table: table.take(np.random.default_rng(0).permutation(len(table))))(path)
    shuffled = RUN.read(source)
    for name, curves in run.metrics.items():
        np.testing.assert_array_equal(shuffled.metrics[name].values, curves.values)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "the columns entropy, bound, family, got no such file"),
        (cut, "got a file that cannot be read"),
        (lambda path: path.write_bytes(b""), "got a file that cannot be read"),
        (lambda path: path.write_text("a,b\n1,2\n"), "got a file that cannot be read"),
        (lambda path: shutil.copy(DATA / "ledger" / "S4.parquet", path), "without entropy, bound, family .it has pol"),
        (edit(lambda t: t.slice(0, 0)), "at least one row, got no row"),
        (column("bound", lambda c: pa.array([np.nan] * len(c))), "finite numbers in column bound, got NaN"),
        (column("bound", lambda c: pa.nulls(len(c), "float64")), "no gap in column bound"),
        (column("bound", lambda c: c.cast("string")), "numbers in column bound, got type string"),
        (column("bound", lambda c: pa.array([True] * len(c))), "numbers in column bound, got type bool"),
        (column("family", lambda c: pa.array(range(len(c)))), "text in column family, got type int64"),
    ],
)  # fmt: skip
def test_unfit_table_is_named(source: Path, spoil: Callable[[Path], object], message: str) -> None:
    path = source / "ledger" / "G3.parquet"
    spoil(path)
    with pytest.raises(ValueError, match=message) as error:
        TABLE.read(source)
    assert str(error.value).startswith(f"{path}: expected ")
    command = f"python -m theory --json {source / 'ledger' / 'ledger.json'} --data {source / 'ledger'}"
    assert str(error.value).endswith(f"; make it with `{command}`")


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("versions.json", Path.unlink, "got no such file"),  # written last: the run was killed
        ("config.json", Path.unlink, "got no such file"),
        ("config.json", cut, "got a file that cannot be read"),
        ("config.json", lambda path: path.write_bytes(b"\xff"), "got a file that cannot be read"),
        ("config.json", lambda path: path.write_text("[]"), "got a JSON list"),
        ("config.json", lambda path: path.write_text("{}"), "world_name, rollouts, got one without method"),
        ("metrics.parquet", Path.unlink, "the columns seed, step, pass_at_1, gradient_norm, got no such file"),
        ("metrics.parquet", cut, "got a file that cannot be read"),
        ("metrics.parquet", edit(lambda t: t.drop_columns(["pass_at_1"])), "without pass_at_1"),
        ("metrics.parquet", edit(lambda t: t.slice(1)), "got 65 rows of 6 seeds and 11 steps"),
        ("metrics.parquet", edit(lambda t: pa.concat_tables([t, t])), "got 132 rows of 6 seeds"),
        ("metrics.parquet", cell("seed", 0, 5), "one row for every seed at every step"),
        ("metrics.parquet", cell("seed", 0, None), "no gap in column seed, got 1"),
        ("metrics.parquet", cell("pass_at_1", 3, None), "for every seed at every step after 0, got gaps"),
        ("metrics.parquet", cell("gradient_norm", 0, 1.0), "a value of gradient_norm for every seed"),
        ("metrics.parquet", cell("pass_at_1", 3, np.inf), "finite numbers in column pass_at_1, got NaN or infinity"),
        ("metrics.parquet", edit(lambda t: t.filter(pc.field("step") == 0)), "a value of gradient_norm"),
    ],
)  # fmt: skip
def test_unfit_run_is_named(source: Path, file: str, spoil: Callable[[Path], object], message: str) -> None:
    path = source / "toy" / "grpo" / file
    spoil(path)
    with pytest.raises(ValueError, match=message) as error:
        RUN.read(source)
    assert str(error.value).startswith(f"{path}: expected ")
    assert str(error.value).endswith(f"; make it with `python -m toy run --method grpo --out {path.parent}`")


def test_test_data_hold_no_path(source: Path) -> None:
    for path in source.rglob("*.json"):
        assert not re.search(r"[\"\s]/\w|://", json.dumps(json.loads(path.read_text()))), path
