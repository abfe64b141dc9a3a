"""toy.training.diagnostics: the exact moments against the real trainer's gradients, by hand, and seed by seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from theory import allocation
from theory.allocation import get_allocator
from theory.estimators import moments
from theory.losses.aggregation import AGGREGATIONS
from theory.methods import METHODS
from toy.training import diagnostics, metrics
from toy.training.batch_moments import batch_moments, implied_weights
from toy.training.diagnostics import diagnose
from toy.training.loop import train


@pytest.mark.parametrize("method", ["grpo", "dynamo", "clip-cov"])
def test_diagnosing_changes_nothing_else(method, small, monkeypatch):
    """Every second step has the diagnostics, the others have none, and all other numbers keep their bits."""
    monkeypatch.setattr(diagnostics, "NUM_RESAMPLES", 4)
    plain, told = (train(small(method, diagnose_every=every)) for every in (0, 2))
    np.testing.assert_array_equal(plain.logits, told.logits)
    for name in metrics.METRICS:
        if name not in metrics.DIAGNOSTICS:
            np.testing.assert_array_equal(plain.metrics[name], told.metrics[name])
            continue
        assert np.isnan(plain.metrics[name]).all()
        assert np.isnan(told.metrics[name][:, [0, 1, 3, 5]]).all()
    for name in ("gradient_variance", "gradient_cosine", "true_gradient_squared", "allocation_regret"):
        assert np.isfinite(told.metrics[name][:, 2::2]).all()


@pytest.mark.parametrize("world", ["mixed", "skills"])
def test_a_diagnosed_seed_does_not_depend_on_its_neighbours(world, small, monkeypatch):
    monkeypatch.setattr(diagnostics, "NUM_RESAMPLES", 4)
    config = small("dynamo", world, num_steps=3, diagnose_every=1)
    together = train(config)
    for first, num in ((0, 1), (1, 2)):
        alone = train(replace(config, first_seed=first, num_seeds=num))
        for name, values in alone.metrics.items():
            np.testing.assert_array_equal(values, together.metrics[name][first : first + num], err_msg=name)


def test_the_history_is_the_one_before_the_step(small):
    """At the first visit of a prompt nothing is known; at the second, what the first has shown."""
    run = train(small("grpo", diagnose_every=1))
    assert np.isnan(run.metrics["estimate_error"][:, 1:3]).all()
    assert (run.metrics["estimate_error"][:, 3:] > 0).all()


def test_an_oracle_has_no_regret(small):
    for rule, regretful in (("oracle-variance", False), ("uniform", True)):
        config = small("grpo", diagnose_every=1)
        run = train(replace(config, method=replace(config.method, allocator=rule)))
        assert (run.metrics["allocation_regret"][:, 1:] > 1e-6).all() == regretful
        if not regretful:
            assert (run.metrics["allocation_regret"][:, 1:] == 0.0).all()


def test_wasted_rollouts_by_hand():
    assert allocation.wasted_share(np.array([[0, 2, 6]]), np.array([[4, 6, 6]])).tolist() == [10 / 16]


def test_proxies_are_the_rules_own():
    successes, attempts, exact = np.array([2.0, 4.0, 1.0]), np.array([8.0, 8.0, 3.0]), np.array([1.0, 2.0, 3.0])
    known = allocation.bernoulli_variance([2, 4], [8, 8])
    for rule in ("dynamo", "dynamo-code", "neyman"):
        found = diagnostics.proxy_variances(rule, successes, attempts, exact)
        np.testing.assert_allclose(found, [*known, known.mean()])
        np.testing.assert_allclose(diagnostics.proxy_variances(rule, successes * 0, attempts * 0, exact), 1.0)
    for rule in ("dynamo", "neyman"):
        least = get_allocator(rule).min_history
        at_least = diagnostics.proxy_variances(rule, np.array([1.0, 0.0]), np.array([least, least - 1.0]), exact[:2])
        np.testing.assert_allclose(at_least, (least - 1) / (least * (least - 1)))
    for rule in ("gvm", "vip", "knapsack", "cures"):
        found = diagnostics.proxy_variances(rule, successes, attempts, exact)
        np.testing.assert_allclose(found, [0.3 * 0.7, 0.25, 0.4 * 0.6])
    assert diagnostics.proxy_variances("oracle-variance", successes, attempts, exact) is exact
    for rule in ("uniform", "oracle-progress", "dars", "reinforce-ada", "pilot-commit"):
        assert diagnostics.proxy_variances(rule, successes, attempts, exact) is None


def test_regret_is_zero_for_the_oracle_and_never_below():
    rng = np.random.default_rng(1)
    for _ in range(50):
        variances = rng.exponential(size=6)
        counts = rng.multinomial(60 - 6 * 3, np.ones(6) / 6) + 3
        high = int(counts.max())
        assert diagnostics.regret(variances, counts, 3, high) >= 0.0
        best = allocation.optimal(variances, 60, 3, high)
        assert diagnostics.regret(variances, best, 3, high) == 0.0
    assert diagnostics.regret(np.zeros(2), np.array([1, 7]), 1, 8) == 0.0
    assert np.isnan(diagnostics.regret(np.ones(2), np.array([0, 8]), 0, 8))
    assert diagnostics.regret(np.array([0.0, 1.0]), np.array([0, 8]), 0, 8) == 0.0


def test_the_oracle_of_the_regret_has_the_rules_bounds():
    """Of counts that respect them it has both; of counts below `low`, as of a rule in rounds, it may go as low."""
    v = np.array([1.0, 100.0])
    for counts, low, high, best in (
        ([5, 5], 2, 10, [2, 8]),
        ([5, 5], 2, 7, [3, 7]),
        ([1, 9], 2, 10, [1, 9]),
        ([9, 1], 2, 10, [1, 9]),
    ):
        expected = allocation.total_variance(v, counts) / allocation.total_variance(v, best) - 1
        assert diagnostics.regret(v, np.array(counts), low, high) == expected


def batch(num_seeds=5, num_prompts=6, num_answers=8):
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.full(num_answers, 0.4), (num_seeds, num_prompts, 1))
    correct = rng.random(probs.shape) < 0.4
    correct[..., 0], correct[..., 1] = True, False
    counts = rng.integers(2, 12, (num_seeds, num_prompts))
    attempts = np.where(rng.random(counts.shape) < 0.2, 0.0, rng.integers(4, 40, counts.shape))
    variances = moments.single_rollout_variance(probs[:, :, 0], correct[:, :, 0])
    return probs, correct, counts, (np.floor(attempts * rng.random(counts.shape)), attempts), variances


@pytest.mark.parametrize("method", ["grpo", "dynamo"])
def test_seeds_do_not_touch_each_other(method):
    """To the bit, on both ways."""
    probs, correct, counts, history, variances = batch()
    noise = np.random.default_rng(4).normal(size=(diagnostics.NUM_RESAMPLES, *probs.shape))

    def of(part):
        draws = iter(noise[:, part])
        known = tuple(x[part] for x in history)
        arrays = (probs[part], correct[part], counts[part], known, variances[part])
        chosen = replace(METHODS[method], allocator="neyman")
        return diagnose(chosen, (2, 12), *arrays, lambda: next(draws), np.copy)

    together = of(slice(None))
    assert set(together) == set(metrics.DIAGNOSTICS)
    for s in range(5):
        for name, value in of(slice(s, s + 1)).items():
            np.testing.assert_array_equal(value, together[name][s : s + 1], err_msg=name)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_what_diagnose_reports(aggregation):
    """Every number against the functions above; nothing is resampled where it is exact."""
    probs, correct, counts, history, variances = batch()
    method = replace(METHODS["grpo"], allocator="vip", aggregation=aggregation)
    arrays = (probs, correct, counts, history, variances)
    found = diagnose(method, (2, 12), *arrays, lambda: pytest.fail("resampled"), np.copy)
    for s in range(5):
        pi, right, n = probs[s, :, 0], correct[s, :, 0], counts[s]
        p = (pi * right).sum(-1)
        exact = batch_moments(pi, right, n, aggregation, "grpo_sample")
        for name, value in exact._asdict().items():
            assert found[f"gradient_{name}"][s] == value
        weights = implied_weights(p, n, aggregation, "grpo_sample")
        np.testing.assert_allclose(found["implied_weight_min"][s], weights.min())
        np.testing.assert_allclose(found["implied_weight_max"][s], weights.max())
        np.testing.assert_allclose(found["implied_weight_share"][s], weights.mean() ** 2 / np.square(weights).mean())
        truth = moments.gradient_moments(pi, right, n).true_gradient / 6
        np.testing.assert_allclose(found["true_gradient_squared"][s], np.square(truth).sum())
        guess = (history[0][s] + 1) / (history[1][s] + 2)
        predicted = allocation.variance_ratio(guess * (1 - guess), n)
        np.testing.assert_allclose(found["variance_ratio_predicted"][s], predicted)
        assert found["allocation_regret"][s] == diagnostics.regret(variances[s], n, 2, 12) > 0
        seen = history[1][s] > 0
        errors = (history[0][s] / np.maximum(history[1][s], 1) - p)[seen]
        np.testing.assert_allclose(found["estimate_error"][s], np.abs(errors).mean())
        np.testing.assert_allclose(found["estimate_bias"][s], errors.mean())


def test_equal_groups_have_the_variance_of_equal_groups():
    probs, correct, counts, history, variances = batch()
    equal = np.full_like(counts, 8)
    for rule, predicted in (("neyman", 1.0), ("uniform", np.nan)):
        method = replace(METHODS["grpo"], allocator=rule)
        found = diagnose(method, (2, 12), probs, correct, equal, history, variances, np.zeros, np.copy)
        np.testing.assert_allclose(found["variance_ratio_realized"], 1.0)
        np.testing.assert_allclose(found["variance_ratio_predicted"], predicted)


def test_where_no_gradient_varies_the_ratio_of_variances_is_one():
    probs, _, counts, history, variances = batch()
    correct = np.ones_like(probs, dtype=bool)
    found = diagnose(METHODS["grpo"], (2, 12), probs, correct, counts, history, variances, np.zeros, np.copy)
    np.testing.assert_array_equal(found["gradient_variance"], 0.0)
    np.testing.assert_array_equal(found["variance_ratio_realized"], 1.0)


def test_a_prompt_without_rollouts_has_no_variance_to_predict():
    """Its v/0 would be infinite; where its proxy is 0 it does not count."""
    probs, correct, _, _, variances = batch(num_seeds=2, num_prompts=2)
    probs, correct = np.repeat(probs, 2, axis=2), np.repeat(correct, 2, axis=2)
    history = np.array([[4.0, 2.0], [4.0, 2.0]]), np.full((2, 2), 4.0)  # P is 0 at the first prompt
    counts = np.array([[0, 4], [4, 0]])
    method = replace(METHODS["grpo"], allocator="neyman")
    found = diagnose(method, (0, 8), probs, correct, counts, history, variances, lambda: probs, np.copy)
    predicted = found["variance_ratio_predicted"]
    assert np.isfinite(predicted[0])
    assert np.isnan(predicted[1])


def test_what_does_not_exist_is_nan():
    probs, correct, counts, (successes, attempts), variances = batch()
    probs, correct = np.repeat(probs, 2, axis=2), np.repeat(correct, 2, axis=2)
    rng = np.random.default_rng(0)
    found = diagnose(
        METHODS["grpo"],
        (2, 12),
        probs,
        correct,
        counts,
        (successes * 0, attempts * 0),
        variances,
        lambda: rng.normal(size=probs.shape),
        np.copy,
    )
    nan = {name for name, values in found.items() if np.isnan(values).all()}
    measured = {"gradient_variance", "gradient_bias_squared", "gradient_mse", "gradient_cosine", "gradient_alignment"}
    assert nan == set(metrics.DIAGNOSTICS) - measured - {"true_gradient_squared", "allocation_regret"}
    assert all(np.isfinite(found[name]).all() for name in measured)
