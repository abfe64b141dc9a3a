"""theory.allocation.optimum: brute force over all integer allocations, the greedy heap, exchange, bad input."""

from __future__ import annotations

import heapq
from fractions import Fraction
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from tests.theory.allocation.instances import bounds, budgets, check_counts, feasible, nonnegative, vectors
from theory.allocation.bounds import MAX_BUDGET
from theory.allocation.optimum import optimal, optimal_any, optimal_concave
from theory.allocation.shares import water_level
from theory.allocation.variance import total_variance, variance_ratio


def all_allocations(num, budget):
    """Every way to write `budget` as a sum of `num` integers >= 0, in descending lexicographic order."""
    bars = np.array(list(combinations(range(budget + num - 1), num - 1)), dtype=np.int64)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, budget + num - 1)))
    return (np.diff(edges, axis=1) - 1)[::-1]


def brute_force(gains, allocations, low, high):
    """Lexicographically largest maximiser of sum gains[i, n_i] over the listed allocations, or None without any."""
    allowed = allocations[((low <= allocations) & (allocations <= high)).all(axis=1)]
    if not len(allowed):
        return None
    totals = gains[np.arange(gains.shape[0]), allowed].sum(axis=1)
    return allowed[np.argmax(totals)]


def heap_greedy(variances, budget, low, high):
    """One rollout at a time to the largest marginal v / (n (n + 1)), ties to the lower index."""
    counts = [int(x) for x in low]
    heap = [(-v / (n * (n + 1)), i) for i, (v, n, h) in enumerate(zip(variances, counts, high, strict=True)) if n < h]
    heapq.heapify(heap)
    for _ in range(budget - sum(counts)):
        _, i = heapq.heappop(heap)
        counts[i] += 1
        if counts[i] < high[i]:
            heapq.heappush(heap, (-variances[i] / (counts[i] * (counts[i] + 1)), i))
    return counts


def bound_grid(num, budget, rng):
    """Scalar and array bounds, feasible and not."""
    yield 0, budget
    yield 1, budget
    yield 1, 4
    yield 2, 2**40
    for _ in range(2):
        low = rng.integers(0, 4, size=num)
        yield low, low + rng.integers(0, 8, size=num)


LCM_20 = 232_792_560  # of 1..20: v/n becomes an integer, and brute force exact
INFINITE = 10**15


