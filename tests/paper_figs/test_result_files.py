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
from tests.paper_figs.make_data import DATA, seal
from theory.base.files import read_json, write_json

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


def test_reads_a_run_by_seed_and_step(source: Path) -> None:
    run = RUN.read(source)
    assert run.seeds.tolist() == list(range(6))
    assert run.metrics["pass_at_1"].steps.tolist() == list(range(37))
    assert run.metrics["gradient_norm"].steps.tolist() == list(range(1, 37))  # no step led to the first policy
    row = pq.read_table(source / "toy" / "grpo" / "metrics.parquet").filter(
        (pc.field("seed") == 4) & (pc.field("step") == 7)
    )
    assert run.metrics["gradient_norm"].values[4, 6] == row["gradient_norm"][0].as_py()


DAMAGED = "expected the file whose SHA-256 is in"
"""What is said of a table that is not the one that was written."""


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "expected a readable file, got .* No such file"),
        (cut, DAMAGED),
        (lambda path: path.write_bytes(b""), DAMAGED),
        (lambda path: path.write_text("a,b\n1,2\n"), DAMAGED),
        (lambda path: shutil.copy(DATA / "ledger" / "S4.parquet", path), DAMAGED),
        (cell("bound", 3, 0.5), DAMAGED),
    ],
)  # fmt: skip
def test_a_damaged_table_is_named(source: Path, spoil: Callable[[Path], object], message: str) -> None:
    path = source / "ledger" / "G3.parquet"
    spoil(path)
    with pytest.raises(ValueError, match=f"^{path}: {message}") as error:
        TABLE.read(source)
    command = f"python -m theory --json {source / 'ledger' / 'ledger.json'} --data {source / 'ledger'}"
    assert str(error.value).endswith(f"; make it with `{command}`")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "expected a readable Parquet file"),
        (lambda path: path.write_text("a,b\n1,2\n"), "expected a readable Parquet file"),
        (lambda path: shutil.copy(DATA / "ledger" / "S4.parquet", path), "without entropy, bound, family .it has pol"),
        (edit(lambda t: t.append_column("bound", t["bound"])), "got one without bound"),
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
    seal(source / "ledger" / "data.json")
    with pytest.raises(ValueError, match=message) as error:
        TABLE.read(source)
    assert str(error.value).startswith(f"{path}: expected ")


def rewritten(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    return lambda path: write_json(path, change(read_json(path)))


def without(name: str) -> Callable[[Path], None]:
    return rewritten(lambda data: {key: value for key, value in data.items() if key != name})


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("versions.json", Path.unlink, "No such file"),  # written last: the run was killed
        ("versions.json", without("files"), "expected the SHA-256 of config.json, metrics.parquet, got None"),
        ("config.json", Path.unlink, "No such file"),
        ("config.json", cut, DAMAGED),
        ("config.json", lambda path: path.write_bytes(b"\xff"), DAMAGED),
        ("metrics.parquet", Path.unlink, "No such file"),
        ("metrics.parquet", cut, DAMAGED),
        ("metrics.parquet", cell("pass_at_1", 3, 0.5), DAMAGED),
    ],
)  # fmt: skip
def test_a_damaged_run_is_named(source: Path, file: str, spoil: Callable[[Path], object], message: str) -> None:
    path = source / "toy" / "grpo" / file
    spoil(path)
    with pytest.raises(ValueError, match=f"^{path}: .*{message}") as error:
        RUN.read(source)
    assert str(error.value).endswith(f"; make it with `python -m toy run --method grpo --out {path.parent}`")


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("config.json", lambda path: path.write_text("{}"), "ends with its checksum, got none"),
        ("config.json", without("world_name"), "world_name, rollouts, got none named world_name"),
        ("config.json", rewritten(lambda data: {**data, "rollouts": "16"}), "rollouts of type int, got '16'"),
        ("metrics.parquet", edit(lambda t: t.drop_columns(["pass_at_1"])), "without pass_at_1"),
        ("metrics.parquet", edit(lambda t: t.drop_columns(["step"])), "without step"),
        ("metrics.parquet", edit(lambda t: t.slice(1)), "221 rows of 6 seeds and 37 steps"),
        ("metrics.parquet", edit(lambda t: pa.concat_tables([t, t])), "444 rows of 6 seeds"),
        ("metrics.parquet", edit(lambda t: t.take(np.random.default_rng(0).permutation(222))), "in order, got other"),
        ("metrics.parquet", edit(lambda t: t.take(np.arange(222) ^ 1)), "in order, got other seeds"),
        ("metrics.parquet", cell("seed", 0, 5), "one row for every seed and step"),
        ("metrics.parquet", cell("step", 1, 0), "one row for every seed and step"),
        ("metrics.parquet", cell("seed", 0, None), "no gap in column seed, got 1"),
        ("metrics.parquet", column("step", lambda c: c.cast("string")), "integers in column step, got type string"),
        ("metrics.parquet", column("step", lambda c: c.cast("float64")), "integers in column step, got type double"),
        ("metrics.parquet", cell("pass_at_1", 3, None), "for every seed at every step after 0, got gaps"),
        ("metrics.parquet", cell("gradient_norm", 0, 1.0), "a value of gradient_norm for every seed"),
        ("metrics.parquet", cell("pass_at_1", 3, np.inf), "finite numbers in column pass_at_1, got NaN or infinity"),
        ("metrics.parquet", edit(lambda t: t.filter(pc.field("step") == 0)), "a value of gradient_norm"),
    ],
)  # fmt: skip
def test_unfit_run_is_named(source: Path, file: str, spoil: Callable[[Path], object], message: str) -> None:
    path = source / "toy" / "grpo" / file
    spoil(path)
    seal(path.parent / "versions.json")
    with pytest.raises(ValueError, match=message) as error:
        RUN.read(source)
    assert str(error.value).startswith(f"{path}: expected ")
    assert str(error.value).endswith(f"; make it with `python -m toy run --method grpo --out {path.parent}`")


def test_test_data_hold_no_path(source: Path) -> None:
    for path in source.rglob("*.json"):
        assert not re.search(r"[\"\s]/\w|://", json.dumps(json.loads(path.read_text()))), path
