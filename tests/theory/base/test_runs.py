"""theory.base.runs: folders of runs and tables as they were written, and a value by its dotted name."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from theory.base import runs
from theory.base.files import hashes, read_json, write_json
from theory.base.runs import lookup

CONFIG = {"data": {"seed": 3, "path": None}, "alpha": None}


def test_lookup_without_a_default_tells_null_from_nothing() -> None:
    assert lookup(CONFIG, "data.seed") == 3
    assert lookup(CONFIG, "data") == CONFIG["data"]
    assert lookup(CONFIG, "alpha") is None
    for path in ("data.size", "alpha.size", "data.seed.size", "gamma"):
        with pytest.raises(KeyError, match=f"^'{path}'$"):
            lookup(CONFIG, path)


def test_a_default_stands_for_null_and_for_nothing() -> None:
    for path in ("data.size", "data.path", "alpha", "alpha.size", "data.seed.size", "gamma"):
        assert lookup(CONFIG, path, 7) == 7
        assert lookup(CONFIG, path, None) is None
    assert lookup({"data": {"seed": 0}}, "data.seed", 7) == 0


def finished(folder: Path, seeds: list[int], columns: dict[str, list], **others: object) -> Path:
    """Write a finished run."""
    write_json(folder / runs.CONFIG_FILE, {"alpha": 0.4})
    runs.write_metrics(folder / runs.METRICS_FILE, {name: np.array(x) for name, x in columns.items()})
    runs.finish(folder, seeds, 61.23456, **others)
    return folder


def test_a_finished_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Seeds in their own order; NaN is null in the file; seconds are seconds; the last software is the run's."""
    columns = {"seed": [7, 7, 2, 2], "step": [0, 1, 0, 1], "reward": [float("nan"), 0.5, 0.25, 1.0]}
    used = [{"numpy": "1.0"}, {"numpy": "2.0"}]
    found = runs.read_run(finished(tmp_path, [7, 2], columns, used=used))
    assert found.config == {"alpha": 0.4}
    assert found.metrics.to_pydict() == columns | {"reward": [None, 0.5, 0.25, 1.0]}
    kept = {name: found.versions[name] for name in ("numpy", "earlier", "seeds", "seconds")}
    assert kept == {"numpy": "2.0", "earlier": [{"numpy": "1.0"}], "seeds": [7, 2], "seconds": 61.235}
    assert set(found.versions["files"]) == {runs.CONFIG_FILE, runs.METRICS_FILE}


@pytest.mark.parametrize(
    ("seeds", "columns"),
    [
        ([2, 7], {"seed": [7, 7, 2, 2], "step": [0, 1, 0, 1]}),
        ([7, 3], {"seed": [7, 7, 2, 2], "step": [0, 1, 0, 1]}),
        ([7, 2], {"seed": [7, 7, 2, 2], "step": [1, 0, 1, 0]}),
        ([7, 2], {"seed": [7, 2, 7, 2], "step": [0, 0, 1, 1]}),
        ([7, 2], {"seed": [7, 7, 2], "step": [0, 1, 0]}),
        ([7, 2], {"seed": [7, 7, 2, 2], "step": [0, 1, 1, 1]}),
    ],
)
def test_a_run_has_one_row_for_every_seed_and_step_in_order(seeds: list[int], columns: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics\.parquet: expected one row for every seed and step, in order"):
        runs.read_run(finished(tmp_path, seeds, columns))


@pytest.mark.parametrize("name", [runs.CONFIG_FILE, runs.METRICS_FILE])
def test_another_config_or_other_metrics_are_not_the_runs(name: str, tmp_path: Path) -> None:
    """Whole files, each from another run."""
    one, other = (finished(tmp_path / str(i), [0], {"seed": [0], "step": [0], "reward": [float(i)]}) for i in range(2))
    write_json(other / runs.CONFIG_FILE, {"alpha": 0.5})
    (one / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ValueError, match=f"{name}: expected the file whose SHA-256 is in"):
        runs.read_run(one)


def test_tables_that_are_written_later_stay_beside_those_before(tmp_path: Path) -> None:
    runs.write_tables(tmp_path, {"a": {"x": [1]}, "b": {"x": [2]}})
    runs.write_tables(tmp_path, {"b": {"x": [3]}, "c": {"x": [4]}})
    listed = runs.listed_tables(tmp_path)
    assert listed == hashes(tmp_path, ["a.parquet", "b.parquet", "c.parquet"])
    values = [runs.read_table(tmp_path / name, listed, tmp_path / runs.DATA_FILE)["x"].to_pylist() for name in listed]
    assert values == [[1], [3], [4]]
    assert read_json(tmp_path / runs.DATA_FILE)["numpy"] == np.__version__
    assert runs.listed_tables(tmp_path / "empty") == {}


@pytest.mark.parametrize(("old", "new"), [(b"PAR1", b"PAR2"), (b"abc", b"\xff\xfe\xfa")], ids=["no-parquet", "no-text"])
def test_a_table_that_was_recorded_and_cannot_be_read_is_named(old: bytes, new: bytes, tmp_path: Path) -> None:
    """Its hash is right; bytes that are no UTF-8 in a column's name are an error of Python, and none of Arrow."""
    runs.write_tables(tmp_path, {"t": {"abc": [1]}})
    path = tmp_path / "t.parquet"
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(ValueError, match=r"t\.parquet: expected a readable Parquet file, got "):
        runs.read_table(path, hashes(tmp_path, ["t.parquet"]), tmp_path / runs.DATA_FILE)


def test_columns_are_of_the_kind_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"n": [1, 2], "x": [0.5, None], "none": pa.nulls(2), "inf": [1.0, float("inf")], "s": ["a", "b"]})
    found = runs.select(table, path, integers=("n",), numbers=("n",), numbers_or_null=("x", "none"), texts=("s",))
    assert (found["n"].tolist(), found["s"].tolist()) == ([1, 2], ["a", "b"])
    np.testing.assert_array_equal(found["x"], [0.5, np.nan])
    np.testing.assert_array_equal(found["none"], [np.nan, np.nan])
    for kind, name, message in (
        ("numbers", "x", "expected no gap in column x, got 1 of them"),
        ("numbers", "inf", "expected finite numbers in column inf"),
        ("numbers_or_null", "inf", "expected finite numbers in column inf"),
        ("integers", "x", "expected integers in column x"),
        ("texts", "n", "expected text in column n"),
        ("numbers", "s", "expected numbers in column s"),
        ("numbers", "y", "got one without y"),
    ):
        with pytest.raises(ValueError, match=rf"t\.parquet: .*{message}"):
            runs.select(table, path, **{kind: (name,)})
    with pytest.raises(ValueError, match="at least one row, got no row"):
        runs.select(table.slice(0, 0), path, integers=("n",))


def test_differences_are_those_of_missing_fields_too() -> None:
    assert runs.differences({"a": {"x": 1}, "b": None}, {"a": {"x": 1, "y": 2}}) == ["a.y"]
    assert runs.differences({"a": {"x": 1}}, {"a": None}) == ["a"]


def test_doctests() -> None:
    assert doctest.testmod(runs).failed == 0