def variance_gains(variances, budget):
    """Table of -v/n in units of 1/LCM_20, with a stand-in for minus infinity at n = 0 where v > 0."""
    none = np.where(variances > 0, -INFINITE, 0)[:, None]
    return np.concatenate([none, -variances[:, None] * (LCM_20 // np.arange(1, budget + 1))], axis=1)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
def test_optimal_equals_brute_force(num, rng):
    checked = 0
    for budget in range(1, 21):
        allocations = all_allocations(num, budget)
        assert len(allocations) == comb(budget + num - 1, num - 1)
        for low, high in bound_grid(num, budget, rng):
            for variances in (
                np.zeros(num, dtype=np.int64),
                np.ones(num, dtype=np.int64),
                rng.choice([0, 1, 2, 3, 4, 9], size=num),
                rng.choice([0, 1, 6, 12, 20], size=num),
                rng.integers(1, 100, size=num),
                rng.uniform(0.1, 1.0, size=num),
            ):
                gains = variance_gains(variances, budget)
                expected = brute_force(gains, allocations, low, high)
                if expected is None or gains[np.arange(num), expected].sum() <= -INFINITE / 2:
                    with pytest.raises(ValueError, match=r"budget: expected sum|high: expected at least 1"):
                        optimal(variances, budget, low, high)
                else:
                    checked += 1
                    np.testing.assert_array_equal(optimal(variances, budget, low, high), expected)
    assert checked > 200


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
def test_optimal_concave_and_any_equal_brute_force(num, rng):
    checked = 0
    for budget in range(1, 21):
        allocations = all_allocations(num, budget)
        for low, high in bound_grid(num, budget, rng):
            high = np.minimum(high, budget)
            if np.any(low > high):
                continue
            marginals = rng.integers(-3, 4 + 3 * num, size=(num, budget))
            wild = np.cumsum(np.pad(marginals, ((0, 0), (1, 0))), axis=1)
            concave = np.cumsum(np.pad(-np.sort(-marginals, axis=1), ((0, 0), (1, 0))), axis=1)
            for gains, solvers in ((wild, [optimal_any]), (concave, [optimal_any, optimal_concave])):
                expected = brute_force(gains, allocations, low, high)
                for solve in solvers:
                    if expected is None:
                        with pytest.raises(ValueError, match="budget: expected sum"):
                            solve(gains, budget, low, high)
                    else:
                        checked += 1
                        np.testing.assert_array_equal(solve(gains, budget, low, high), expected)
    assert checked > 50


@pytest.mark.parametrize("kind", ["uniform", "ties", "heavy tail", "600 decades", "nearly equal"])
@pytest.mark.parametrize("high", [24, 128, 10**12])
def test_optimal_equals_the_greedy_heap(kind, high, rng):
    for num, per_prompt in product((1, 2, 7, 300), (3, 16)):
        variances = {
            "uniform": lambda n: rng.uniform(size=n),
            "ties": lambda n: rng.choice([1.0, 3.0, 6.0, 12.0, 36.0], size=n),
            "heavy tail": lambda n: rng.pareto(0.3, size=n) + 1e-9,
            "600 decades": lambda n: 10.0 ** rng.uniform(-300, 300, size=n),
            "nearly equal": lambda n: 1 + rng.integers(0, 3, size=n) * np.finfo(np.float64).eps,
        }[kind](num)
        budget = num * per_prompt
        scaled = np.ldexp(variances, 1022 - np.frexp(variances.max())[1])  # the marginals of the heap do not underflow
        expected = heap_greedy(scaled.tolist(), budget, [2] * num, [high] * num)
        np.testing.assert_array_equal(optimal(variances, budget, 2, high), expected)


def test_optimal_concave_agrees_with_optimal(rng):
    for num in (1, 5, 60):
        variances = rng.uniform(0.1, 1.0, size=num)
        gains = -variances[:, None] / np.concatenate([[np.nan], np.arange(1, 41)])  # column 0 is outside and not read
        for budget in (2 * num, 11 * num, 40 * num):
            expected = optimal(variances, budget, 2, 40)
            np.testing.assert_array_equal(optimal_concave(gains, budget, 2, 40), expected)
            np.testing.assert_array_equal(optimal_any(gains, budget, 2, 40), expected)


def test_optimal_at_the_largest_budget_passes_the_exchange_test():
    """In exact arithmetic, no rollout moved from one prompt to another lowers the variance."""
    variances = [1.0, 7.3, 1e-6, 5.0]
    counts = [int(n) for n in optimal(variances, MAX_BUDGET, 1, MAX_BUDGET)]
    assert sum(counts) == MAX_BUDGET
    gain = [Fraction(v) / (n * (n + 1)) for v, n in zip(variances, counts, strict=True)]
    loss = [Fraction(v) / (n * (n - 1)) for v, n in zip(variances, counts, strict=True)]
    assert max(gain) <= min(loss) * (1 + Fraction(1, 2**52))


@pytest.mark.parametrize(
    ("variances", "budget"),
    [
        ([565886380738322.0, 1358104213428690.0, 1780701291301092.0, 719331200942850.0], 129659539),
        (
            [734492250802805.6, 1285535740533791.5, 636071880036689.9, 64666550527151.984, 1694470409126970.8,
             1266610268112491.5],
            172971317,
        ),
    ],
)  # fmt: skip
def test_optimal_where_the_rounded_square_root_is_one_rollout_off(variances, budget):
    """Marginals near 1 within a few units in the last place: no rollout left out precedes one taken."""
    v, n = np.array(variances), optimal(variances, budget, 1, MAX_BUDGET)
    assert n.sum() == budget
    left_out, taken = v / (n * (n + 1)), v / (n * (n - 1))
    for i, j in product(range(v.size), repeat=2):
        assert i == j or left_out[i] < taken[j] or (left_out[i] == taken[j] and i > j)


def test_optimal_zero_variance_waits_then_fills_in_order():
    assert optimal([0.0, 1.0, 0.0], 12, 2, 8).tolist() == [2, 8, 2]
    assert optimal([0.0, 1.0, 0.0], 15, 2, 8).tolist() == [5, 8, 2]
    assert optimal([0.0, 1.0, 0.0], 23, 2, 8).tolist() == [8, 8, 7]
    assert optimal([0.0, 1.0, 0.0], 5, 0, 8).tolist() == [0, 5, 0]
    assert optimal([4.0, 1.0, 0.0], 2, 0, 8).tolist() == [1, 1, 0]


def test_equal_rows_tie_whatever_their_bits():
    """Sums of the same gains in another order differ in float64, and must not decide."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        counts = optimal_any(np.tile(rng.normal(size=13), (5, 1)), 31, 2, 12).tolist()
        assert counts == sorted(counts, reverse=True)


def test_optimal_any_takes_a_gain_that_greedy_misses():
    gains = np.array([[0.0, 0.0, 0.0, 9.0], [0.0, 4.0, 5.0, 6.0]])
    assert optimal_any(gains, 4, 0, 3).tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"gains: expected concave rows within .* in row 0 at 2"):
        optimal_concave(gains, 4, 0, 3)
    assert optimal_concave(gains, 3, 0, 2).tolist() == [1, 2]  # concave within [0, 2]


def test_optimal_concave_tolerates_rounding_only():
    gains = np.array([0.1, 0.2, 0.3, 0.4])[None] + 1e3  # linear, but its float64 differences rise and fall
    assert np.any(np.diff(gains, n=2) > 0)
    assert optimal_concave(gains, 3, 0, 3).tolist() == [3]
    gains[0, 3] += 1e-11
    with pytest.raises(ValueError, match="rising marginal in row 0 at 2"):
        optimal_concave(gains, 3, 0, 3)


def test_gains_near_the_largest_float_do_not_overflow():
    huge = np.finfo(np.float64).max
    gains = np.array([[-huge, 0.0, huge], [-huge, huge, huge]])
    for solve in (optimal_concave, optimal_any):
        assert solve(gains, 2, 0, 2).tolist() == [1, 1]
        assert solve(gains, 3, 0, 2).tolist() == [2, 1]


def test_optimal_extreme_variances():
    tiny, huge = 5e-324, np.finfo(np.float64).max
    assert optimal([huge, tiny], 10, 1, 8).tolist() == [8, 2]
    assert optimal([huge, huge, tiny], 24, 1, 10**6).tolist() == [12, 11, 1]
    assert optimal([tiny, 4 * tiny], 9, 1, 9).tolist() == [3, 6]


def test_optimal_beats_the_rounded_water_level(rng):
    for _ in range(50):
        sigmas = rng.lognormal(0.0, 1.0, size=40)
        best = optimal(sigmas**2, 640, 2, 64)
        rounded = water_level(sigmas, 640, 2, 64)
        assert np.abs(best - rounded).max() <= 2
        assert total_variance(sigmas**2, best) <= total_variance(sigmas**2, rounded)
        assert variance_ratio(sigmas**2, best) <= 1


@given(feasible(), st.integers(-1074, 1000))
def test_optimal_properties(instance, exponent):
    variances, budget, low, high = instance
    low, high = np.maximum(low, 1), np.maximum(high, 1)
    budget = min(max(budget, int(low.sum())), int(high.sum()))
    counts = optimal(variances, budget, low, high)
    assert counts.sum() == budget
    assert np.all((low <= counts) & (counts <= high))
    np.testing.assert_array_equal(optimal(np.ldexp(variances, exponent), budget, low, high), counts)
    if budget < high.sum():  # one order of rollouts serves every budget: nobody loses one
        assert np.all(optimal(variances, budget + 1, low, high) >= counts)


TABLE = np.zeros((2, 4))


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (optimal, ([1.0, 1.0], 3, 2, 4), r"budget: expected sum\(low\) = 4 to sum\(high\) = 8, got 3"),
        (optimal, ([1.0, 1.0], 9, 2, 4), r"budget: expected sum\(low\) = 4 to sum\(high\) = 8, got 9"),
        (optimal, ([1.0, 1.0], 1, 0, 4), r"budget: expected sum\(low\) = 2"),
        (
            optimal,
            ([0.0, 1.0], 1, 0, [4, 0]),
            "high: expected at least 1 where the variance is positive, got 0 at index 1",
        ),
        (optimal, ([1.0, 0.0, 1.0], 1, 0, [4, 0, 0]), "got 0 at index 2"),
        (optimal, ([1.0, -1.0], 4, 1, 4), "variances: expected finite values"),
        (optimal_concave, ([[0.0, 1.0]], 1, 0, 1), "gains: expected a numeric array .* got list"),
        (optimal_concave, (np.zeros(3), 1, 0, 1), r"gains: expected a numeric array .* got float64 of shape \(3,\)"),
        (optimal_concave, (np.zeros((0, 3)), 0, 0, 1), r"gains: .* got float64 of shape \(0, 3\)"),
        (optimal_concave, (TABLE > 0, 1, 0, 1), "gains: .* got bool"),
        (optimal_concave, (TABLE, 4, 0, 4), "high: expected at most 3, the last column of gains, got 4"),
        (optimal_concave, (TABLE, 7, 0, 3), r"budget: expected sum\(low\) = 0 to sum\(high\) = 6, got 7"),
        (optimal_any, (TABLE, 1, 1, 3), r"budget: expected sum\(low\) = 2"),
        (optimal_any, (TABLE + np.array([[0], [np.inf]]), 1, 0, 3), "gains: expected finite values .* in row 1"),
    ],
)
def test_bad_input_is_named(function, args, message):
    with pytest.raises(ValueError, match=message):
        function(*args)


tables = fuzzing.float_arrays(st.tuples(st.integers(0, 3), st.integers(0, 6)), fuzzing.any_float)
falling = fuzzing.float_arrays(st.tuples(st.integers(1, 3), st.integers(1, 6)), st.floats(-1e307, 1e307)).map(
    lambda x: np.cumsum(-np.sort(-x, axis=1), axis=1)
)


@fuzzing.fuzz
@given(vectors | nonnegative, budgets, bounds, bounds | st.just(2**31))
def test_fuzz_optimal(variances, budget, low, high):
    check_counts(fuzzing.call(optimal, variances, budget, low, high), budget)


@fuzzing.fuzz
@given(tables | falling, budgets, bounds, bounds)
def test_fuzz_optimal_concave(gains, budget, low, high):
    check_counts(fuzzing.call(optimal_concave, gains, budget, low, high), budget)


@fuzzing.fuzz
@given(tables | falling, budgets, bounds, bounds)
def test_fuzz_optimal_any(gains, budget, low, high):
    check_counts(fuzzing.call(optimal_any, gains, budget, low, high), budget)
