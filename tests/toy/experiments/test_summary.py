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
from toy.experiments.design import AFTER_VISITS, AT_REFERENCE, HORIZONS, TIMING, Cell, Sweep
from toy.experiments.summary import MEASURES, SummaryRow
from toy.experiments.sweeps import SWEEPS
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
    measures = tuple(name for name in MEASURES if name not in HORIZONS)
    reference = {"method": "grpo"}
    return Sweep(
        name="s", title="t", reproduces="r", cells=cells, blocks=("world",), reference=reference, measures=measures
    )


def write_run(folder: Path, cell: Cell, curves: dict[str, np.ndarray], seconds: float = 2.0) -> None:
    """Write a finished run folder with given curves [S, steps + 1]."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds, num_rows = cell.config.seeds, cell.config.num_steps + 1
    columns = {"seed": np.repeat(seeds, num_rows), "step": np.tile(np.arange(num_rows), len(seeds))}
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


def student(values: np.ndarray, reference: np.ndarray) -> float:
    return float(stats.ttest_rel(values, reference).pvalue)


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
    assert {*direct, *HORIZONS} == set(MEASURES)
    assert len(rows) == len(sweep.cells) * len(direct)
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
        others = [other for other in rows.values() if other.measure == measure and other.reference]
        assert len(others) == 2
        raw = {x.cell: student(direct[measure](curves[x.cell]), direct[measure](curves[x.reference])) for x in others}
        first, last = sorted(raw.values())
        holm = min(1.0, 2 * first) if raw[name] == first else max(last, min(1.0, 2 * first))
        assert row.difference_p == pytest.approx(holm, rel=1e-9)


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


def horizon_rows(sweep: Sweep, folder: Path, curves: dict[str, np.ndarray]) -> dict[str, dict[str, SummaryRow]]:
    """Return the rows of `HORIZONS` by method and measure, of a sweep whose runs have given curves of pass@1."""
    for cell in sweep.cells:
        write_run(folder / cell.name, cell, dict.fromkeys(metrics.METRICS, curves[cell.name]))
    rows = summary.summarise(replace(sweep, measures=("pass_at_1", *HORIZONS)), folder)
    return {cell.name: {row.measure: row for row in rows if row.cell == cell.name} for cell in sweep.cells}


def pair(small: Callable[..., Any], **fields: Any) -> Sweep:
    """GRPO and DynaMO, 8 seeds, 12 prompts; of 6 at a step, a visit takes 2 steps."""
    cells = tuple(Cell({"method": name}, small(name, num_seeds=8, **fields)) for name in ("grpo", "dynamo"))
    return Sweep(name="s", title="t", reproduces="r", cells=cells, blocks=(), reference={"method": "grpo"})


@pytest.mark.parametrize(
    ("num_steps", "batch", "expected"),
    [(7, 6, {}), (8, 6, {4: 8}), (31, 6, {4: 8, 8: 16}), (110, 6, {4: 8, 8: 16, 16: 32, 25: 50, 50: 100}),
     (20, 5, {4: 10, 8: 20}), (19, 5, {4: 10})],
)  # fmt: skip
def test_a_horizon_is_a_number_of_visits_and_exists_where_the_run_is_that_long(
    num_steps, batch, expected, small, tmp_path
):
    """The curves are step numbers; 5 prompts a step visit 12 prompts 4 times in 9.6 steps, rounded up."""
    sweep = pair(small, num_steps=num_steps, batch_prompts=batch)
    steps = np.arange(num_steps + 1.0) + np.zeros((8, 1))
    found = horizon_rows(sweep, tmp_path, {"grpo": steps, "dynamo": 3 * steps})
    names = {f"pass_at_1_after_{visits}_visits": step for visits, step in expected.items()}
    assert set(AFTER_VISITS) >= names.keys() == found["grpo"].keys() & set(AFTER_VISITS)
    assert found["dynamo"].keys() & set(AFTER_VISITS) == names.keys()
    for name, step in names.items():
        assert (found["grpo"][name].value, found["grpo"][name].difference) == (step, None)
        assert (found["dynamo"][name].value, found["dynamo"][name].difference) == (3 * step, 2 * step)


def test_accuracy_is_matched_at_the_step_at_which_the_reference_gets_there_on_average(small, tmp_path):
    """Half of the seeds lie .1 above the mean, the others below: no seed's own step counts."""
    mean = np.array([0.55, 0.58, 0.6, 0.59, 0.7, 0.65, 0.85])
    spread = np.where(np.arange(8) % 2, 0.1, -0.1)[:, None]
    ahead = np.linspace(0.0, 0.6, 7) + np.zeros((8, 1))
    found = horizon_rows(pair(small, num_steps=6), tmp_path, {"grpo": mean + spread, "dynamo": ahead})
    # .5 is there before the training, and .9 never.
    steps = {"pass_at_1_at_reference_0.6": 2, "pass_at_1_at_reference_0.7": 4, "pass_at_1_at_reference_0.8": 6}
    assert set(AT_REFERENCE) - steps.keys() == {"pass_at_1_at_reference_0.5", "pass_at_1_at_reference_0.9"}
    for rows in found.values():
        assert rows.keys() & set(AT_REFERENCE) == steps.keys()
    for name, step in steps.items():
        assert found["grpo"][name].value == pytest.approx(mean[step])
        assert found["dynamo"][name].value == pytest.approx(step / 10)
        assert found["dynamo"][name].difference == pytest.approx(step / 10 - mean[step])


