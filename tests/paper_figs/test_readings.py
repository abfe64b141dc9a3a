"""What figures and tables say of numbers that are made by hand: every number of their readings, and what is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from paper_figs import fig5_dynamics, horizons
from paper_figs.experiments import CellResult, estimate
from paper_figs.figure import Figure, Table, items
from paper_figs.result_files import Curves, RunCurves
from paper_figs.wording import points
from theory.base.tables import Estimate
from toy.experiments import design

ITEMS = items()


CONFIG = {
    "num_steps": 40, "batch_prompts": 8, "world": {"num_prompts": 32},
    "optimizer": {"name": "sgd", "learning_rate": 10.0},
}  # fmt: skip
WHERE = "w (tabular, 10 visits a prompt, SGD at learning rate 10, 4 seeds)"
NO_EVIDENCE = "A tabular world is no evidence about language models."
AFTER_4, AFTER_8 = "pass_at_1_after_4_visits", "pass_at_1_after_8_visits"


def gain(value: float, sign: int = 0) -> Estimate:
    """Return a difference whose interval is on one side of 0, or holds it."""
    width = 0.5 * abs(value) if sign else 2 * abs(value) + 0.001
    return Estimate(value, value - width, value + width, 0.001 if sign else 0.9)


def cell(
    axes: Mapping[str, str], values: Mapping[str, float], gains: Mapping[str, Estimate] | None = None, **fields: Any
) -> CellResult:
    """Return a cell of the tabular world w."""
    given = {"setting": "w", "is_toy": True, "num_seeds": 4, "config": CONFIG, **fields}
    estimates = {name: Estimate(x, x - 0.01, x + 0.01) for name, x in values.items()}
    return CellResult(axes=axes, values=estimates, differences=gains or {}, **given)


def reading(name: str, *data: Any) -> str:
    item = ITEMS[name]
    assert isinstance(item, (Figure, Table))
    return item.reading(*data)


def axes_of(name: str, *data: Any) -> list[Axes]:
    item = ITEMS[name]
    assert isinstance(item, Figure)
    return list(item.draw(*data).axes)


def drawn(ax: Axes, label: str) -> list[list[float]]:
    """Return x and y of the points with a label, whether lines or points with intervals."""
    lines = [x for x in ax.lines if x.get_label() == label]
    lines += [x.lines[0] for x in ax.containers if x.get_label() == label]
    (found,) = lines
    return [np.asarray(x, dtype=float).tolist() for x in (found.get_xdata(), found.get_ydata())]


# Experiments


def budgets() -> list[CellResult]:
    cells = []
    for rollouts, end, sign in (("16", 0.02, 1), ("8", -0.01, 0), ("24", 0.05, 1)):
        gains = {"pass_at_1": gain(end, sign), "pass_at_1_mean": gain(2 * end, 1), "pass_at_32": gain(-end, 0)}
        gains |= {AFTER_4: gain(0.03, 1), "pass_at_1_at_reference_0.6": gain(-end, 1)}
        n = float(rollouts)
        values = {"pass_at_1": n / 100, "pass_at_1_mean": n / 200, "pass_at_32": n / 50, AFTER_4: n / 200}
        cells.append(cell({"rollouts": rollouts, "method": "dynamo"}, values, gains))
        cells.append(cell({"rollouts": rollouts, "method": "dynamo-no-dra"}, {x: y - 0.01 for x, y in values.items()}))
    return cells


def test_budgets() -> None:
    assert reading("fig2_budgets", budgets()) == (
        f"{WHERE}: with allocation minus without, in points of pass@1 at 16 rollouts: +3.00 [+1.50, +4.50] after 4 "
        "visits, +2.00 [+1.00, +3.00] at the end; of 3 budgets, after 4 visits ahead in 3, behind in 0, undecided in "
        "0; at the end ahead in 2, behind in 0, undecided in 1. The paper says that dynamic allocation gains at every "
        f"budget; its numbers are of language models at the end of their training. {NO_EVIDENCE}"
    )
    left, right, visits, matched = axes_of("fig2_budgets", budgets())
    np.testing.assert_allclose(drawn(left, "DynaMO"), [[8, 16, 24], [8, 16, 24]])
    np.testing.assert_allclose(drawn(left, "without dynamic allocation"), [[8, 16, 24], [7, 15, 23]])
    for label, gains in (("pass@1, end", [-1, 2, 5]), ("pass@1, mean", [-2, 4, 10]), ("pass@32, end", [1, -2, -5])):
        x, y = drawn(right, label)
        np.testing.assert_allclose(x, [8, 16, 24], atol=0.5)
        np.testing.assert_allclose(y, gains)
    for i, (budget, end) in enumerate((("8", -1), ("16", 2), ("24", 5))):
        x, y = drawn(visits, budget)
        np.testing.assert_allclose(x, [4, 10], rtol=0.05)
        np.testing.assert_allclose(y, [3, end])
        np.testing.assert_allclose(matched.lines[3 * i + 2].get_xydata(), [[60, -end]], atol=0.5)


def test_budgets_without_horizons_have_no_second_row() -> None:
    short = [replace(c, differences={x: y for x, y in c.differences.items() if "_at_1_a" not in x}) for c in budgets()]
    assert len(axes_of("fig2_budgets", short)) == 2


def factors(highest: float = 0.012) -> list[CellResult]:
    shaping = {"alpha": 0.4, "sharpness": 50.0, "threshold": 0.9}
    config = {**CONFIG, "method": {"shaping": shaping}, "rollouts_low": 8, "rollouts_high": 24}
    cells = [cell({"factor": "default"}, {"pass_at_1": 0.80}, config=config)]
    for factor, changes in {
        "alpha": {0.0: -0.03, 0.2: -0.005, 0.6: highest, 1.0: 0.01},
        "bounds": {(4, 28): 0.004, (12, 20): -0.002, (16, 16): -0.05},
        "sharpness": {5.0: -0.02, 200.0: -0.015},
        "threshold": {0.5: 0.001},
    }.items():
        for value, change in changes.items():
            own = {**config, "method": {"shaping": {**shaping, factor: value}}}
            if isinstance(value, tuple):
                own = {**config, "rollouts_low": value[0], "rollouts_high": value[1]}
            gains = {"pass_at_1": gain(change, 1), AFTER_8: gain(-change, 1)}
            cells.append(cell({"factor": factor}, {"pass_at_1": 0.80 + change}, gains, config=own))
    return cells


def test_hyperparameters() -> None:
    """The range without allocation, which would be the lowest of the bounds, is named and no part of their range."""
    text = reading("fig3_hyperparameters", factors())
    assert text.startswith(
        f"{WHERE}: pass@1 minus the default's, in points, from lowest to highest: after 8 visits alpha "
        "−1.20 [−1.80, −0.60] at 0.6 to +3.00 [+1.50, +4.50] at 0; bounds −0.40 [−0.60, −0.20] at [4, 28] to "
        "+0.20 [+0.10, +0.30] at [12, 20]; "
    )
    assert text.endswith(
        "And at the end alpha −3.00 [−4.50, −1.50] at 0 to +1.20 [+0.60, +1.80] at 0.6; bounds "
        "−0.20 [−0.30, −0.10] at [12, 20] to +0.40 [+0.20, +0.60] at [4, 28]; sharpness −2.00 [−3.00, −1.00] at 5 to "
        "−1.50 [−2.25, −0.75] at 200; threshold +0.10 [+0.05, +0.15] at 0.5; without allocation −5.00 [−7.50, −2.50] "
        "at [16, 16] (off). The paper says that alpha has an inverted U: here the default is at the end ahead of 0 and "
        "behind 1, and the highest is 0.6. It says that bounds, sharpness and threshold are stable over wide ranges; "
        f"no allocation is none of these. {NO_EVIDENCE}"
    )
    assert "and the highest is 1." in reading("fig3_hyperparameters", factors(highest=0.009))


def sizes() -> list[CellResult]:
    cells = []
    for size, field, gains in (
        ("answers", "num_answers", (0.01, 0.02, 0.04)),
        ("prompts", "num_prompts", (0.03, -0.01)),
    ):
        for setting, change in zip((8, 32, 128), gains, strict=False):
            world = {"num_answers": 16, "num_prompts": 256, "skills": size, field: setting}
            config = {**CONFIG, "world": world}
            axes = {"size": size, "setting": str(setting), "method": "dynamo"}
            differences = {"pass_at_1": gain(change, 1)} | ({AFTER_4: gain(0.05, 1)} if setting == 8 else {})
            cells.append(cell(axes, {"pass_at_1": 0.5}, differences, config=config))
            cells.append(cell({**axes, "method": "grpo"}, {"pass_at_1": 0.4}, config=config))
    return cells


def test_sizes() -> None:
    """A world's size is no model's: there is no verdict."""
    assert reading("fig4_scaling", sizes()) == (
        "w (tabular, 1.25 to 40 visits a prompt, SGD at learning rate 10, 4 seeds): DynaMO minus GRPO in points of "
        "pass@1, for the smallest and the largest size: answers 8: +5.00 [+2.50, +7.50] after 4 visits, "
        "+1.00 [+0.50, +1.50] at the end; 128: +4.00 [+2.00, +6.00] at the end. prompts 8: +5.00 [+2.50, +7.50] after "
        "4 visits, +3.00 [+1.50, +4.50] at the end; 32: −1.00 [−1.50, −0.50] at the end. The paper says that the lead "
        "over GRPO widens from models of 1.5B to 14B parameters: premise absent, for a table has no model size, so "
        f"that there is no verdict. {NO_EVIDENCE}"
    )
    first, second = axes_of("fig4_scaling", sizes())
    assert drawn(first, "at the end")[1] == pytest.approx([1, 2, 4])
    assert drawn(first, "after 4 visits")[1] == pytest.approx([5])
    assert drawn(second, "at the end")[1] == pytest.approx([3, -1])


STEPS = np.arange(1, 101)


def dynamics(spike: float, zigzag: float) -> RunCurves:
    """Norms that fall by half, with spikes that differ by seed; and an entropy that falls, with a zigzag."""
    seeds = np.linspace(1.0, 1.01, 4)[:, None]
    spikes = spike * np.linspace(0.99, 1.01, 4)[:, None]
    norms = seeds * np.where(STEPS > 50, 1.0, 2.0) * np.where(STEPS % 20 == 10, spikes, 1.0)
    entropy = seeds * (zigzag * (STEPS % 2) - 0.01 * STEPS)
    config = {**CONFIG, "num_steps": 100}
    return RunCurves(config, np.arange(4), {"gradient_norm": Curves(STEPS, norms), "entropy": Curves(STEPS, entropy)})


def test_dynamics_without_spikes_have_no_verdict() -> None:
    pairs = [fig5_dynamics.Pair("w", True, dynamics(1.5, 0.001), dynamics(1.2, 0.0001))]
    text = reading("fig5_dynamics", pairs)
    assert text.startswith(
        "w (tabular, 25 visits a prompt, learning rate 10, 4 seeds): the 99 % quantile of GRPO's gradient norm over "
        "its running median is 1.50, DynaMO's minus that −0.30 [−0.30, −0.30]; GRPO's entropy goes 1.00 times the way "
        "from its start to its end, and the roughness of DynaMO's minus GRPO's is −0.00181 [−0.00182, −0.00180] nats. "
    )
    assert text.endswith(
        "The paper says that GRPO has gradient spikes and an erratic entropy, and that DynaMO is smoother. Premise "
        "absent, and no verdict: spikes in w; erratic entropy in w (a spike is 2 times the running median, an erratic "
        f"entropy goes 2 times its way; both limits are ours). {NO_EVIDENCE}"
    )
    assert "DynaMO against GRPO" not in text


def test_dynamics_with_spikes_are_judged_where_they_are() -> None:
    """In v GRPO has both; in w it has spikes only, and DynaMO has as many."""
    pairs = [
        fig5_dynamics.Pair("v", True, dynamics(3.0, 0.1), dynamics(2.0, 0.2)),
        fig5_dynamics.Pair("w", True, dynamics(3.0, 0.001), dynamics(3.0, 0.1)),
    ]
    text = reading("fig5_dynamics", pairs)
    assert "v (tabular, 25 visits a prompt, learning rate 10, 4 seeds): the 99 % quantile" in text
    assert (
        "DynaMO against GRPO: smoother in v (spikes), rougher in v (erratic entropy), undecided in w (spikes). Premise "
        "absent, and no verdict: erratic entropy in w (a spike is"
    ) in text


def test_costs_and_leaders_of_allocation_rules() -> None:
    cells = []
    for world, uniform, dynamo, dars in (("a", 0.5, 0.53, 0.52), ("b", 0.6, 0.59, 0.65)):
        rules = {
            "uniform": (uniform, 0, 1000),
            "dynamo": (dynamo, -1 if world == "b" else 1, 1000),
            "dars": (dars, 1, 700),
        }
        for rule, (value, sign, cost) in rules.items():
            gains = {"pass_at_1": gain(value - uniform, sign), AFTER_4: gain(uniform - value, sign)} if sign else {}
            values = {"pass_at_1": value, AFTER_4: 1 - value, "rollouts": cost}
            cells.append(cell({"rule": rule}, values, gains, setting=world))
    conditions = WHERE.removeprefix("w ")
    assert reading("allocation_rules", cells) == (
        f"Against equal rollouts, in points of pass@1. a {conditions}: the paper's rule −3.00 [−4.50, −1.50] after 4 "
        "visits, +3.00 [+1.50, +4.50] at the end; highest uniform after 4 visits, dynamo at the end. "
        f"b {conditions}: the paper's rule +1.00 [+0.50, +1.50] after 4 visits, −1.00 [−1.50, −0.50] at the end; "
        "highest dynamo after 4 visits, dars at the end. The paper says that its allocation is better than an equal "
        f"one. {NO_EVIDENCE}"
    )
    first, second = axes_of("allocation_rules", cells)
    assert [[x.get_text() for x in ax.texts] for ax in (first, second)] == [["70 %"]] * 2
    assert drawn(first, "at the end")[0] == pytest.approx([3, 2])
    assert drawn(second, "after 4 visits")[0] == pytest.approx([1, -5])


def methods_of_table_1() -> list[CellResult]:
    values = {"grpo": (0.50, 0.3), "clip-cov": (0.54, 0.2), "dynamo": (0.53, 0.4)}
    return [
        cell(
            {"method": name},
            {"pass_at_1": end, AFTER_4: early, "pass_at_32": 0.9},
            {
                "pass_at_1": gain(end - 0.5, 1),
                AFTER_4: gain(early - 0.3, 1),
                "pass_at_1_at_reference_0.5": gain(0.02, 1),
            }
            if name != "grpo"
            else {},
        )
        for name, (end, early) in values.items()
    ]


def test_leaders_of_table_1_by_horizon() -> None:
    cells = methods_of_table_1()
    assert reading("table1_methods", cells) == (
        f"{WHERE}: DynaMO minus GRPO in points of pass@1 +10.00 [+5.00, +15.00] after 4 visits, +3.00 [+1.50, +4.50] "
        "at the end; methods whose point estimate is higher: after 4 visits none; at the end Clip-COV. The paper says "
        f"that DynaMO is above all baselines. {NO_EVIDENCE}"
    )
    table = ITEMS["table1_methods"].fill(cells)  # type: ignore[attr-defined]
    assert table.headings == [
        "", "method", "pass@1 (%)", "gain after 4 visits", "gain at the end", "gain in pass@32",
    ]  # fmt: skip
    assert table.texts()[0] == [WHERE, "GRPO", "50.00", "–", "–", "–"]
    assert table.texts()[2][2:5] == ["53.00", "+10.00 [+5.00, +15.00]", "+3.00 [+1.50, +4.50]"]
    assert reading("table1_matched", cells) == (
        f"DynaMO minus GRPO in points of pass@1, where GRPO has so much. {WHERE}: +2.00 [+1.00, +3.00] at 50 %. The "
        f"paper has no such comparison. {NO_EVIDENCE}"
    )
    table = ITEMS["table1_matched"].fill(cells)  # type: ignore[attr-defined]
    assert [row[1:] for row in table.texts()] == [[name, "+2.00 [+1.00, +3.00]"] for name in ("Clip-COV", "DynaMO")]


def test_published_numbers_share_no_table_with_the_toy() -> None:
    tables = {name: item for name, item in ITEMS.items() if isinstance(item, Table)}
    published = [name for name, item in tables.items() if "published" in item.title and name.startswith("table1")]
    assert published == ["table1_models"]
    groups = [heading for heading, _ in tables["table1_models"].fill([]).groups]
    assert len(groups) == 3
    assert all("published" in heading for heading in groups)
    assert not any("published" in heading for heading, _ in tables["table1_methods"].fill(methods_of_table_1()).groups)


def test_costs_of_table_2() -> None:
    costs = {"no-gc": (-0.02, -1), "no-ums": (0.01, 0), "no-dra": (-0.03, -1), "only-dra": (-0.015, 0)}
    cells = [cell({"method": "dynamo"}, {"pass_at_1": 0.6, AFTER_4: 0.5, AFTER_8: 0.5})]
    for name, (cost, sign) in costs.items():
        gains = {"pass_at_1": gain(cost, sign), AFTER_8: gain(9.0, 1), AFTER_4: gain(-cost, sign)}
        values = {"pass_at_1": 0.6 + cost, AFTER_4: 0.5 - cost, AFTER_8: 0.5}
        cells.append(cell({"method": f"dynamo-{name}"}, values, gains))
    assert reading("table2_ablations", cells) == (
        f"Change of pass@1 without one part, in points. {WHERE}: GC +2.00 [+1.00, +3.00] after 4 visits, "
        "−2.00 [−3.00, −1.00] at the end; UMS −1.00 [−3.10, +1.10] after 4 visits, +1.00 [−1.10, +3.10] at the end; "
        "DRA +3.00 [+1.50, +4.50] after 4 visits, −3.00 [−4.50, −1.50] at the end; GC and UMS together −1.50 at the "
        "end, the sum of both −1.00 (no interval). The paper says that removing any part lowers the average over "
        f"benchmarks, and that GC and UMS together cost more than the sum of both. {NO_EVIDENCE}"
    )


def test_choices_of_the_code() -> None:
    changes = {"clip-0.28": 0.01, "micro-batch": -0.02, "all-of-the-code": -0.03, "grpo": 0.5}
    cells = [cell({"variant": "paper"}, {"pass_at_1": 0.6})]
    cells += [cell({"variant": n}, {"pass_at_1": 0.6 + x}, {"pass_at_1": gain(x, 1)}) for n, x in changes.items()]
    assert reading("paper_vs_code", cells) == (
        f"Change of pass@1, in points. {WHERE}: one choice or defect alone at the end from extremes per "
        "micro-batch −2.00 [−3.00, −1.00] to upper clip 0.28 +1.00 [+0.50, +1.50] (ahead in 1, behind in 1, undecided "
        "in 0 of 2); all of the code −3.00 [−4.50, −1.50] at the end. Which of these choices the paper's "
        f"numbers come from is not stated. {NO_EVIDENCE}"
    )


def test_training_curves() -> None:
    """The gain is .08 after 4 visits, at the last step before 10 visits .01, and below 0 at the end."""
    steps, seeds = np.arange(41), np.arange(4)
    config = {**CONFIG, "method_name": "grpo", "world_name": "w", "rollouts": 16}
    offsets = np.array([0.0, 0.1, 0.2, 0.3])[:, None]
    baseline = RunCurves(config, seeds, {x: Curves(steps, offsets + 0.01 * steps) for x in LABELS})
    added = np.interp(steps, [0, 16, 32, 39, 40], [0.0, 0.08, 0.04, 0.01, -0.02]) * np.linspace(0.9, 1.1, 4)[:, None]
    ours = {x: Curves(steps, offsets + 0.01 * steps + added) for x in LABELS}
    text = reading("bandit_training", baseline, replace(baseline, metrics=ours))
    told = [f"{points(estimate(added[:, i]))} {when}" for i, when in ((16, "after 4 visits"), (32, "after 8 visits"))]
    assert told[0].startswith("+8.00 [")
    assert text == (
        f"w (tabular, learning rate 10, 4 seeds): DynaMO minus GRPO in points of pass@1 {', '.join(told)}, "
        f"{points(estimate(added[:, 40]))} at the end (10 visits). The median gain is last above 0 at step 39, where "
        f"GRPO has 54 %. The paper says that DynaMO ends above GRPO. {NO_EVIDENCE}"
    )


def test_when_ahead() -> None:
    gains = {"pass_at_1": gain(-0.02, 1), AFTER_4: gain(0.03, 1), "pass_at_1_at_reference_0.7": gain(0.01, 1)}
    cells = [cell({"method": "grpo"}, {"pass_at_1": 0.5, AFTER_4: 0.3})]
    for name in ("dynamo", "dynamo-only-dra", "dynamo-no-dra"):
        cells.append(cell({"method": name}, {"pass_at_1": 0.48, AFTER_4: 0.33}, gains))
    assert reading("when_ahead", cells) == (
        f"DynaMO minus GRPO in points of pass@1. {WHERE}: +3.00 [+1.50, +4.50] after 4 visits, −2.00 [−3.00, −1.00] at "
        "the end. The paper says that DynaMO is above GRPO; its numbers are of language models after one number of "
        f"steps. {NO_EVIDENCE}"
    )
    visits, matched = axes_of("when_ahead", cells)
    for label in ("DynaMO", "its allocation alone", "its modulation alone"):
        np.testing.assert_allclose(drawn(visits, label), [[4, 10], [3, -2]], rtol=0.05)
        np.testing.assert_allclose(drawn(matched, label), [[70], [1]], atol=0.5)


def test_horizons_are_those_of_the_sweeps() -> None:
    assert (dict(horizons.AFTER), dict(horizons.MATCHED)) == (dict(design.AFTER_VISITS), dict(design.AT_REFERENCE))


def test_a_horizon_that_is_the_end_is_shown_once() -> None:
    values = {"pass_at_1": 0.5, AFTER_4: 0.5}
    for num_steps, expected in ((16, [horizons.END]), (17, [AFTER_4, horizons.END])):
        cells = [cell({"method": "grpo"}, values, config={**CONFIG, "num_steps": num_steps})]
        assert horizons.shown(cells) == expected


@pytest.mark.parametrize("path", ["num_steps", "batch_prompts", "world", "optimizer"])
def test_conditions_that_a_configuration_does_not_tell_are_named(path: str) -> None:
    cells = [cell({"method": "grpo"}, {"pass_at_1": 0.5}, config={**CONFIG, path: {} if path == "world" else "8"})]
    with pytest.raises(ValueError, match=f"{path}.*: expected "):
        horizons.conditions(cells, "w")


LABELS = ("pass_at_1", "entropy", "gradient_norm")


# The ledger


def test_weights_that_allocation_changes() -> None:
    """RLOO keeps its weight under a mean over prompts, and triples it under one over tokens."""
    rows = [(e, n, p) for e in ("rloo", "grpo") for n in (8, 16, 24) for p in (0.1, 0.5)]
    estimator, n, p = (np.array(x) for x in zip(*rows, strict=True))
    by_prompt = np.where(estimator == "rloo", 1.0, 1 + n / 8 * p)
    weights = {"estimator": estimator.astype(object), "num_rollouts": n, "p": p, "prompt_mean": by_prompt}
    assert reading("implied_weights", {**weights, "token_mean": by_prompt * n / 16}) == (
        "From 8 to 24 rollouts a prompt's weight is multiplied by: RLOO under a mean over prompts 1.00; RLOO under a "
        "mean over tokens 3.00; GRPO under a mean over prompts 1.18 to 1.67; GRPO under a mean over tokens 3.55 to "
        "5.00. The paper derives allocation from the variance of the gradient alone, as if weights stayed; so they do "
        "for RLOO under a mean over prompts."
    )


def test_an_order_that_is_kept_for_one_estimator() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4])
    variances = {
        "population": np.array(["binary"] * 8, dtype=object),
        "estimator": np.repeat(np.array(["rloo", "grpo"], dtype=object), 4),
        "p": np.tile(p, 2),
        "proxy": np.tile(p * (1 - p), 2),
        "variance": np.concatenate([p, -p]),
    }
    assert reading("variance_order", variances) == (
        "Rank correlation of p(1-p) with the exact variance, over estimators: binary −1.00 to +1.00. The paper says "
        "that p(1-p) stands for the variance of a prompt; its order is kept (a correlation of 0.9 or more) for RLOO "
        "with binary answers. Answers are of one token: longer ones bring their length into the order."
    )
    variances["variance"] = -np.tile(p, 2)
    assert "0.9 or more) for none of them." in reading("variance_order", variances)


def test_a_norm_above_its_bound_is_told() -> None:
    policies = {"bound": np.array([0.5, 0.7, 0.6]), "expected": np.array([0.5, 0.4, 0.65])}
    assert reading("score_norm", policies) == (
        "The mean squared norm of the score is up to 0.30 below the bound, and meets it (to 1e-9) for 1 of 3 policies. "
        "The paper says that entropy bounds the norm; here this appears in 2 of 3 policies."
    )


@pytest.mark.parametrize(
    ("filled", "said"),
    [
        (0.8, "the long responses do at every p up to 0.9 if 25 % or more of their tokens are fillers"),
        (1.2, "not all long responses do, however many of their tokens are fillers"),
    ],
)
def test_a_bound_that_fillers_save(filled: float, said: str) -> None:
    chains = {
        "success": np.array([0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9, 0.9]),
        "num_right": np.array([1, 1, 1, 1, 1, 1, 1, 4]),
        "length": np.array([1, 1, 8, 8, 8, 8, 8, 8]),
        "filler_share": np.array([0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.5, 0.0]),
        "ratio": np.array([5.0, 4.0, 0.1, 2.0, 0.7, 0.3, filled, 9.0]),
    }
    assert reading("advantage_bound", chains) == (
        "The norm over its bound is 4.00 to 5.00 for responses of 1 token and 0.10 to 2.00 for 8 tokens that all "
        "decide (above 1 at p = 0.9). The paper says that the dependence between advantage and token is negligible, "
        f"so that updates stay below the bound; here {said}."
    )


def test_ratios_of_variance() -> None:
    """RLOO halves the variance at two p of three, GRPO nowhere; with diffuse answers nothing does."""
    allocations = {
        "population": np.repeat(np.array(["binary", "diffuse"], dtype=object), 6),
        "estimator": np.tile(np.repeat(np.array(["rloo", "grpo"], dtype=object), 3), 2),
        "p": np.tile([1e-4, 1e-3, 1e-2], 4),
        "ratio": np.array([0.45, 0.5, 1.2, 0.52, 0.8, 0.9, 0.65, 0.66, 0.7, 0.66, 0.67, 0.71]),
        "mean": np.full(12, 16.0),
        "high": np.full(12, 24.0),
    }
    assert reading("variance_ratio", allocations) == (
        "A summary of the paper says that allocation lowers the variance by up to 50 %; so it is for RLOO with two "
        "answers up to p = 1.0e-03. The least that is left: two answers 0.45; diffuse answers 0.65. Were the variance "
        "sigma^2/n, the bounds would leave 0.67 or more."
    )
    allocations["ratio"] = np.maximum(allocations["ratio"], 0.6)
    assert "so it is for no estimator and no kind of answers here." in reading("variance_ratio", allocations)


def test_explained_changes_of_entropy() -> None:
    exact = np.array([0.0, 1.0, 2.0, 3.0])
    updates = {"exact": exact, "first_order": 2 * exact, "two_factor": np.array([0.0, 1.0, 1.0, 0.0])}
    rate = np.geomspace(1e-4, 1e-1, 7)
    beyond = np.where(rate > 1e-2, 100 * rate**3, 3 * rate**2)  # not fitted
    sweep = {"policy": np.zeros(7), "learning_rate": rate, "first_order": rate, "exact": rate + beyond}
    assert reading("entropy_change", updates, sweep) == (
        "The first order explains 100.0 % of the variance of exact entropy changes, the factors xi and pi Lambda alone "
        "0 %; what it leaves out falls with slope 2.00. The paper says that the change factorizes to first order, up "
        "to a remainder of second order; here this appears."
    )


def test_bias_of_the_modulation() -> None:
    bias = {
        "alpha": np.array([0.0, 0.2, 0.4]),
        "relative_bias": np.array([1e-16, 0.05, 0.1]),
        "cosine": np.array([1.0, 1.0, np.cos(np.radians(3.0))]),
    }
    assert reading("modulation_bias", bias) == (
        "Modulation biases the gradient by 5.0 to 10.0 % of its length and turns it by 0.0 to 3.0 degrees for alpha "
        "from 0.2 to 0.4; without it the bias is 1e-16. A simulated rebuttal in a review of the paper says that the "
        "modulated estimator stays unbiased; here it does not (batches of two prompts, RLOO)."
    )
    bias["relative_bias"] = np.full(3, 1e-16)
    assert "; here it does (" in reading("modulation_bias", bias)


def test_published_values_that_a_configuration_keeps() -> None:
    from paper_figs.table3_configuration import PARAMETERS

    said = {"prompts of a step": "512", "KL term": "False", "dynamic range": "[4, 28]", "weight decay": "0.01"}
    values = [said.get(parameter.name) for parameter in PARAMETERS]
    text = reading("table3_configuration", [("M", values), ("N", [None] * len(values))])
    assert text.startswith(
        "Stated values of the paper that mean something in a run and differ there: M dynamic range; N none. "
    )
