"""theory.allocation.rules.oracles: the best of all allocations, by brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.theory.allocation.rules.calls import ONE_SHOT, allocate, call, good_call
from theory.allocation.rules import ALLOCATORS, Knowledge, LogProgress, OracleProgress, OracleVariance
from theory.estimators import moments


def test_oracle_variance_minimises_the_total(rng):
    for _ in range(20):
        variances = rng.uniform(size=3)
        candidates = np.array([n for n in product(range(2, 9), repeat=3) if sum(n) == 14])
        best = candidates[np.argmin((variances / candidates).sum(axis=1))]
        assert allocate(OracleVariance(), 14, 2, 8, variances=variances).tolist() == best.tolist()


def test_oracle_progress_is_exact_for_any_table(rng):
    for _ in range(20):
        gains = rng.normal(size=(3, 9))  # Not concave.
        candidates = np.array([n for n in product(range(1, 9), repeat=3) if sum(n) == 14])
        best = candidates[np.argmax(gains[np.arange(3), candidates].sum(axis=1))]
        assert allocate(OracleProgress(), 14, 1, 8, gains=gains).tolist() == best.tolist()
    with pytest.raises(ValueError, match="high: expected at most 8"):
        allocate(OracleProgress(), 14, 1, 9, gains=gains)


def test_oracle_progress_beats_every_rule_on_exact_progress(rng):
    """The table is that of two-answer prompts under standard-deviation normalised GRPO (theory.estimators.moments)."""
    p = rng.uniform(0.05, 0.95, size=6)
    probs = np.stack([p, 1 - p], axis=1)
    gains = moments.expected_progress(probs, np.tile([True, False], (6, 1)), 24, "grpo")
    total = lambda counts: gains[np.arange(6), counts].sum()  # noqa: E731
    best = total(allocate(OracleProgress(), 96, 2, 24, gains=gains))
    for name in ONE_SHOT:
        counts = allocate(ALLOCATORS[name], 96, 2, 24, success_rates=p, variances=p * (1 - p), gains=gains)
        assert total(counts) <= best + 1e-12


@pytest.mark.parametrize("aggregation", ["token-mean", "prompt-mean"])
@pytest.mark.parametrize("rates_known", [False, True])
@pytest.mark.parametrize(("objective", "prior"), [("log", (1.0, 1.0)), ("success", (1.0, 1.0)), ("log", (1.0, 7.0))])
def test_log_progress_is_the_best_of_all_allocations(aggregation, rates_known, objective, prior):
    """Brute force over n in [2, 9]^3 with sum 16; progress of log p by exact moments, the posterior by quadrature."""
    successes, attempts, rates = np.array([0, 3, 7]), np.array([8, 8, 8]), np.array([0.04, 0.4, 0.9])
    grid = (np.arange(4000) + 0.5) / 4000
    value = np.zeros((3, 10))
    for i in range(3):
        p = rates[i : i + 1] if rates_known else grid
        a, b = successes[i] + prior[0] - 1, attempts[i] - successes[i] + prior[1] - 1
        density = np.ones(1) if rates_known else grid**a * (1 - grid) ** b
        for n in range(2, 10):
            progress = moments.implied_weight(p, n, "grpo") * (p * (1 - p)) ** 2 / (p if objective == "log" else 1)
            value[i, n] = np.sum(density * progress) / np.sum(density) * (n if aggregation == "token-mean" else 1)
    every = [n for n in product(range(2, 10), repeat=3) if sum(n) == 16]
    best = max(every, key=lambda n: sum(value[i, n[i]] for i in range(3)))
    knowledge = {"success_rates": rates} if rates_known else {}
    rule = LogProgress(aggregation=aggregation, objective=objective, prior=prior)
    got = allocate(rule, 16, 2, 9, successes=successes, attempts=attempts, **knowledge)
    assert tuple(got) == best
    assert len(set(best)) > 1


@pytest.mark.parametrize(
    ("rule", "field_name"), [(OracleVariance(), "variances"), (OracleProgress(), "gains")], ids=["variance", "progress"]
)
def test_missing_knowledge_is_named(rule, field_name):
    for knowledge in (Knowledge(), Knowledge(success_rates=np.array([0.5, 0.5]))):
        with pytest.raises(ValueError, match=f"rule {rule.name}: knowledge: expected {field_name}, got none"):
            call(rule, **{**good_call(rule), "knowledge": knowledge})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogProgress("reinforce"), "estimator: expected one of rloo"),
        (lambda: LogProgress(aggregation="mean"), "aggregation: expected one of token-mean, prompt-mean"),
        (lambda: LogProgress(objective="sqrt"), "objective: expected one of success, log"),
        (lambda: LogProgress(prior=(1.0, 0.0)), "prior: expected"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
