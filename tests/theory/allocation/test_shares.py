"""theory.allocation.shares: the water level against exact fractions, properties, extremes, bad input."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.optimize import minimize

from tests.theory import fuzzing
from tests.theory.allocation.instances import bounds, budgets, check_counts, feasible, nonnegative, vectors
from theory.allocation.bounds import MAX_BUDGET
from theory.allocation.optimum import optimal
from theory.allocation.shares import NEGLIGIBLE_WEIGHT, proportional, water_level


def fraction_water_level(weights, budget, low, high):
    """Largest remainders of the water level, in exact arithmetic; positive weights, sum(low) <= budget <= sum(high)."""
    w, low, high = [Fraction(float(x)) for x in weights], low.tolist(), high.tolist()
    fill = lambda c: [min(max(c * x, lo), hi) for x, lo, hi in zip(w, low, high, strict=True)]  # noqa: E731
    points = sorted({Fraction(b) / x for x, lo, hi in zip(w, low, high, strict=True) for b in (lo, hi)})
    left = max((c for c in points if sum(fill(c)) <= budget), default=points[0])
    x = fill(left)
    slope = sum(a for a, lo, hi in zip(w, low, high, strict=True) if lo <= left * a < hi)
    if sum(x) < budget:
        x = fill(left + (budget - sum(x)) / slope)
    counts = [int(a) for a in x]
    order = sorted(range(len(w)), key=lambda i: (counts[i] - x[i], i))
    for i in order[: budget - sum(counts)]:
        counts[i] += 1
    return counts


def test_proportional_equals_slsqp(rng):
    for num in (2, 5):
        sigmas = rng.uniform(0.2, 2.0, size=num)
        search = minimize(
            lambda n, s=sigmas: np.sum(s**2 / n),
            np.full(num, 30 / num),
            jac=lambda n, s=sigmas: -((s / n) ** 2),
            bounds=[(1e-3, 30)] * num,
            constraints={"type": "eq", "fun": lambda n: n.sum() - 30, "jac": np.ones_like},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        assert search.success
        np.testing.assert_allclose(proportional(sigmas, 30), search.x, rtol=1e-5)


def test_proportional_limits():
    assert proportional([0.0, 0.0], 5).tolist() == [2.5, 2.5]
    assert proportional([1e308, 1e308, 0.0], 6).tolist() == [3.0, 3.0, 0.0]
    assert proportional([5e-324, 5e-324], 6).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("weights", "budget", "low", "high", "expected"),
    [
        ([0, 1, 2, 5], 64, 8, 24, [8, 11, 21, 24]),  # level 32/3: 8, 10.67, 21.33, 24
        ([0, 0, 0, 0], 64, 8, 24, [16, 16, 16, 16]),
        ([1e-9, 9e-9, 0], 8, 0, 8, [3, 3, 2]),  # all negligible: uniform, the rest to the lower index
        ([1e-9, 1e-8, 0], 8, 0, 8, [1, 7, 0]),  # one is not: proportional
        ([1, 1, 1], 7, 4, 9, [3, 2, 2]),  # 3 * 4 > 7: the lower bounds shrink
        ([0, 9, 1], 6, [6, 3, 3], 9, [3, 2, 1]),  # 3, 1.5, 1.5 whatever the weights
        ([1, 3], 0, 0, 5, [0, 0]),
        ([1, 3], 0, 2, 5, [0, 0]),
        ([5, 0, 0, 1], 20, 1, 6, [6, 4, 4, 6]),  # the others are full: zero weights share the rest
        ([5, 0, 0, 1], 13, 1, 6, [6, 1, 1, 5]),
        ([5, 0, 0, 1], 15, 1, 6, [6, 2, 1, 6]),
        ([1, 1], 5, 0, 2**62, [3, 2]),
        ([1, 2, 3], 7, [1, 1, 4], [9, 9, 9], [1, 2, 4]),  # 1, 2, 4
        ([1, 4, 5, 2], 7, 0, 7, [1, 2, 3, 1]),  # 7/12, 28/12, 35/12, 14/12
        ([1, 3, 5], 12, 0, 12, [1, 4, 7]),  # 4/3, 4, 20/3
        ([3, 4, 7, 10], 8, 0, 8, [1, 2, 2, 3]),  # 1, 4/3, 7/3, 10/3: of three equal remainders the first
    ],
)
def test_water_level_worked_by_hand(weights, budget, low, high, expected):
    counts = water_level(weights, budget, low, high)
    assert counts.dtype == np.int64
    assert counts.tolist() == expected


def test_water_level_equals_exact_fractions(rng):
    """Integer weights with many tied remainders, and real ones over 600 decades."""
    for trial in range(600):
        num = int(rng.integers(1, 8))
        low = rng.integers(0, 4, size=num)
        high = low + rng.integers(0, 12, size=num)
        budget = int(rng.integers(low.sum(), high.sum() + 1))
        draw = [rng.integers(1, 8, size=num), rng.uniform(0.01, 1, size=num), 10.0 ** rng.uniform(-300, 300, size=num)]
        weights = draw[trial % 3] * (1.0 if trial % 2 else 2.0**-20)
        expected = fraction_water_level(weights, budget, low, high)
        if weights.max() >= NEGLIGIBLE_WEIGHT:
            assert water_level(weights, budget, low, high).tolist() == expected


def test_water_level_alabama_paradox():
    """One more rollout costs the third prompt one: the known price of largest remainders, stated in the docstring."""
    assert water_level([6, 6, 2], 10, 0, 10).tolist() == [4, 4, 2]
    assert water_level([6, 6, 2], 11, 0, 11).tolist() == [5, 5, 1]


def test_water_level_extreme_weights():
    tiny, huge = 5e-324, np.finfo(np.float64).max
    assert water_level([huge, huge, huge], 9, 0, 9).tolist() == [3, 3, 3]
    assert water_level([1e300, 1e-300], 10, 1, 8).tolist() == [8, 2]
    assert water_level([1e300, 1e-300, 2e-300], 17, 0, 8).tolist() == [8, 3, 6]
    assert water_level([huge, tiny, 0.0], 10, 1, 4).tolist() == [4, 3, 3]  # below 2**-2000 of the largest: zero
    assert water_level([tiny, tiny], 10, 1, 8).tolist() == [5, 5]  # negligible


def test_water_level_at_the_largest_budget():
    counts = water_level([1.0, 2.0, 4.0], MAX_BUDGET, 0, MAX_BUDGET)
    assert counts.tolist() == [MAX_BUDGET // 7, 2 * (MAX_BUDGET // 7), 4 * (MAX_BUDGET // 7) + 1]


@given(feasible(), st.integers(-20, 60))
def test_water_level_properties(instance, exponent):
    weights, budget, low, high = instance
    counts = water_level(weights, budget, low, high)
    assert counts.sum() == budget
    assert np.all((low <= counts) & (counts <= high))
    np.testing.assert_array_equal(water_level(np.ldexp(weights, exponent), budget, low, high), counts)
    np.testing.assert_array_equal(water_level(weights * 0.3, budget, low, high), counts)
    np.testing.assert_array_equal(water_level(counts, budget, low, high), counts)  # idempotent
    if budget < high.sum():  # a real share never falls, so a count falls by one at most
        assert np.all(water_level(weights, budget + 1, low, high) >= counts - 1)


@given(feasible(), st.integers(0, 7), st.integers(1, 50))
def test_larger_weight_never_fewer_rollouts(instance, which, extra):
    """Among prompts with the same bounds, and for one prompt whose own weight or variance grows."""
    weights, budget, low, high = instance
    raised = weights.copy()
    which %= weights.size
    raised[which] += extra
    solvers = [water_level]
    floor = np.maximum(low, 1)
    if floor.sum() <= budget and np.all(floor <= high):
        solvers.append(optimal)
    for solve in solvers:
        assert solve(raised, budget, low, high)[which] >= solve(weights, budget, low, high)[which]
    num, top = weights.size, int(high.max())
    if num <= budget <= num * top:
        order = np.argsort(weights)
        for solve in (water_level, optimal):
            counts = solve(weights, budget, 1, top)[order]
            assert np.all((np.diff(counts) >= 0) | (np.diff(weights[order]) == 0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 100))
def test_permutation_equivariance_without_ties(seed, num, extra):
    """Ties go to the lower index, so only counts without ties follow a permutation; real-valued draws have none."""
    rng = np.random.default_rng(seed)
    weights, low = rng.uniform(0.1, 1, size=num), rng.integers(1, 4, size=num)
    high = low + 40
    budget, order = int(low.sum()) + min(extra, 40 * num), rng.permutation(num)
    for solve in (water_level, optimal):
        expected = solve(weights, budget, low, high)[order]
        np.testing.assert_array_equal(solve(weights[order], budget, low[order], high[order]), expected)


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (proportional, ([], 4), "sigmas: expected a non-empty 1-D array"),
        (proportional, ([-1.0], 4), "sigmas: expected finite values"),
        (proportional, ([1.0], -4), "budget: expected an integer >= 0, got -4"),
        (proportional, ([1.0], 2**31), "budget: expected at most 2147483647, got 2147483648"),
        (water_level, ([1.0, 1.0], 4.0, 0, 4), "budget: expected an integer, got 4.0"),
        (water_level, ([1.0, 1.0], True, 0, 4), "budget: expected an integer, got True"),
        (water_level, ([1.0, 1.0], -1, 0, 4), "budget: expected an integer >= 0, got -1"),
        (water_level, ([1.0, 1.0], 9, 0, 4), r"budget: expected at most sum\(high\) = 8, got 9"),
        (water_level, ([1.0, -1.0], 4, 0, 4), "weights: expected finite values .* got -1.0 at index 1"),
        (water_level, ([1.0, np.nan], 4, 0, 4), "weights: expected finite values"),
        (water_level, ([True, False], 4, 0, 4), "weights: expected numbers, got dtype bool"),
        (water_level, ([1.0, 1.0], 4, 3, 2), "low: expected at most high, got 3 > 2 at index 0"),
        (water_level, ([1.0, 1.0], 4, -1, 2), "low: expected integers >= 0 of at most 64 bits, got -1"),
        (water_level, ([1.0, 1.0], 4, 2**31, 2**32), "low: expected at most 2147483647, got 2147483648"),
        (water_level, ([1.0, 1.0], 4, 0.5, 2), "low: expected integers, got dtype float64"),
        (water_level, ([1.0, 1.0], 4, 0, None), "high: expected integers, got dtype object"),
        (water_level, ([1.0, 1.0], 4, 0, [[1], [1, 2]]), "high: expected an array, got list"),
        (water_level, ([1.0, 1.0], 4, False, 2), "low: expected integers, got dtype bool"),
        (water_level, ([1.0, 1.0], 4, [0, 0, 0], 2), r"low: expected a scalar or shape \(2,\), got shape \(3,\)"),
    ],
)
def test_bad_input_is_named(function, args, message):
    with pytest.raises(ValueError, match=message):
        function(*args)


@fuzzing.fuzz
@given(vectors | nonnegative, budgets)
def test_fuzz_proportional(sigmas, budget):
    result = fuzzing.call(proportional, sigmas, budget)
    assert result is None or np.isclose(result.sum(), budget, rtol=1e-12)


@fuzzing.fuzz
@given(vectors | nonnegative, budgets, bounds, bounds | st.just(2**31))
def test_fuzz_water_level(weights, budget, low, high):
    check_counts(fuzzing.call(water_level, weights, budget, low, high), budget)
