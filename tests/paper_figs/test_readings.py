"""What figures and tables say of numbers that are made by hand: every number of their readings, and what is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from paper_figs import fig5_dynamics
from paper_figs.experiments import CellResult
from paper_figs.figure import Figure, Table, items
from paper_figs.result_files import Curves, RunCurves
from theory.base.tables import Estimate

ITEMS = items()


def gain(value: float, sign: int = 0) -> Estimate:
    """Return a difference whose interval is on one side of 0, or holds it."""
    width = 0.5 * abs(value) if sign else 2 * abs(value) + 0.001
    return Estimate(value, value - width, value + width, 0.001 if sign else 0.9)


def cell(
    axes: Mapping[str, str], values: Mapping[str, float], gains: Mapping[str, Estimate] | None = None, **fields: Any
) -> CellResult:
    """Return a cell of the tabular world w."""
    given = {"setting": "w", "is_toy": True, "num_seeds": 4, "config": {"num_steps": 9}, **fields}
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
        n = float(rollouts)
        values = {"pass_at_1": n / 100, "pass_at_1_mean": n / 200, "pass_at_32": n / 50}
        cells.append(cell({"rollouts": rollouts, "method": "dynamo"}, values, gains))
        cells.append(cell({"rollouts": rollouts, "method": "dynamo-no-dra"}, {x: y - 0.01 for x, y in values.items()}))
    return cells


def test_budgets() -> None:
    assert reading("fig2_budgets", budgets()) == (
        "With allocation, pass@1 at the end changes by −1.00 to +5.00 points (ahead in 2, behind in 0, undecided in 1 "
        "of 3 budgets), and its mean over the run by −2.00 to +10.00 points (ahead in 2, behind in 1, undecided in 0). "
        "The paper says that dynamic allocation gains at every budget; here this appears in 2 of 3 budgets at the end."
    )
    left, right = axes_of("fig2_budgets", budgets())
    np.testing.assert_allclose(drawn(left, "DynaMO"), [[8, 16, 24], [8, 16, 24]])
    np.testing.assert_allclose(drawn(left, "without dynamic allocation"), [[8, 16, 24], [7, 15, 23]])
    for label, gains in (("pass@1, end", [-1, 2, 5]), ("pass@1, mean", [-2, 4, 10]), ("pass@32, end", [1, -2, -5])):
        x, y = drawn(right, label)
        np.testing.assert_allclose(x, [8, 16, 24], atol=0.5)
        np.testing.assert_allclose(y, gains)


def factors() -> list[CellResult]:
    shaping = {"alpha": 0.4, "sharpness": 50.0, "threshold": 0.9}
    config = {"method": {"shaping": shaping}, "rollouts_low": 8, "rollouts_high": 24, "num_steps": 9}
    cells = [cell({"factor": "default"}, {"pass_at_1": 0.80}, config=config)]
    for factor, changes in {
        "alpha": {0.0: -0.03, 0.2: -0.005, 0.6: 0.012, 1.0: -0.02},
        "bounds": {(4, 28): 0.004, (16, 16): -0.005},
        "sharpness": {5.0: -0.02, 200.0: -0.015},
        "threshold": {0.5: 0.001},
    }.items():
        for value, change in changes.items():
            own = {**config, "method": {"shaping": {**shaping, factor: value}}}
            if isinstance(value, tuple):
                own = {**config, "rollouts_low": value[0], "rollouts_high": value[1]}
            gains = {"pass_at_1": gain(change), "pass_at_1_mean": gain(change)}
            cells.append(cell({"factor": factor}, {"pass_at_1": 0.80 + change}, gains, config=own))
    return cells


def test_hyperparameters() -> None:
    assert reading("fig3_hyperparameters", factors()) == (
        "Final pass@1 minus the default's, in points: alpha −3.00 to +1.20; bounds −0.50 to +0.40; sharpness −2.00 to "
        "0.00; threshold 0.00 to +0.10; the largest over alpha is at 0.6; within 1 point: bounds, threshold. The paper "
        "says that alpha has an inverted U, and that bounds, sharpness and threshold hardly matter over wide ranges; "
        "here this appears in 3 of 4 parts (alpha: a maximum inside the range; the others: a span of at most 1 point)."
    )


def test_sizes() -> None:
    cells = []
    for size, field, gains in (
        ("answers", "num_answers", (0.01, 0.02, 0.04)),
        ("prompts", "num_prompts", (0.03, -0.01)),
    ):
        for setting, change in zip((8, 32, 128), gains, strict=False):
            world = {"num_answers": 16, "num_prompts": 256, "skills": size, field: setting}
            config = {"world": world, "num_steps": 9}
            axes = {"size": size, "setting": str(setting), "method": "dynamo"}
            cells.append(cell(axes, {"pass_at_1": 0.5}, {"pass_at_1": gain(change, 1)}, config=config))
            cells.append(cell({**axes, "method": "grpo"}, {"pass_at_1": 0.4}, config=config))
    assert reading("fig4_scaling", cells) == (
        "DynaMO minus GRPO in final pass@1, in points: answers +1.00 to +4.00; prompts −1.00 to +3.00 (ahead in 4, "
        "behind in 1, undecided in 0 of 5). The paper says that DynaMO is ahead at every size; here this appears in 4 "
        "of 5 sizes. The point estimate rises with every step of the size in 1 of 2 series; the paper's lead widens "
        "with the model."
    )
    first, second = axes_of("fig4_scaling", cells)
    assert drawn(first, "pass@1, end")[1] == pytest.approx([1, 2, 4])
    assert drawn(second, "pass@1, end")[1] == pytest.approx([3, -1])


def test_dynamics() -> None:
    """GRPO's norm has spikes of three times its median, DynaMO's of twice; its entropy is rougher by half, or alike."""
    steps = np.arange(1, 101)

    def run(spike: float, zigzag: float) -> RunCurves:
        norms = np.where(steps > 50, 1.0, 2.0) * np.where(steps % 20 == 10, spike, 1.0) + np.zeros((4, 1))
        entropy = zigzag * (steps % 2) + np.zeros((4, 1))
        return RunCurves({}, np.arange(4), {"gradient_norm": Curves(steps, norms), "entropy": Curves(steps, entropy)})

    pairs = [fig5_dynamics.Pair(name, True, run(3.0, 1.0), run(2.0, z)) for name, z in (("v", 1.5), ("w", 1.0))]
    assert reading("fig5_dynamics", pairs) == (
        "GRPO's gradient norm over its running median has a 99 % quantile of 3.00; DynaMO's differs by −33 %, and the "
        "roughness of its entropy by 0 to +50 % (below GRPO's in 2 of 4 comparisons, above in 1). The paper says that "
        "DynaMO has smoother gradient norms and entropies than GRPO, which has spikes; here this appears in 2 of 4 "
        "comparisons (two in every setting)."
    )


def test_costs_and_leaders_of_allocation_rules() -> None:
    cells = []
    for world, uniform, dynamo, dars in (("a", 0.5, 0.53, 0.52), ("b", 0.6, 0.59, 0.65)):
        rules = {
            "uniform": (uniform, 0, 1000),
            "dynamo": (dynamo, -1 if world == "b" else 1, 1000),
            "dars": (dars, 1, 700),
        }
        for rule, (value, sign, cost) in rules.items():
            gains = {x: gain(value - uniform, sign) for x in ("pass_at_1", "pass_at_1_mean")} if sign else {}
            values = {"pass_at_1": value, "pass_at_1_mean": value, "rollouts": cost}
            cells.append(cell({"rule": rule}, values, gains, setting=world))
    assert reading("allocation_rules", cells) == (
        "Highest pass@1 at the end: dynamo in a, dars in b; the paper's rule changes it by −1.00 to +3.00 points "
        "(ahead in 1, behind in 1, undecided in 0 of 2 worlds). The paper says that its allocation beats equal "
        "rollouts; here this appears in 1 of 2 worlds at the end."
    )
    first, second = axes_of("allocation_rules", cells)
    assert [[x.get_text() for x in ax.texts] for ax in (first, second)] == [["70 %"]] * 2
    assert drawn(first, "at the end")[0] == pytest.approx([3, 2])
    assert drawn(second, "mean over steps")[0] == pytest.approx([-1, 5])


def test_leaders_of_table_1_and_costs_of_table_2() -> None:
    values = {"grpo": 0.50, "clip-cov": 0.54, "dynamo": 0.53}
    cells = [
        cell({"method": name}, {"pass_at_1": x}, {"pass_at_1": gain(x - 0.5, 1)} if x != 0.5 else {})
        for name, x in values.items()
    ]
    assert reading("table1_methods", cells, []) == (
        "Highest final pass@1: Clip-COV in w; DynaMO against GRPO: ahead in 1, behind in 0, undecided in 0 of 1 "
        "settings. The paper says that DynaMO is above all baselines (here: those that were run); here this does not "
        "appear."
    )
    costs = {"no-gc": (-0.02, -1), "no-ums": (0.01, 0), "no-dra": (-0.03, -1), "only-dra": (-0.015, 0)}
    cells = [cell({"method": "dynamo"}, {"pass_at_1": 0.6})]
    for name, (cost, sign) in costs.items():
        cells.append(cell({"method": f"dynamo-{name}"}, {"pass_at_1": 0.6 + cost}, {"pass_at_1": gain(cost, sign)}))
    assert reading("table2_ablations", cells) == (
        "Change of final pass@1 without one part, in points (w: GC −2.00, UMS +1.00, DRA −3.00); removing GC and UMS "
        "together costs more than the sum of both in 1 of 1 settings, as in the paper's average. The paper says that "
        "removing any part lowers the result; here this appears in 2 of 3 removals of one part."
    )


def test_training_curves() -> None:
    """The gain is largest at step 1, and at the end half of it."""
    steps, seeds = np.arange(3), np.arange(4)
    config = {"method_name": "grpo", "world_name": "w", "rollouts": 16}
    offsets = np.array([0.0, 0.1, 0.2, 0.3])[:, None]
    baseline = RunCurves(config, seeds, {x: Curves(steps, offsets + 0.0 * steps) for x in LABELS})
    added = np.array([0.0, 0.08, 0.04])
    ours = {x: Curves(steps, offsets + added) for x in LABELS}
    assert reading("bandit_training", baseline, replace(baseline, metrics=ours)) == (
        "DynaMO minus GRPO in pass@1 is largest at step 1 (+8.0 points, median over seeds) and +4.0 points at the end. "
        "The paper says that DynaMO ends above GRPO; here this appears."
    )


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
        (0.8, "the long responses do at every p if 25 % or more of their tokens are fillers"),
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
        "modulated estimator stays unbiased; here this appears in none of 2 settings with alpha > 0."
    )


def test_published_values_that_a_configuration_keeps() -> None:
    from paper_figs.table3_configuration import PARAMETERS

    said = {"prompts of a step": "512", "KL term": "False", "dynamic range": "[4, 28]", "weight decay": "0.01"}
    values = [said.get(parameter.name) for parameter in PARAMETERS]
    text = reading("table3_configuration", [("M", values)])
    assert (
        "so many are kept: 3 of 4 in M (others: dynamic range). The paper's table appears in full in none of 1" in text
    )
