"""theory.allocation: brute force over all integer allocations, exact references in fractions, properties, bad input."""

from __future__ import annotations

import heapq
from fractions import Fraction
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.optimize import minimize

from tests.theory import fuzzing
from theory import allocation
from theory.allocation.optimum import MAX_BUDGET, optimal, optimal_any, optimal_concave, variance_ratio, water_level

# --- References -------------------------------------------------------------------------------------------------------


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


# --- Exact optima -----------------------------------------------------------------------------------------------------

LCM_20 = 232_792_560  # of 1..20: v/n becomes an integer, and brute force exact
INFINITE = 10**15


def variance_gains(variances, budget):
    """Table of -v/n in units of 1/LCM_20, with a stand-in for minus infinity at n = 0 where v > 0."""
    none = np.where(variances > 0, -INFINITE, 0)[:, None]
    return np.concatenate([none, -variances[:, None] * (LCM_20 // np.arange(1, budget + 1))], axis=1)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
def test_optimal_equals_brute_force(num, rng):
    found = 0
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
                    found += 1
                    np.testing.assert_array_equal(optimal(variances, budget, low, high), expected)
    assert found > 200


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
def test_optimal_concave_and_any_equal_brute_force(num, rng):
    found = 0
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
                        found += 1
                        np.testing.assert_array_equal(solve(gains, budget, low, high), expected)
    assert found > 50


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
        assert allocation.total_variance(sigmas**2, best) <= allocation.total_variance(sigmas**2, rounded)
        assert variance_ratio(sigmas**2, best) <= 1


# --- Water level ------------------------------------------------------------------------------------------------------


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
        if weights.max() >= allocation.NEGLIGIBLE_WEIGHT:
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


@st.composite
def feasible(draw):
    """Bounds, a budget that they can meet, and integer weights: real shares differ by rounding or by much more."""
    num = draw(st.integers(1, 8))
    vector = lambda high: np.array(draw(st.lists(st.integers(0, high), min_size=num, max_size=num)))  # noqa: E731
    weights, low = vector(50).astype(np.float64), vector(5)
    high = low + vector(20)
    return weights, draw(st.integers(int(low.sum()), int(high.sum()))), low, high


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


# --- Closed forms -----------------------------------------------------------------------------------------------------


def test_bernoulli_variance_is_unbiased_exactly():
    """Sum over k of the binomial probability times P is p(1 - p): the formula in fractions, the function in float64."""
    for attempts in range(2, 12):
        for p in (Fraction(1, 7), Fraction(1, 2), Fraction(9, 10)):
            weight = [comb(attempts, k) * p**k * (1 - p) ** (attempts - k) for k in range(attempts + 1)]
            estimate = allocation.bernoulli_variance(np.arange(attempts + 1), np.full(attempts + 1, attempts))
            mean = np.dot([float(x) for x in weight], estimate)
            np.testing.assert_allclose(mean, float(p * (1 - p)), rtol=1e-14)


def test_bernoulli_variance_range_and_effective_counts(rng):
    attempts = rng.uniform(2, 50, size=1000)
    estimate = allocation.bernoulli_variance(rng.uniform(size=1000) * attempts, attempts)
    assert np.all((estimate >= 0) & (estimate <= 0.5))
    assert allocation.bernoulli_variance([0.0, 2.5, 1e300, 1.0], [2.5, 2.5, 2e300, 2.0]).tolist() == [0, 0, 0.25, 0.5]


def test_proportional_equals_slsqp(rng):
    for num in (2, 5):
        sigmas = rng.uniform(0.2, 2.0, size=num)
        found = minimize(
            lambda n, s=sigmas: np.sum(s**2 / n),
            np.full(num, 30 / num),
            jac=lambda n, s=sigmas: -((s / n) ** 2),
            bounds=[(1e-3, 30)] * num,
            constraints={"type": "eq", "fun": lambda n: n.sum() - 30, "jac": np.ones_like},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        assert found.success
        np.testing.assert_allclose(allocation.proportional(sigmas, 30), found.x, rtol=1e-5)


def test_proportional_limits():
    assert allocation.proportional([0.0, 0.0], 5).tolist() == [2.5, 2.5]
    assert allocation.proportional([1e308, 1e308, 0.0], 6).tolist() == [3.0, 3.0, 0.0]
    assert allocation.proportional([5e-324, 5e-324], 6).tolist() == [3.0, 3.0]


# mpmath, 50 digits, for s = (0.3, 1.7, 2.2, 0.05):
#   print(fsum(s)**2 / (4 * fsum(x*x for x in s)))
GOLDEN_SIGMAS = np.array([0.3, 1.7, 2.2, 0.05])
GOLDEN_RATIO = 0.57726110578459570535


def test_optimal_variance_ratio_golden_and_closed_form():
    np.testing.assert_allclose(allocation.optimal_variance_ratio(GOLDEN_SIGMAS), GOLDEN_RATIO, rtol=1e-15)
    cv = GOLDEN_SIGMAS.std() / GOLDEN_SIGMAS.mean()
    np.testing.assert_allclose(GOLDEN_RATIO, 1 / (1 + cv**2), rtol=1e-14)
    shares = allocation.proportional(GOLDEN_SIGMAS, 64)
    np.testing.assert_allclose(variance_ratio(GOLDEN_SIGMAS**2, shares), GOLDEN_RATIO, rtol=1e-14)


def test_shares_proportional_to_the_variance_gain_nothing():
    """Shares proportional to sigma^2 have exactly uniform's variance: the paper's proxy P is sigma^2, not sigma."""
    shares = allocation.proportional(GOLDEN_SIGMAS**2, 64)
    np.testing.assert_allclose(variance_ratio(GOLDEN_SIGMAS**2, shares), 1.0, rtol=1e-14)


def test_variance_limits():
    assert allocation.total_variance([0.0, 0.0], [0, 3]) == 0.0
    assert variance_ratio([0.0, 0.0], [0, 0]) == 1.0
    assert variance_ratio([2.0, 2.0, 2.0], [5, 5, 5]) == 1.0
    assert variance_ratio([1.0, 9.0], [4, 4]) == 1.0
    np.testing.assert_allclose(variance_ratio([1e308, 9e307], [2, 6]), (10 / 2 + 9 / 6) / (19 / 4), rtol=1e-14)
    assert allocation.optimal_variance_ratio([0.0, 0.0]) == 1.0
    assert allocation.optimal_variance_ratio([1e308, 1e308]) == 1.0
    assert allocation.optimal_variance_ratio([3.0, 0.0, 0.0, 0.0]) == 0.25


# --- Bad input --------------------------------------------------------------------------------------------------------

TABLE = np.zeros((2, 4))


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (allocation.bernoulli_variance, ([1], [1]), r"attempts: expected finite values in \[2.0, inf\], got 1.0"),
        (allocation.bernoulli_variance, ([-1], [4]), "successes: expected finite values"),
        (
            allocation.bernoulli_variance,
            ([2, 5], [4, 4]),
            "successes: expected at most attempts, got 5.0 > 4.0 at index 1",
        ),
        (allocation.bernoulli_variance, ([1], [4, 4]), "attempts: expected the shape of successes"),
        (allocation.bernoulli_variance, ([np.nan], [4]), "successes: expected finite values"),
        (allocation.proportional, ([], 4), "sigmas: expected a non-empty 1-D array"),
        (allocation.proportional, ([-1.0], 4), "sigmas: expected finite values"),
        (allocation.proportional, ([1.0], -4), "budget: expected an integer >= 0, got -4"),
        (allocation.proportional, ([1.0], 2**31), r"budget: expected an integer in \[0, 2147483647\], got 2147483648"),
        (allocation.optimal_variance_ratio, ([np.inf],), "sigmas: expected finite values"),
        (water_level, ([1.0, 1.0], 4.0, 0, 4), "budget: expected an integer, got 4.0"),
        (water_level, ([1.0, 1.0], True, 0, 4), "budget: expected an integer, got True"),
        (water_level, ([1.0, 1.0], -1, 0, 4), "budget: expected an integer >= 0, got -1"),
        (water_level, ([1.0, 1.0], 9, 0, 4), r"budget: expected at most sum\(high\) = 8, got 9"),
        (water_level, ([1.0, -1.0], 4, 0, 4), "weights: expected finite values .* got -1.0 at index 1"),
        (water_level, ([1.0, np.nan], 4, 0, 4), "weights: expected finite values"),
        (water_level, ([True, False], 4, 0, 4), "weights: expected numbers, got dtype bool"),
        (water_level, ([1.0, 1.0], 4, 3, 2), "low: expected at most high, got low 3 > high 2 at index 0"),
        (water_level, ([1.0, 1.0], 4, -1, 2), r"low: expected integers in \[0, 2147483647\], got -1 to -1"),
        (water_level, ([1.0, 1.0], 4, 2**31, 2**32), "low: expected integers in"),
        (water_level, ([1.0, 1.0], 4, 0.5, 2), "low: expected integers, got dtype float64"),
        (water_level, ([1.0, 1.0], 4, 0, None), "high: expected integers, got dtype object"),
        (water_level, ([1.0, 1.0], 4, 0, [[1], [1, 2]]), "high: expected integers, got list"),
        (water_level, ([1.0, 1.0], 4, False, 2), "low: expected integers, got dtype bool"),
        (water_level, ([1.0, 1.0], 4, [0, 0, 0], 2), r"low: expected a scalar or shape \(2,\), got shape \(3,\)"),
        (optimal, ([1.0, 1.0], 3, 2, 4), r"budget: expected sum\(low\) = 4 to sum\(high\) = 8, got 3"),
        (optimal, ([1.0, 1.0], 9, 2, 4), r"budget: expected sum\(low\) = 4 to sum\(high\) = 8, got 9"),
        (optimal, ([1.0, 1.0], 1, 0, 4), r"budget: expected sum\(low\) = 2"),
        (
            optimal,
            ([0.0, 1.0], 1, 0, [4, 0]),
            "high: expected at least 1 where the variance is positive, got 0 at index 1",
        ),
        (optimal, ([1.0, -1.0], 4, 1, 4), "variances: expected finite values"),
        (optimal_concave, ([[0.0, 1.0]], 1, 0, 1), "gains: expected a numeric array .* got list"),
        (optimal_concave, (np.zeros(3), 1, 0, 1), r"gains: expected a numeric array .* got float64 of shape \(3,\)"),
        (optimal_concave, (np.zeros((0, 3)), 0, 0, 1), r"gains: .* got float64 of shape \(0, 3\)"),
        (optimal_concave, (TABLE > 0, 1, 0, 1), "gains: .* got bool"),
        (optimal_concave, (TABLE, 4, 0, 4), "high: expected at most 3, the last column of gains, got 4"),
        (optimal_concave, (TABLE, 7, 0, 3), r"budget: expected sum\(low\) = 0 to sum\(high\) = 6, got 7"),
        (optimal_any, (TABLE, 1, 1, 3), r"budget: expected sum\(low\) = 2"),
        (optimal_any, (TABLE + np.array([[0], [np.inf]]), 1, 0, 3), "gains: expected finite values .* in row 1"),
        (allocation.total_variance, ([1.0, 2.0], [1, 0]), "counts: expected positive counts .* got 0 at index 1"),
        (allocation.total_variance, ([1.0], [1, 1]), "counts: expected the shape of variances"),
        (allocation.total_variance, ([1e308, 1e308], [1, 1]), "variances: expected a sum of v/n within float64"),
        (variance_ratio, ([1.0, 2.0], [0, 0]), "counts: expected positive counts .* got 0 at index 0"),
        (variance_ratio, ([1.0, 2.0], [1, -1]), "counts: expected finite values"),
    ],
)
def test_bad_input_is_named(function, args, message):
    with pytest.raises(ValueError, match=message):
        function(*args)


# --- Fuzzing ----------------------------------------------------------------------------------------------------------

numbers = st.floats(0, 1.7e308) | st.sampled_from([0.0, 1.0, 2.0, 5.5]) | fuzzing.any_float
vectors = st.lists(numbers, max_size=4).map(np.array)
nonnegative = st.lists(st.floats(0, 1.7e308), min_size=1, max_size=4).map(np.array)
budgets = st.integers(-1, 60) | st.sampled_from([2**31 - 1, 2**31, 2**70, 1.5, True])
bounds = (
    st.integers(-1, 5)
    | st.integers(0, 2**70)
    | st.lists(st.integers(0, 12), max_size=6).map(lambda x: np.array(x, dtype=np.int64))
)
count_vectors = st.lists(st.integers(0, 30) | numbers, min_size=1, max_size=4).map(np.array)
tables = fuzzing.float_arrays(st.tuples(st.integers(0, 3), st.integers(0, 6)), fuzzing.any_float)
falling = fuzzing.float_arrays(st.tuples(st.integers(1, 3), st.integers(1, 6)), st.floats(-1e307, 1e307)).map(
    lambda x: np.cumsum(-np.sort(-x, axis=1), axis=1)
)


def check_counts(counts, budget):
    if counts is not None:
        assert counts.dtype == np.int64
        assert counts.sum() == budget
        assert np.all(counts >= 0)


@fuzzing.fuzz
@given(vectors, vectors)
def test_fuzz_bernoulli_variance(successes, attempts):
    result = fuzzing.call(allocation.bernoulli_variance, successes, attempts)
    assert result is None or np.all((result >= 0) & (result <= 0.5))


@fuzzing.fuzz
@given(vectors | nonnegative, budgets)
def test_fuzz_proportional(sigmas, budget):
    result = fuzzing.call(allocation.proportional, sigmas, budget)
    assert result is None or np.isclose(result.sum(), budget, rtol=1e-12)


@fuzzing.fuzz
@given(vectors | nonnegative, budgets, bounds, bounds | st.just(2**31))
def test_fuzz_water_level(weights, budget, low, high):
    check_counts(fuzzing.call(water_level, weights, budget, low, high), budget)


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


@fuzzing.fuzz
@given(nonnegative | vectors, count_vectors)
def test_fuzz_total_variance(variances, counts):
    fuzzing.call(allocation.total_variance, variances, counts)


@fuzzing.fuzz
@given(nonnegative | vectors, count_vectors)
def test_fuzz_variance_ratio(variances, counts):
    fuzzing.call(variance_ratio, variances, counts)


@fuzzing.fuzz
@given(vectors | nonnegative)
def test_fuzz_optimal_variance_ratio(sigmas):
    result = fuzzing.call(allocation.optimal_variance_ratio, sigmas)
    assert result is None or 0 < result <= 1 + 1e-12
