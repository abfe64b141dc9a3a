"""Speed of `theory.allocation` beside a heap greedy and the floor: `pytest tests/benchmarks --benchmark-only`.

One group per number of prompts. The floor is what any solver of a level pays at least: read the variances, take one
square root of each, sort them once. The heap greedy adds one rollout at a time, as allocators in the field do.
"""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from theory.allocation import water_level
from theory.allocation.optimum import optimal

LOW, HIGH, MEAN = 2, 128, 16
MILLION = 1_000_000
SIZES = [512, MILLION]
SECONDS = {512: 1e-3, MILLION: 0.5}
"""What `optimal` and `water_level` may take at most, best round; asserted when benchmarks are enabled."""


def bernoulli_variances(num):
    p = np.random.default_rng(20260222).beta(0.7, 0.7, size=num)
    return p * (1 - p)


def heap_greedy(variances, num_rollouts, low, high):
    """Give `num_rollouts` beyond `low`, one at a time, to the largest marginal v / (n (n + 1))."""
    counts = [low] * len(variances)
    heap = [(-v / (low * (low + 1)), i) for i, v in enumerate(variances)]
    heapq.heapify(heap)
    for _ in range(num_rollouts):
        i = heap[0][1]
        n = counts[i] = counts[i] + 1
        if n < high:
            heapq.heapreplace(heap, (-variances[i] / (n * (n + 1)), i))
        else:
            heapq.heappop(heap)
    return counts


def run(benchmark, num, function, *args):
    benchmark.group = f"allocate {MEAN} rollouts each to {num:,} prompts"
    rounds = 200 if num < MILLION else 5
    return benchmark.pedantic(function, args=args, rounds=rounds, warmup_rounds=1 if benchmark.enabled else 0)


def best_seconds(benchmark):
    return benchmark.stats.stats.min if benchmark.enabled else 0.0


@pytest.mark.parametrize("num", SIZES)
def test_floor_one_sqrt_one_sort(benchmark, num):
    variances = bernoulli_variances(num)
    ordered = run(benchmark, num, lambda: np.sort(np.sqrt(variances)))
    assert ordered[0] <= ordered[-1]


@pytest.mark.parametrize("num", SIZES)
def test_water_level(benchmark, num):
    sigmas = np.sqrt(bernoulli_variances(num))
    counts = run(benchmark, num, water_level, sigmas, MEAN * num, LOW, HIGH)
    assert counts.sum() == MEAN * num
    assert best_seconds(benchmark) < SECONDS[num]


@pytest.mark.parametrize("num", SIZES)
def test_optimal(benchmark, num):
    counts = run(benchmark, num, optimal, bernoulli_variances(num), MEAN * num, LOW, HIGH)
    assert counts.sum() == MEAN * num
    assert best_seconds(benchmark) < SECONDS[num]


@pytest.mark.parametrize("num", SIZES)
def test_optimal_without_an_upper_bound_and_with_a_heavy_tail(benchmark, num):
    variances = np.random.default_rng(20260222).pareto(0.5, size=num)
    counts = run(benchmark, num, optimal, variances, MEAN * num, LOW, 2**62)
    assert counts.sum() == MEAN * num
    assert best_seconds(benchmark) < SECONDS[num]


def test_heap_greedy_small(benchmark):
    variances = bernoulli_variances(512)
    counts = run(benchmark, 512, heap_greedy, variances.tolist(), (MEAN - LOW) * 512, LOW, HIGH)
    np.testing.assert_array_equal(counts, optimal(variances, MEAN * 512, LOW, HIGH))


def test_heap_greedy_large_first_rollout_of_14(benchmark):
    """Build the heap and spend the first N of 14 N rollouts, a hundredth of N when benchmarks are disabled."""
    variances = bernoulli_variances(MILLION)
    num_rollouts = MILLION if benchmark.enabled else MILLION // 100
    benchmark.group = f"allocate {MEAN} rollouts each to {MILLION:,} prompts"
    counts = benchmark.pedantic(heap_greedy, args=(variances.tolist(), num_rollouts, LOW, HIGH), rounds=1)
    np.testing.assert_array_equal(counts, optimal(variances, LOW * MILLION + num_rollouts, LOW, HIGH))
