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

CHOOSING = ("tuning", "norms")
"""Sweeps that choose learning rates; their seeds are no others'."""

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
        if sweep.name in CHOOSING:
            assert min(cell.config.seeds) >= 1000
        else:
            assert cell.config.num_seeds >= 32
    for cell in sweep.longer().cells:
        assert sweep.name in CHOOSING or max(cell.config.seeds) < 1000


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
        "script-settings": {"method.shaping.alpha_comp", "method.shaping.alpha_stab", "method.shaping.threshold"},
        **{f"row-{defects}": {"row_defects"} for defects in ("expansion", "history", "both")},
    }
    every = {"method.allocator", "method.loss.clip_high", "method.shaping.mean", "normalizer_prompts"}
    released = every | single["script-settings"] | {"row_defects"}
    assert changed == {**single, "all-of-the-code": every, "as-released": released}
    assert {name: config["row_defects"] for name, config in cells.items() if config["row_defects"] != "none"} == {
        "row-expansion": "expansion",
        "row-history": "history",
        "row-both": "both",
        "as-released": "both",
    }
    for name in ("script-settings", "as-released"):
        shaping = cells[name]["method"]["shaping"]
        assert [shaping[x] for x in ("alpha_comp", "alpha_stab", "threshold", "sharpness")] == [0.2, 0.4, 0.99, 50.0]


def test_regimes_differ_in_visits_and_rate_and_variants_in_what_they_say():
    cells = {(cell.axes["regime"], cell.axes["variant"]): cell.config for cell in SWEEPS["regimes"].cells}
    assert len(cells) == len(SWEEPS["regimes"].cells) == 7 * 6
    regimes = dict.fromkeys(regime for regime, _ in cells)
    for regime in regimes:
        grpo = cells[regime, "grpo"]
        visits = grpo.num_steps * grpo.batch_prompts / grpo.world.num_prompts
        assert regime == f"{grpo.world_name}-{visits:g}-visits-rate-{grpo.optimizer.learning_rate:g}"
        changed = {
            variant: set(differences(cells[regime, variant].to_dict(), grpo.to_dict()))
            for variant in ("allocation", "allocation-last-visit", "allocation-true-rates", "log-progress-0.5")
        }
        assert changed == {
            "allocation": {"method.allocator"},
            "allocation-last-visit": {"method.allocator", "history_discount"},
            "allocation-true-rates": {"method.allocator", "success_rates"},
            "log-progress-0.5": {"method.allocator", "history_discount"},
        }
        assert cells[regime, "dynamo"].method == METHODS["dynamo"]
        assert cells[regime, "allocation-last-visit"].history_discount == 0.0
        assert cells[regime, "log-progress-0.5"].history_discount == 0.5
        assert cells[regime, "log-progress-0.5"].method.allocator == "log-progress"
    assert {cell.config.world.num_prompts for cell in SWEEPS["regimes"].cells} == {256, 2048}


def test_under_adamw_the_control_has_a_larger_step_and_nothing_else():
    cells = {tuple(cell.axes.values()): cell.config for cell in SWEEPS["adamw"].cells}
    assert {config.optimizer.name for config in cells.values()} == {"adamw"}
    for world, base, variant in cells:
        config, grpo = cells[world, base, variant], cells[world, base, "grpo"]
        assert grpo.optimizer.learning_rate == float(base)
        if variant == "grpo-1.05":
            assert differences(config.to_dict(), grpo.to_dict()) == ["optimizer.learning_rate"]
            assert config.optimizer.learning_rate == pytest.approx(1.05 * float(base))
        else:
            assert (config.method, config.optimizer) == (METHODS[variant], grpo.optimizer)
    assert {base for _, base, _ in cells} == {"0.01", "0.03"}


def test_every_aggregation_has_a_grpo_of_its_own():
    for cell in SWEEPS["aggregation"].cells:
        reference = SWEEPS["aggregation"].reference_of(cell).config
        assert reference.method == replace(METHODS["grpo"], aggregation=cell.axes["aggregation"])


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


VISITS = tuple(f"pass_at_1_after_{visits}_visits" for visits in (4, 8, 16, 25, 50))
ACCURACIES = tuple(f"pass_at_1_at_reference_0.{tenths}" for tenths in range(5, 10))
MEASURED = ("pass_at_1", "pass_at_1_mean", "pass_at_32", *VISITS, *ACCURACIES)
MAPPED = ("pass_at_1", "pass_at_1_mean", "rollouts", *VISITS, *ACCURACIES)
LONG, SHORT = {"mixed": 200, "skills": 60}, {"mixed": 100}
EVERYWHERE = {**dict.fromkeys(WORLDS, 200), "skills-long": 100}


