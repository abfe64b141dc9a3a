"""Runs at scale are told apart by what they record; those that go on are left out, and unfit ones are named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paper_figs.experiments import ExperimentResults, about
from paper_figs.fig5_dynamics import Dynamics
from paper_figs.result_files import Curves
from paper_figs.scale_runs import CURVES, STOCK, ScaleRun, blocks, find_runs
from paper_figs.table1_models import TABLE, Evaluation
from paper_figs.table3_configuration import Configs
from paper_figs.wording import title
from tests.paper_figs.make_data import DATA, seal
from theory.base.files import read_json, write_json


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder with the four runs of the committed data: GRPO and DynaMO with seeds 1 and 2."""
    shutil.copytree(DATA / "scale", tmp_path / "scale")
    return tmp_path


def edit(folder: Path, where: str, value: Any) -> None:
    path = folder / "config.json"
    config = read_json(path)
    *parents, last = where.split(".")
    place = config
    for name in parents:
        place = place[name]
    place[last] = value
    write_json(path, config)
    seal(folder / "versions.json")


def test_reads_what_is_there(source: Path) -> None:
    runs = find_runs(source)
    assert [(run.axes["method"], run.seed) for run in runs] == [("dynamo", 1), ("dynamo", 2), ("grpo", 1), ("grpo", 2)]
    table = pq.read_table(source / "scale" / "dynamo-seed1" / "metrics.parquet")
    assert runs[0].axes["model"] == "tiny"
    assert runs[0].measure("pass_at_1") == table["val-core/tiny-arithmetic/acc/mean@8"][-1].as_py()
    norms = table["actor/grad_norm"].drop_null().to_numpy()
    assert runs[0].curves["gradient_norm"].values.tolist() == [norms.tolist()]
    assert runs[0].measure("gradient_norm") == pytest.approx(norms.mean())
    assert runs[0].measure("pass_at_32") != runs[0].measure("pass_at_32")  # there is none


@pytest.mark.parametrize(
    ("measure", "expected"),
    [("pass_at_1", 1.0), ("pass_at_1_mean", 3.0), ("entropy", 1.0), ("gradient_norm", 3.0), ("seconds_per_step", 3.0)],
)
def test_a_measure_is_the_last_value_or_the_mean(measure: str, expected: float) -> None:
    """Of 2, 6 and 1; norms and times are means over the run."""
    curve = Curves(np.array([1, 2, 3]), np.array([[2.0, 6.0, 1.0]]))
    run = ScaleRun(Path(), 1, {}, {}, dict.fromkeys(CURVES, curve))
    assert run.measure(measure) == expected


@pytest.mark.parametrize(
    ("column", "curve"),
    [
        ("val-core/math500/acc/mean@8", "pass_at_1"),
        ("val-core/math500/acc/best@32/mean", "pass_at_32"),
        ("val-aux/math500/score/best@32/mean", "pass_at_32"),
        ("val-core/math500/acc/best@8/mean", None),
        ("val-core/math500/acc/best@32/std", None),
        ("val-core/math500/acc/best@320/mean", None),
        ("actor/entropy_loss", None),
        ("timing_s/step", "seconds_per_step"),
    ],
)
def test_verls_names_of_the_metrics(column: str, curve: str | None) -> None:
    assert [name for name, like in CURVES.items() if re.fullmatch(like, column)] == ([] if curve is None else [curve])


def test_a_run_that_goes_on_is_left_out(source: Path) -> None:
    (source / "scale" / "grpo-seed2" / "versions.json").unlink()
    assert len(find_runs(source)) == 3


def test_folders_may_have_any_names_and_depth(source: Path) -> None:
    (source / "scale" / "deep").mkdir()
    (source / "scale" / "dynamo-seed1").rename(source / "scale" / "deep" / "x")
    assert {(run.axes["method"], run.seed) for run in find_runs(source)} == {
        ("dynamo", 1), ("dynamo", 2), ("grpo", 1), ("grpo", 2),
    }  # fmt: skip


def test_runs_compare_only_where_all_else_is_alike(source: Path) -> None:
    ((name, block),) = blocks(find_runs(source), ("method",))
    assert name == "tiny"
    assert {cell: [run.seed for run in runs] for cell, runs in block.items()} == {
        ("dynamo",): [1, 2], ("grpo",): [1, 2],
    }  # fmt: skip
    for method in ("grpo", "dynamo"):
        edit(source / "scale" / f"{method}-seed2", "actor_rollout_ref.actor.optim.lr", 0.5)
    two = blocks(find_runs(source), ("method",))
    assert [name for name, _ in two] == ["tiny, learning rate 0.001", "tiny, learning rate 0.5"]
    edit(source / "scale" / "dynamo-seed2", "data.train_batch_size", 8)
    assert [name for name, _ in blocks(find_runs(source), ("method",))] == ["tiny"]  # the others differ in two ways