def test_each_block_is_matched_to_its_own_reference(sweep, tmp_path):
    curves = {cell.name: np.full((8, NUM_STEPS + 1), 0.3) for cell in sweep.cells}
    for world, step in (("mixed", 2), ("binary", 4)):
        curves[f"{world}-grpo"][:, step:] = 0.5
        curves[f"{world}-dynamo"] = np.arange(NUM_STEPS + 1.0) + np.zeros((8, 1))
    found = horizon_rows(sweep, tmp_path, curves)
    values = {name: rows["pass_at_1_at_reference_0.5"].value for name, rows in found.items() if "dynamo" in name}
    assert values == {"mixed-dynamo": 2.0, "binary-dynamo": 4.0}


def test_a_horizon_that_the_reference_lacks_has_no_difference(small, tmp_path):
    sweep = pair(small, num_steps=8)
    cells = (replace(sweep.cells[0], config=replace(sweep.cells[0].config, num_steps=7)), sweep.cells[1])
    curves = {"grpo": np.zeros((8, 8)), "dynamo": np.ones((8, 9))}
    found = horizon_rows(replace(sweep, cells=cells), tmp_path, curves)
    assert (found["dynamo"]["pass_at_1"].reference, found["dynamo"]["pass_at_1"].difference) == ("grpo", 1.0)
    row = found["dynamo"]["pass_at_1_after_4_visits"]
    assert (row.value, row.reference, row.difference) == (1.0, None, None)


def test_a_longer_sweep_has_more_horizons():
    sweep = SWEEPS["fig2"]
    for each, visits in ((sweep, 25), (sweep.longer(), 50)):
        config = each.cells[0].config
        assert config.num_steps * config.batch_prompts / config.world.num_prompts == visits


def test_values_of_seeds_are_those_that_the_rows_aggregate(sweep, tmp_path):
    for i, cell in enumerate(sweep.cells):
        cell = replace(cell, config=replace(cell.config, first_seed=3))
        write_run(tmp_path / cell.name, cell, random_curves(i))
    moved = replace(sweep, cells=tuple(replace(c, config=replace(c.config, first_seed=3)) for c in sweep.cells))
    rows = summary.summarise(moved, tmp_path)
    summary.write(moved, rows, tmp_path)
    table = pq.read_table(tmp_path / "values.parquet").to_pandas()
    assert list(table) == ["cell", "measure", "seed", "value"]
    assert len(table) == 8 * len(rows)
    of_seeds = {key: group.set_index("seed").value for key, group in table.groupby(["cell", "measure"])}
    for row in rows:
        own = of_seeds[row.cell, row.measure]
        assert list(own.index) == list(range(3, 11))
        np.testing.assert_allclose([row.value, row.low, row.high], [stats.trim_mean(own, 0.25), *bootstrap(own.values)])
        if row.reference is not None:
            paired = (own - of_seeds[row.reference, row.measure]).values
            np.testing.assert_allclose([row.difference_low, row.difference_high], bootstrap(paired))
    assert (
        files.hash_file(tmp_path / "values.parquet")
        == files.read_json(tmp_path / "summary.json")["files"]["values.parquet"]
    )