@pytest.mark.parametrize(
    ("name", "cells", "steps", "measures", "reference"),
    [
        ("table1", 18, LONG, (*MEASURED[:3], "gradient_norm", *MEASURED[3:]), ("method", "grpo")),
        ("table2", 16, LONG, MEASURED, ("method", "dynamo")),
        ("fig2", 8, SHORT, MEASURED, ("method", "dynamo-no-dra")),
        ("fig3", 13, SHORT, MEASURED, ("factor", "default")),
        ("fig4", 24, {"mixed": 100, "skills": 100}, MEASURED, ("method", "grpo")),
        (
            "fig5",
            4,
            LONG,
            ("entropy", "entropy_roughness", "gradient_norm", "gradient_norm_tail"),
            ("method", "grpo"),
        ),
        ("fig6", 18, {"mixed": 20, "skills": 20}, (TIMING,), ("method", "grpo")),
        ("allocation-map", 42, dict.fromkeys(("binary", "diffuse", "mixed"), 100), MAPPED, ("rule", "uniform")),
        ("allocation-map-more", 28, dict.fromkeys(("peaked", "skills"), 100), MAPPED, ("rule", "uniform")),
        ("bounds", 56, SHORT, MAPPED, ("rule", "uniform")),
        ("paper-vs-code", 28, LONG, MEASURED, ("variant", "paper")),
        ("horizons", 24, EVERYWHERE, MEASURED, ("method", "grpo")),
        ("adamw", 20, LONG, MEASURED, ("variant", "grpo")),
        ("aggregation", 16, LONG, MEASURED, ("method", "grpo")),
        ("micro-batch", 16, LONG, MEASURED, ("prompts", "batch")),
        ("norms", 18, {"mixed": 5, "skills": 5}, ("gradient_norm",), ("method", "grpo")),
        ("lag", 23, {"mixed": 200}, MEASURED, ("rule", "uniform")),
        ("learning-rate", 64, LONG, MEASURED, ("method", "grpo")),
        ("tuning", 180, LONG, ("pass_at_1_mean", "pass_at_1"), ("learning_rate", "10")),
    ],
)
def test_sizes_and_measures_are_those_of_the_reported_results(name, cells, steps, measures, reference):
    sweep = SWEEPS[name]
    assert len(sweep.cells) == cells
    assert {cell.config.world_name: cell.config.num_steps for cell in sweep.cells} == steps
    assert len({(cell.config.world_name, cell.config.num_steps) for cell in sweep.cells}) == len(steps)
    seeds = range(1000, 1016) if name in CHOOSING else range(32)
    assert {cell.config.seeds for cell in sweep.cells} == {tuple(seeds)}
    assert (sweep.measures, dict([reference])) == (measures, dict(sweep.reference))
    assert sweep.chooses == ("learning_rate" if name == "tuning" else None)
    assert sweep.equalizes == ("gradient_norm" if name == "norms" else None)


@by_sweep
def test_what_an_axis_says_is_what_the_config_has(sweep):
    for cell in sweep.cells:
        config = cell.config
        held = {
            "world": config.world_name,
            "rule": config.method.allocator,
            "aggregation": config.method.aggregation,
            "mean": getattr(config.method.shaping, "mean", ""),
            "prompts": "batch" if config.normalizer_prompts is None else str(config.normalizer_prompts),
            "rollouts": str(config.rollouts),
            "bounds": f"{config.rollouts_low}-{config.rollouts_high}",
            "learning_rate": f"{config.optimizer.learning_rate:g}",
            "discount": "true" if config.success_rates == "true" else f"{config.history_discount:g}",
        }
        assert {axis: held[axis] for axis in held.keys() & cell.axes.keys()} == {
            axis: cell.axes[axis] for axis in held.keys() & cell.axes.keys()
        }
        if "method" in cell.axes:
            method = METHODS[cell.axes["method"]]
            assert config.method == replace(method, aggregation=cell.axes.get("aggregation", method.aggregation))


def test_settings_are_those_that_the_reports_name():
    """16 rollouts are a micro-batch of the public code: 4 prompts' part of a mini-batch of a quarter of 16 rollouts."""
    lags = {cell.axes["discount"] for cell in SWEEPS["lag"].cells}
    assert lags == {"1", "0.5", "0", "true"}
    bounds = {cell.axes["bounds"] for cell in SWEEPS["bounds"].cells}
    assert bounds == {"12-20", "8-24", "4-48", "2-64"}
    rates = {name: {cell.axes["learning_rate"] for cell in SWEEPS[name].cells} for name in ("tuning", "learning-rate")}
    assert rates["tuning"] == {"10", "30", "100", "300", "1000", "3000"}
    assert rates["learning-rate"] == {"3", "7", "10", "11", "12", "14", "20", "30"}
    sizes = {(cell.axes["size"], cell.axes["setting"]) for cell in SWEEPS["fig4"].cells}
    grown = {"answers": (8, 32, 128, 512), "prompts": (64, 1024), "length": (2, 8, 16), "skills": (12, 48, 192)}
    assert sizes == {(size, str(setting)) for size, settings in grown.items() for setting in settings}
    for cell in SWEEPS["fig4"].cells:
        world, setting = cell.config.world, int(cell.axes["setting"])
        if cell.axes["size"] == "skills":
            assert (world.num_skills, world.num_decisions) == (setting, setting // 2)
        elif cell.axes["size"] == "length":
            assert (world.length_low, world.length_high) == (setting, setting)
        else:
            assert getattr(world, f"num_{cell.axes['size']}") == setting
    blocks = {
        cell.axes["variant"]: cell.config.normalizer_prompts
        for cell in SWEEPS["paper-vs-code"].cells
        if cell.config.normalizer_prompts is not None
    }
    assert blocks == {"micro-batch": 4, "all-of-the-code": 4, "as-released": 4}
    sizes = {(cell.axes["mean"], cell.axes["prompts"]) for cell in SWEEPS["micro-batch"].cells}
    assert sizes == {(mean, size) for mean in ("vocabulary", "sequence") for size in ("batch", "4", "16", "64")}