def test_methods_that_are_not_of_an_experiment_stay_out(source: Path) -> None:
    def experiment(*methods: str) -> ExperimentResults:
        return ExperimentResults(
            name="none", axes=("method",), measures=("pass_at_1",), scale=("method",), reference={"method": "grpo"},
            methods=methods,
        )  # fmt: skip

    assert [cell.axes["method"] for cell in experiment().read(source)] == ["dynamo", "grpo"]
    assert experiment("grpo", "dynamo").exists(source)
    assert not experiment("dynamo", "dynamo-no-dra").exists(source)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "SHA-256"),
        ("config.json", None, "No such file"),
        ("metrics.parquet", "PAR1", "SHA-256"),
        ("metrics.parquet", None, "No such file"),
    ],
)
def test_damaged_runs_are_named(source: Path, file: str, content: str | None, message: str) -> None:
    path = source / "scale" / "grpo-seed2" / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    for read in (lambda: find_runs(source), lambda: Dynamics().read(source), lambda: Configs().read(source)):
        with pytest.raises(ValueError, match=message) as error:
            read()
        assert str(error.value).startswith(f"{path}: expected ")


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("dynamo", {}, "one without 'dynamo"),
        ("dynamo.method", ["grpo"], "one without a single value of dynamo.method"),
        ("dynamo.stock", "false", "one without true or false as dynamo.stock"),
        ("dynamo.stock", None, "one without true or false as dynamo.stock"),
        ("dynamo.seed", "1", "one without dynamo.seed: expected an integer, got '1'"),
        ("dynamo.seed", True, "one without dynamo.seed: expected an integer, got True"),
        ("trainer.total_training_steps", None, "total_training_steps: expected an integer, got None"),
    ],
)
def test_unfit_settings_are_named(source: Path, where: str, value: Any, message: str) -> None:
    edit(source / "scale" / "grpo-seed2", where, value)
    with pytest.raises(ValueError, match=message) as error:
        find_runs(source)
    path = source / "scale" / "grpo-seed2" / "config.json"
    assert str(error.value).startswith(f"{path}: expected the configuration of a run at scale")


def test_a_benchmark_that_is_missing_at_a_step_is_no_mean_of_the_others(source: Path) -> None:
    path = source / "scale" / "grpo-seed1" / "metrics.parquet"
    table = pq.read_table(path)
    name = "val-core/tiny-arithmetic/acc/mean@8"
    other = [x if i else None for i, x in enumerate(table[name].to_pylist())]
    pq.write_table(table.append_column(name.replace("tiny", "big"), pa.array(other)), path)
    seal(path.parent / "versions.json")
    with pytest.raises(ValueError, match="at the same steps, got gaps in some of them") as error:
        find_runs(source)
    assert str(error.value).startswith(f"{path}: expected ")


def test_a_setting_that_is_not_there_is_named_and_null_is_a_value(source: Path) -> None:
    assert {run.axes["alpha"] for run in find_runs(source)} == {"None"}
    path = source / "scale" / "dynamo-seed1" / "config.json"
    config = read_json(path)
    del config["dynamo"]["alpha"]
    write_json(path, config)
    seal(path.parent / "versions.json")
    with pytest.raises(ValueError, match=r"got one without .dynamo\.alpha."):
        find_runs(source)


def test_a_caption_counts_the_seeds_that_differences_share(source: Path) -> None:
    """DynaMO has seeds 1 and 2, GRPO only 2: two seeds of a value, one pair of a difference."""
    experiment = ExperimentResults(
        name="none", axes=("method",), measures=("pass_at_1",), scale=("method",), reference={"method": "grpo"}
    )
    assert "shared" not in about(experiment.read(source))
    shutil.rmtree(source / "scale" / "grpo-seed1")
    cells = experiment.read(source)
    assert [(cell.axes["method"], cell.num_seeds, cell.num_pairs) for cell in cells] == [
        ("dynamo", 2, 1), ("grpo", 1, 1),
    ]  # fmt: skip
    said = about(cells).split(", ", 1)[1]
    assert said == "1 to 2 seeds (mean with Student's t, 95 %), differences of 1 shared seed, without interval"


def test_verls_own_grpo_is_the_method_stock(source: Path) -> None:
    edit(source / "scale" / "grpo-seed1", "dynamo.stock", True)
    assert [run.axes["method"] for run in find_runs(source)] == ["dynamo", "dynamo", STOCK, "grpo"]
    assert title(STOCK) == "GRPO (stock)"


def test_rows_of_another_seed_are_refused(source: Path) -> None:
    path = source / "scale" / "grpo-seed1" / "metrics.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "seed", pa.array([9] * len(table))), path)
    seal(path.parent / "versions.json")
    with pytest.raises(ValueError, match="in order, got other seeds"):
        find_runs(source)
    versions = read_json(path.parent / "versions.json")
    write_json(path.parent / "versions.json", {**versions, "seeds": [9]})
    with pytest.raises(ValueError, match=r"rows of seed 1, the one of config.json, got other rows"):
        find_runs(source)


def test_evaluation(source: Path) -> None:
    path = source / "scale" / "evaluation" / "table.json"
    rows = Evaluation().read(source)
    assert [row["method"] for row in rows] == ["GRPO", "DynaMO"]
    average = rows[0]["cells"]["average"]
    for row, message in (
        ({"source": "measured", "model": "m"}, "got none named method, cells"),
        ({**rows[0], "seeds": None}, "seeds of type list, got None"),
        ({**rows[0], "cells": {"average": {"pass@1": {}}}}, "got none named value, low, high"),
        ({**rows[0], "cells": {"average": {"pass@1": {**average["pass@1"], "value": True}}}}, "got True"),
        ({**rows[0], "cells": {"average": {"pass@1": {**average["pass@1"], "low": 99.0}}}}, "low to high"),
    ):
        write_json(path, {"rows": [row]})
        with pytest.raises(ValueError, match=message) as error:
            Evaluation().read(source)
        assert str(error.value).startswith(f"{path}: row")
    path.unlink()
    assert Evaluation().read(source) == []


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([[1, 2, 3]], "for problems and seeds, on the scale of the logit; no correction"),
        ([[1]], "for problems, on the scale of the logit, which tells nothing of other seeds; no correction"),
        ([[1, 2], [1]], "for problems and seeds, on the scale of the logit, of one seed for problems only, which"),
    ],
)
def test_the_caption_of_an_evaluation_names_its_intervals(seeds: list[list[int]], said: str) -> None:
    assert f"95 % intervals with Student's t {said}" in TABLE.caption([{"seeds": each} for each in seeds])
    assert "intervals with" not in TABLE.caption([])