def test_a_summary_without_values_is_made_again(sweep, tmp_path):
    """As of an earlier version."""
    for i, cell in enumerate(sweep.cells):
        write_run(tmp_path / cell.name, cell, random_curves(i))
    rows = summary.summarise(sweep, tmp_path)
    summary.write(sweep, rows, tmp_path)
    assert summary.missing(sweep, rows, tmp_path) == []
    about = files.read_json(tmp_path / "summary.json")
    hashes = {"summary.parquet": about["files"]["summary.parquet"]}
    files.write_json(tmp_path / "summary.json", {**about, "files": hashes})
    assert summary.missing(sweep, rows, tmp_path) == ["summary.parquet", "values.parquet", "summary.json"]


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
        "interquartile mean with percentile bootstrap (2,000 resamples), 95 %",
    )
    assert data["sign"] == "Student's t-test, Holm's correction over all comparisons of a measure"
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
    assert {row.difference_p for row in rows} == {None}
    summary.write(alone, rows, tmp_path)


def test_timings_are_seconds_per_step_without_intervals(sweep, tmp_path):
    for i, cell in enumerate(sweep.cells):
        write_run(tmp_path / cell.name, cell, random_curves(0), seconds=i + 1.0)
    timed = replace(sweep, measures=(TIMING,))
    rows = summary.summarise(timed, tmp_path)
    assert [row.value for row in rows] == pytest.approx([(i + 1) / NUM_STEPS for i in range(4)])
    assert {(row.low, row.difference) for row in rows} == {(None, None)}
    summary.write(timed, rows, tmp_path)
    assert not (tmp_path / "values.parquet").exists()
    assert "not reproducible" in json.loads((tmp_path / "summary.json").read_text())["measures"][TIMING]


def rising(rng: np.random.Generator, num_seeds: int, num_steps: int) -> tuple[dict[str, np.ndarray], ...]:
    """Return curves of two methods that learn alike: both have the luck of the seed, and noise of their own."""
    mean = 0.4 + 0.4 * np.linspace(0, 1, num_steps + 1)
    luck = 0.02 * rng.normal(size=(num_seeds, 1))
    walks = 0.005 * rng.normal(size=(2, num_seeds, num_steps + 1)).cumsum(-1)
    return tuple({"pass_at_1": mean + luck + walk, "entropy": 3 - mean + luck + walk} for walk in walks)


@pytest.mark.parametrize("num_seeds", [5, 8])
def test_intervals_of_a_sweep_hold_the_truth(num_seeds, small):
    """Two methods that learn alike, 400 sweeps: no difference, in 92 to 98 % of intervals, within 4 standard errors.

    That is .054 at .92, .028 at .98. The measure at equal progress takes the step from the reference's own noise: this
    moves it by less than can be seen here.
    """
    config = small("grpo", "mixed", num_seeds=num_seeds, num_steps=40)
    measures = ("pass_at_1", "pass_at_1_mean", "entropy_roughness", "pass_at_1_after_4_visits")
    measures += ("pass_at_1_at_reference_0.6",)
    rng, values = np.random.default_rng(num_seeds), []
    for _ in range(400):
        reference, method = rising(rng, num_seeds, 40)
        both = [summary.Measured(config, curves, reference) for curves in (method, reference)]
        values.append([[MEASURES[name].of(run) for name in measures] for run in both])
    own, others = np.moveaxis(np.array(values), (1, 3), (0, 1)).reshape(2, num_seeds, -1)
    gains = np.array(summary._gains(own, others)).reshape(400, len(measures), 3)
    held = ((gains[..., 1] <= 0) & (gains[..., 2] >= 0)).mean(axis=0)
    assert np.all((held >= 0.92 - 0.054) & (held <= 1.0)), dict(zip(measures, held, strict=True))
