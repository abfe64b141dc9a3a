"""toy.experiments.sweeps: every sweep is what its name says, of valid and different runs at equal cost."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from theory.allocation.rules import ALLOCATORS
from theory.base.runs import differences
from theory.methods import METHODS
from toy.experiments.design import TIMING, Cell, Sweep
from toy.experiments.summary import MEASURES, SummaryRow
from toy.experiments.sweeps import DEFAULT, STEPS, SWEEPS, get_sweeps
from toy.training.config import TrainConfig
from toy.worlds import WORLDS

by_sweep = pytest.mark.parametrize("sweep", SWEEPS.values(), ids=lambda sweep: sweep.name)


@by_sweep
def test_cells_are_valid_different_and_survive_json(sweep):
    plain = [cell.config.to_dict() for cell in sweep.cells]
    assert [TrainConfig.from_dict(json.loads(json.dumps(data))) for data in plain] == [c.config for c in sweep.cells]
    assert len({cell.name for cell in sweep.cells}) == len(sweep.cells)
    assert len({json.dumps(data) for data in plain}) == len(sweep.cells)
    assert sweep.measures == (TIMING,) or set(sweep.measures) <= set(MEASURES)
    assert SWEEPS[sweep.name] is sweep


@by_sweep
def test_cells_compete_at_equal_cost_on_the_same_seeds(sweep):
    for cell in sweep.cells:
        reference = sweep.reference_of(cell)
        assert sweep.reference_of(reference) is reference
        assert all(cell.axes[axis] == reference.axes[axis] for axis in sweep.blocks)
        for name in ("world", "seeds", "num_steps", "batch_prompts", "rollouts", "num_minibatches", "num_epochs"):
            assert getattr(cell.config, name) == getattr(reference.config, name), (cell.name, name)


@by_sweep
def test_reported_seeds_are_at_least_32_and_never_those_of_the_tuning(sweep):
    for cell in sweep.cells:
        if sweep.name == "tuning":
            assert min(cell.config.seeds) >= 1000
        else:
            assert cell.config.num_seeds >= 32
    for cell in sweep.longer().cells:
        assert sweep.name == "tuning" or max(cell.config.seeds) < 1000


def test_tables_have_the_rows_of_the_paper():
    rows = {
        "table1": ("grpo clip-higher entropy-loss fork-tokens entropy-advantages clip-cov kl-cov w-reinforce dynamo"),
        "table2": "dynamo dynamo-no-gc dynamo-no-ums dynamo-no-dra dynamo-only-ums dynamo-only-dra dynamo-only-gc grpo",
    }
    for name, methods in rows.items():
        found = [(cell.axes["world"], cell.config.method) for cell in SWEEPS[name].cells]
        assert found == [(world, METHODS[method]) for world in STEPS for method in methods.split()]


def test_fig2_scales_the_bounds_with_the_mean():
    cells = SWEEPS["fig2"].cells
    sizes = [(c.config.rollouts_low, c.config.rollouts, c.config.rollouts_high) for c in cells[::2]]
    assert sizes == [(4, 8, 12), (8, 16, 24), (12, 24, 36), (16, 32, 48)]
    assert {cell.config.method.allocator for cell in cells[::2]} == {"dynamo"}
    assert {cell.config.method.allocator for cell in cells[1::2]} == {"uniform"}


def test_fig3_varies_one_factor_at_a_time():
    sweep = SWEEPS["fig3"]
    expected = {
        "default": set(),
        "alpha": {"method.shaping.alpha"},
        "bounds": {"rollouts_low", "rollouts_high"},
        "sharpness": {"method.shaping.sharpness"},
        "threshold": {"method.shaping.threshold"},
    }
    for cell in sweep.cells:
        reference = sweep.reference_of(cell).config
        assert set(differences(cell.config.to_dict(), reference.to_dict())) == expected[cell.axes["factor"]]
    assert sweep.reference_of(sweep.cells[0]).config.method == METHODS["dynamo"]


def test_fig4_varies_one_size_at_a_time():
    for cell in SWEEPS["fig4"].cells:
        world = WORLDS[cell.config.world_name]
        sizes = {"length": 2, "skills": 2}
        changed = [name for name in vars(world) if getattr(world, name) != getattr(cell.config.world, name)]
        assert len(changed) in (0, sizes.get(cell.axes["size"], 1))


def test_axes_are_not_columns_of_the_summary():
    """Both are columns of the written rows: an axis `value` is overwritten by the number."""
    columns = {field.name for field in fields(SummaryRow)}
    assert {axis for sweep in SWEEPS.values() for axis in sweep.axes} & columns == set()


def test_maps_have_every_rule():
    cells = (*SWEEPS["allocation-map"].cells, *SWEEPS["allocation-map-more"].cells)
    worlds = ("binary", "diffuse", "mixed", "peaked", "skills")
    found = [(cell.config.world_name, cell.config.method.allocator) for cell in cells]
    assert sorted(found) == sorted((world, rule) for world in worlds for rule in ALLOCATORS)
    assert {cell.config.method.allocator for cell in SWEEPS["bounds"].cells} == set(ALLOCATORS)
    assert {cell.config.method_name for cell in SWEEPS["tuning"].cells} == set(METHODS)


def test_paper_and_code_differ_in_what_the_variant_says():
    paper = next(cell.config.to_dict() for cell in SWEEPS["paper-vs-code"].cells if cell.axes["variant"] == "paper")
    cells = {
        cell.axes["variant"]: cell.config.to_dict()
        for cell in SWEEPS["paper-vs-code"].cells
        if cell.config.world_name == paper["world_name"]
    }
    changed = {name: set(differences(config, paper)) for name, config in cells.items() if name not in ("grpo", "paper")}
    single = {
        "root-of-p": {"method.allocator"},
        "code-allocation": {"method.allocator"},
        "clip-0.28": {"method.loss.clip_high"},
        "sequence-mean": {"method.shaping.mean"},
        "micro-batch": {"normalizer_prompts"},
        "prompt-mean": {"method.aggregation"},
    }
    every = {"method.allocator", "method.loss.clip_high", "method.shaping.mean", "normalizer_prompts"}
    assert changed == {**single, "all-of-the-code": every}


def test_lag_compares_histories_with_true_success_rates():
    cells = {(cell.axes["rule"], cell.axes["discount"]): cell.config for cell in SWEEPS["lag"].cells}
    for rule in ("dynamo", "neyman", "gvm", "vip", "log-progress"):
        assert cells[rule, "true"].success_rates == "true"
        assert {cells[rule, x].success_rates for x in ("1", "0.5", "0")} == {"history"}


def test_names_groups_and_unknown_ones():
    assert get_sweeps(["all"]) == tuple(SWEEPS.values())
    assert [sweep.name for sweep in get_sweeps(["fig2", "default", "fig2"])] == [
        "fig2",
        *(name for name in DEFAULT if name != "fig2"),
    ]
    with pytest.raises(ValueError, match=r"sweep: expected one of table1, .*, default, all, got 'table3'"):
        get_sweeps(["table3"])


def test_longer_doubles_seeds_and_steps():
    short, longer = SWEEPS["fig5"], SWEEPS["fig5"].longer()
    for before, after in zip(short.cells, longer.cells, strict=True):
        assert after.axes == before.axes
        assert set(differences(before.config.to_dict(), after.config.to_dict())) == {"num_seeds", "num_steps"}
        assert (after.config.num_seeds, after.config.num_steps) == (64, 2 * before.config.num_steps)
        assert longer.reference_of(after).config.num_seeds == 64


def test_tuned_learning_rates_replace_the_default_and_none_may_lack():
    sweep = replace(SWEEPS["fig5"], cells=SWEEPS["fig5"].cells[:2])
    choices = [
        {"world": "mixed", "method": name, "learning_rate": rate} for name, rate in (("grpo", "30"), ("dynamo", "3"))
    ]
    assert [cell.config.optimizer.learning_rate for cell in sweep.tuned(choices).cells] == [30.0, 3.0]
    with pytest.raises(ValueError, match="tuned: expected a learning rate for dynamo in mixed, got none"):
        sweep.tuned(choices[:1])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([("a", 0, 3), ("a", 0, 3)], "expected different names fit for folders, got 'a'"),
        ([("../a", 0, 3)], "expected different names fit for folders, got '../a'"),
        ([("b", 0, 3)], "reference: expected one run of the same seeds for s/b"),
        ([("a", 0, 3), ("b", 1, 3)], "reference: expected one run of the same seeds for s/b"),
        ([("a", 0, 3), ("b", 0, 4)], "reference: expected one run of the same seeds for s/b"),
    ],
)
def test_a_wrong_sweep_is_refused(cells, message, small):
    made = tuple(Cell({"method": name}, small(first_seed=first, num_seeds=number)) for name, first, number in cells)
    with pytest.raises(ValueError, match=message):
        Sweep(name="s", title="", reproduces="", cells=made, blocks=(), reference={"method": "a"})


def test_cells_of_other_axes_are_refused(small):
    cells = (Cell({"method": "a"}, small()), Cell({"world": "b"}, small()))
    with pytest.raises(ValueError, match="cells: expected the axes method, got b in s"):
        Sweep(name="s", title="", reproduces="", cells=cells, blocks=(), reference={"method": "a"})
