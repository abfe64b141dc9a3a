"""toy.experiments.summary: aggregates against a direct computation, pairing by seed, and whoever is ahead is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from theory.base import files, runs
from theory.statistics import NUM_RESAMPLES
from toy.experiments import summary
from toy.experiments.design import TIMING, Cell, Sweep
from toy.experiments.summary import MEASURES, SummaryRow
from toy.training import metrics

NUM_STEPS = 5


@pytest.fixture
def sweep(small: Callable[..., Any]) -> Sweep:
    """Two methods in two worlds, 8 seeds."""
    cells = tuple(
        Cell({"world": world, "method": method}, small(method, world, num_seeds=8, num_steps=NUM_STEPS))
        for world in ("mixed", "binary")
        for method in ("grpo", "dynamo")
    )
    measures = tuple(MEASURES)
    reference = {"method": "grpo"}
    return Sweep(
        name="s", title="t", reproduces="r", cells=cells, blocks=("world",), reference=reference, measures=measures
    )


def write_run(folder: Path, cell: Cell, curves: dict[str, np.ndarray], seconds: float = 2.0) -> None:
    """Write a finished run folder with given curves [S, steps + 1]."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = cell.config.seeds
    columns = {"seed": np.repeat(seeds, NUM_STEPS + 1), "step": np.tile(np.arange(NUM_STEPS + 1), len(seeds))}
    runs.write_metrics(folder / runs.METRICS_FILE, columns | {name: x.ravel() for name, x in curves.items()})
    files.write_json(folder / runs.CONFIG_FILE, cell.config.to_dict())
    runs.finish(folder, seeds, seconds)


