"""theory.allocation.rules.published: each formula by hand, each optimum by brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.theory.allocation.rules.calls import allocate
from theory.allocation.optimum import optimal_any
from theory.allocation.rules import Cures, Gvm, Knapsack, Vip


def test_gvm_weights():
    """Weights 1 / sqrt(p + .001 / p) for p = 1/4, 1/2, 1: 1.984, 1.411, .9995; 44 rollouts: 19.9, 14.1, 10.0."""
    assert allocate(Gvm(), 44, 1, 40, success_rates=[0.25, 0.5, 1.0]).tolist() == [20, 14, 10]
    # beta = 3 and alpha = 1/16: p + alpha / p^2 = 1.25 and 0.75 for p = 1/4, 1/2.
    assert allocate(Gvm(alpha=1 / 16, beta=3.0), 33, 1, 40, success_rates=[0.25, 0.5]).tolist() == [14, 19]
    # A prompt without success, or without gradient, gets the floor.
    assert allocate(Gvm(), 20, 2, 20, success_rates=[0.0, 0.5, 0.5], gradient_norms=[1, 1, 0]).tolist() == [2, 16, 2]
    assert allocate(Gvm(), 30, 1, 30, success_rates=[0.5, 0.5], gradient_norms=[1e-9, 2e-9]).tolist() == [10, 20]
    assert allocate(Gvm(beta=1.0), 6, 1, 6, success_rates=[0.0, 0.0]).tolist() == [3, 3]
    # From counts: (k + 1) / (G + 2) = 1/4, 1/2.
    counts = allocate(Gvm(), 34, 1, 40, successes=[1, 3], attempts=[6, 6])
    assert counts.tolist() == allocate(Gvm(), 34, 1, 40, success_rates=[0.25, 0.5]).tolist() == [20, 14]


def test_vip_rloo_is_one_plus_the_root():
    """With a = 4 p q = 1 and .36: n - 1 in the ratio 1 : .6, 16 = 10 + 6."""
    assert allocate(Vip(), 18, 2, 20, success_rates=[0.5, 0.1]).tolist() == [11, 7]
    # (k + 1) / (G + 2) = 4/8 and 1/10; with another prior (k + 1) / (G + 10) = 5/10 and 1/10.
    assert allocate(Vip(), 18, 2, 20, successes=[3, 0], attempts=[6, 8]).tolist() == [11, 7]
    assert allocate(Vip(prior=(1.0, 9.0)), 18, 2, 20, successes=[9, 0], attempts=[10, 0]).tolist() == [11, 7]


def test_vip_dr_grpo_solves_its_cubic():
    """With lambda = a (n - 2) / n^3 = a_1 28 / 30^3 = a_2 18 / 20^3 at n = 30 and 20 if a_2 / a_1 = 112/243."""
    p = 0.5 * (1 - np.sqrt(1 - 112 / 243))
    assert allocate(Vip(estimator="dr_grpo"), 50, 3, 47, success_rates=[0.5, p]).tolist() == [30, 20]


@pytest.mark.parametrize(("estimator", "low"), [("rloo", 2), ("dr_grpo", 3)])
def test_vip_is_the_exact_optimum(estimator, low, rng):
    objective = {"rloo": lambda a, n: a / (n - 1), "dr_grpo": lambda a, n: a * (n - 1) / n**2}[estimator]
    for _ in range(20):
        p = rng.uniform(size=3)
        candidates = np.array([n for n in product(range(low, 10), repeat=3) if sum(n) == 17])
        best = candidates[np.argmin(objective(4 * p * (1 - p), candidates).sum(axis=1))]
        assert allocate(Vip(estimator=estimator), 17, low, 9, success_rates=p).tolist() == best.tolist()


def test_vip_dr_grpo_would_reward_silence_below_three():
    """Section 5.5: without the guard, the least variance has one prompt with a single rollout and no update."""
    p = np.array([0.5, 0.5])
    gains = np.zeros((2, 9))
    n = np.arange(1, 9)
    gains[:, 1:] = -(n - 1) / n**2
    assert sorted(optimal_any(gains, 6, 1, 8).tolist()) == [1, 5]
    for low in (1, 2):
        with pytest.raises(ValueError, match=r"low: expected at least 3 for Vip\(.*estimator='dr_grpo'.*, got"):
            allocate(Vip(estimator="dr_grpo"), 6, low, 8, success_rates=p)
    with pytest.raises(ValueError, match="low: expected at least 2"):
        allocate(Vip(), 6, 1, 8, success_rates=p)
    assert allocate(Vip(estimator="dr_grpo"), 6, 3, 8, success_rates=p).tolist() == [3, 3]


def test_knapsack_by_hand():
    """Marginals of p q^2 (1 - p^n - q^n) from n = 2: .0313, .0156, .0078 (p = .5); .0205, .0139, .0107 (p = .2)."""
    assert allocate(Knapsack(), 8, 2, 8, success_rates=[0.5, 0.2]).tolist() == [4, 4]
    assert allocate(Knapsack(), 9, 2, 8, success_rates=[0.5, 0.2]).tolist() == [4, 5]


def test_knapsack_is_the_dynamic_programme(rng):
    for _ in range(30):
        p = rng.uniform(size=4)
        n = np.arange(14.0)
        gains = p[:, None] * (1 - p[:, None]) ** 2 * (1 - p[:, None] ** n - (1 - p[:, None]) ** n)
        expected = optimal_any(gains, 23, 1, 13)
        assert allocate(Knapsack(), 23, 1, 13, success_rates=p).tolist() == expected.tolist()


def test_knapsack_tells_small_marginals_apart():
    """At n = 128 marginals of p = .5 are below 2^-128: lost beside the 1 of the formula, not in a difference."""
    assert allocate(Knapsack(), 256, 64, 192, success_rates=[0.5, 0.5]).tolist() == [128, 128]


def test_knapsack_needs_one_rollout_and_leaves_the_solved_at_the_floor():
    with pytest.raises(ValueError, match=r"low: expected at least 1 for Knapsack"):
        allocate(Knapsack(), 8, 0, 8, success_rates=[0.5, 0.2])
    assert allocate(Knapsack(), 14, 2, 10, success_rates=[0.0, 1.0, 0.5]).tolist() == [2, 2, 10]


def test_cures_weights():
    """sqrt(p q) = .5, .3; with norms 2 and 1: .125 x 4 + .125 - .0625 = .75^2, .081 x 4 + .009 - .0081 = .57^2."""
    assert allocate(Cures(), 16, 1, 16, success_rates=[0.5, 0.1]).tolist() == [10, 6]
    norms = {"correct_norms": [2, 2], "wrong_norms": [1, 1]}
    assert allocate(Cures(), 44, 1, 44, success_rates=[0.5, 0.1], **norms).tolist() == [25, 19]
    tiny = {"correct_norms": [2e-9, 2e-9], "wrong_norms": [1e-9, 1e-9]}
    assert allocate(Cures(), 44, 1, 44, success_rates=[0.5, 0.1], **tiny).tolist() == [25, 19]


def test_cures_closed_form_equals_the_published_sum(rng):
    p, c, w = rng.uniform(size=(3, 100))
    q = 1 - p
    published = p * q**2 * c**2 + p**2 * q * w**2 - p**2 * q**2 * (c - w) ** 2
    np.testing.assert_allclose(np.sqrt(p * q) * (q * c + p * w), np.sqrt(published), rtol=1e-9)
    counts = allocate(Cures(), 10**6, 0, 10**6, success_rates=p, correct_norms=c, wrong_norms=w)
    np.testing.assert_allclose(counts, 1e6 * np.sqrt(published) / np.sqrt(published).sum(), atol=1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gvm(alpha=0.0), "alpha: expected a finite number"),
        (lambda: Gvm(beta=0.5), "beta: expected a finite number"),
        (lambda: Gvm(prior=(0.0, 1.0)), "prior: expected a finite number"),
        (lambda: Vip(estimator="grpo"), "estimator: expected one of rloo, dr_grpo, got 'grpo'"),
        (lambda: Vip(prior=1.0), "prior: expected the two parameters"),
        (lambda: Knapsack(prior=(1.0, np.nan)), "prior: expected a finite number"),
        (lambda: Cures(prior=(1.0, 1.0, 1.0)), "prior: expected the two parameters"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