def random_curves(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    curves = {name: rng.random((8, NUM_STEPS + 1)) for name in metrics.METRICS}
    for name in metrics.STEP:
        curves[name][:, 0] = np.nan
    return curves


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """Percentile interval of the 25 % trimmed mean, resample by resample."""
    draws = np.random.default_rng(0).integers(8, size=(NUM_RESAMPLES, 8, 1))[..., 0]
    means = stats.trim_mean(values[draws], 0.25, axis=1)
    return tuple(np.quantile(means, (0.025, 0.975)))


def test_rows_are_those_of_a_direct_computation(sweep, tmp_path):
    curves = {cell.name: random_curves(i) for i, cell in enumerate(sweep.cells)}
    for cell in sweep.cells:
        write_run(tmp_path / cell.name, cell, curves[cell.name])
    rows = {(row.cell, row.measure): row for row in summary.summarise(sweep, tmp_path)}
    direct = {
        "pass_at_1": lambda c: c["pass_at_1"][:, -1],
        "pass_at_1_mean": lambda c: c["pass_at_1"][:, 1:].sum(1) / NUM_STEPS,
        "pass_at_32": lambda c: c["pass_at_32"][:, -1],
        "entropy": lambda c: c["entropy"][:, -1],
        "entropy_roughness": lambda c: np.sqrt(
            np.square(c["entropy"][:, 2:] - 2 * c["entropy"][:, 1:-1] + c["entropy"][:, :-2]).mean(1)
        ),
        "gradient_norm": lambda c: c["gradient_norm"][:, 1:].mean(1),
        "gradient_norm_tail": lambda c: (
            np.percentile(c["gradient_norm"][:, 1:], 99, axis=1) / np.percentile(c["gradient_norm"][:, 1:], 50, axis=1)
        ),
        "rollouts": lambda c: c["rollouts"][:, 1:].mean(1),
        "degenerate_groups": lambda c: c["degenerate_groups"][:, 1:].mean(1),
    }
    assert set(direct) == set(MEASURES)
    assert len(rows) == len(sweep.cells) * len(MEASURES)
    for (name, measure), row in rows.items():
        own = direct[measure](curves[name])
        np.testing.assert_allclose([row.value, row.low, row.high], [stats.trim_mean(own, 0.25), *bootstrap(own)])
        if name.endswith("grpo"):
            assert (row.reference, row.difference, row.difference_low, row.difference_high) == (None,) * 4
            continue
        assert row.reference == name.replace("dynamo", "grpo")
        paired = own - direct[measure](curves[row.reference])
        expected = [stats.trim_mean(paired, 0.25), *bootstrap(paired)]
        np.testing.assert_allclose([row.difference, row.difference_low, row.difference_high], expected)


def test_differences_are_taken_seed_by_seed(sweep, tmp_path):
    """Seeds differ by 1, methods by 0.01: only paired, the interval is a point."""
    for i, cell in enumerate(sweep.cells):
        values = np.arange(8.0)[:, None] + np.zeros(NUM_STEPS + 1) + 0.01 * (i % 2)
        write_run(tmp_path / cell.name, cell, dict.fromkeys(metrics.METRICS, values))
    for row in summary.summarise(replace(sweep, measures=("pass_at_1",)), tmp_path):
        assert row.high - row.low > 1
        if row.reference is not None:
            assert (row.difference_low, row.difference_high) == pytest.approx((0.01, 0.01))
            assert row.difference == pytest.approx(0.01)


def test_runs_of_other_seeds_are_refused(sweep, tmp_path):
    for cell in sweep.cells:
        write_run(tmp_path / cell.name, cell, random_curves(0))
    cell = sweep.cells[1]
    other = replace(cell, config=replace(cell.config, first_seed=1))
    write_run(tmp_path / cell.name, other, random_curves(0))
    with pytest.raises(ValueError, match=f"{cell.name}.*expected 6 rows for each of 8 seeds, got others"):
        summary.summarise(sweep, tmp_path)


def test_leaders_are_the_largest_whoever_they_are():
    sweep = Sweep.__new__(Sweep)
    object.__setattr__(sweep, "blocks", ("world",))
    values = {("a", "x"): 0.1, ("a", "y"): 0.3, ("b", "x"): 0.9, ("b", "y"): 0.2}
    rows = [
        SummaryRow(cell="", axes={"world": world, "method": method}, measure="pass_at_1", num_seeds=8, value=value)
        for (world, method), value in values.items()
    ]
    rows.append(replace(rows[0], measure="entropy", value=7.0))
    found = [(row.axes["world"], row.axes["method"]) for row in summary.leaders(sweep, rows, "pass_at_1")]
    assert found == [("a", "y"), ("b", "x")]


def test_files_hold_the_rows(sweep, tmp_path):
    for i, cell in enumerate(sweep.cells):
        write_run(tmp_path / cell.name, cell, random_curves(i))
    rows = summary.summarise(sweep, tmp_path)
    summary.write(sweep, rows, tmp_path)
    data = json.loads((tmp_path / "summary.json").read_text())
    table = pq.read_table(tmp_path / "summary.parquet").to_pylist()
    assert (data["sweep"], data["reproduces"], data["interval"]) == (
        "s",
        "r",
        "95 % percentile bootstrap over seeds, 2000 resamples",
    )
    assert data["rows"] == table
    assert [(x["cell"], x["world"], x["method"], x["measure"], x["value"], x["difference"]) for x in table] == [
        (row.cell, row.axes["world"], row.axes["method"], row.measure, row.value, row.difference) for row in rows
    ]


def test_one_seed_has_no_interval(sweep, tmp_path):
    cells = tuple(replace(cell, config=replace(cell.config, num_seeds=1)) for cell in sweep.cells)
    alone = replace(sweep, cells=cells, measures=("pass_at_1",))
    for i, cell in enumerate(cells):
        write_run(tmp_path / cell.name, cell, {name: x[:1] for name, x in random_curves(i).items()})
    rows = summary.summarise(alone, tmp_path)
    assert [(row.low, row.high, row.difference_low, row.difference_high) for row in rows] == [(None,) * 4] * 4
    assert [row.difference is None for row in rows] == [True, False] * 2
    summary.write(alone, rows, tmp_path)


def test_timings_are_seconds_per_step_without_intervals(sweep, tmp_path):
    for i, cell in enumerate(sweep.cells):
        write_run(tmp_path / cell.name, cell, random_curves(0), seconds=i + 1.0)
    timed = replace(sweep, measures=(TIMING,))
    rows = summary.summarise(timed, tmp_path)
    assert [row.value for row in rows] == pytest.approx([(i + 1) / NUM_STEPS for i in range(4)])
    assert {(row.low, row.difference) for row in rows} == {(None, None)}
    summary.write(timed, rows, tmp_path)
    assert "not reproducible" in json.loads((tmp_path / "summary.json").read_text())["measures"][TIMING]
