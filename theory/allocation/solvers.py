"""The algorithms under `theory.allocation`: the real-valued water level, and the exact integer optimum.

Arguments are checked there. Bounds are int64 [N] with 0 <= low <= high < 2**31 and sum(low) <= budget <= sum(high),
so that every count, and every sum of counts, is exact in float64.
"""

from __future__ import annotations

import numpy as np

from theory.base.arrays import BoolArray, FloatArray, IntArray


def first_largest(keys: FloatArray | IntArray, num: int) -> BoolArray:
    """Mark the `num` largest keys; of equal keys the earlier."""
    if num == 0:
        return np.zeros(keys.size, dtype=np.bool_)
    threshold = np.partition(keys, keys.size - num)[keys.size - num]
    chosen: BoolArray = keys > threshold
    tied = np.flatnonzero(keys == threshold)
    chosen[tied[: num - int(np.count_nonzero(chosen))]] = True
    return chosen


def water_level(weights: FloatArray, budget: int, low: IntArray, high: IntArray) -> FloatArray:
    """Return clip(c w, low, high) with sum = budget; every weight is positive, at most 2**1016, at least 2**-985.

    The sum grows with c, linearly between the 2N breakpoints low/w and high/w. Bisection over the sorted breakpoints
    finds the segment of c, and there c solves one linear equation. The sum is evaluated anew each time, since running
    sums over the sorted weights would cancel when these differ by many orders of magnitude.
    """
    floor, ceiling = low.astype(np.float64), high.astype(np.float64)
    leave_low, reach_high = floor / weights, ceiling / weights
    points = np.sort(np.concatenate([leave_low, reach_high]))
    buffer = np.empty_like(weights)
    first, last = 0, points.size
    with np.errstate(over="ignore"):  # a product beyond float64 is clipped to `high`
        while last - first > 1:
            middle = (first + last) // 2
            np.multiply(weights, points[middle], out=buffer)
            if np.clip(buffer, floor, ceiling, out=buffer).sum() <= budget:
                first = middle
            else:
                last = middle
    at_high = reach_high <= points[first]
    free = ~at_high if last == points.size else ~at_high & (leave_low < points[last])
    filled = np.where(at_high, ceiling, floor)
    if free.any():
        share = weights[free]
        share = np.ldexp(share, -np.frexp(share.max())[1])  # at most 1: the sum cannot overflow
        rest = budget - filled[~free].sum()
        filled[free] = np.clip(rest * share / share.sum(), floor[free], ceiling[free])
    return filled


def integer_optimum(variances: FloatArray, budget: int, low: IntArray, high: IntArray) -> IntArray:
    """Return the integer minimiser of sum v/n under the bounds, with v > 0 and low >= 1; ties to the lower index.

    The rollout that follows n lowers the variance by the marginal m(n) = v / (n (n + 1)), which falls with n. Exchange
    argument: moving one rollout to a larger marginal lowers the total, so an allocation is optimal exactly if it takes
    the largest marginals of all prompts, and a falling m makes these a prefix of each prompt.

    1. For a level c, the rollouts with marginal >= 1/c^2 are n(c) = floor(1/2 + sqrt(c^2 v + 1/4)) per prompt. A search
       brackets the budget, sum n(c_below) <= budget <= sum n(c_above), to at most N rollouts in between.
    2. Rounding can misplace in n(c) only rollouts whose marginal is within a few units in the last place of 1/c^2, and
       consecutive marginals of a prompt differ by a factor above 1 + 2^-30. So all rollouts up to n(c_below) - 1 belong
       to the optimum, and none beyond n(c_above) + 1.
    3. Of the at most 3N rollouts in between, the largest marginals are taken. They are compared as one number each,
       v / (n (n + 1)) rounded to float64, which keeps the order: nothing is decided by the rounding of a sum.
    """
    num = variances.size
    v = np.ldexp(variances, max(1022 - np.frexp(variances.max())[1], 0))  # up here, marginals do not underflow
    sigma = np.sqrt(v)
    high = np.minimum(high, low + (budget - int(low.sum())))
    floor, ceiling = low.astype(np.float64), high.astype(np.float64)
    below, above = floor, ceiling
    c_below, c_above = (floor / sigma).min() / 2, (ceiling / sigma).max() * 2
    c, trial = budget / sigma.sum(), 0
    with np.errstate(over="ignore"):  # a count beyond float64 is clipped to `high`
        while above.sum() - below.sum() > num:
            trial += 1
            if trial % 4 == 0 or not c_below < c < c_above:  # bisect when Newton's step is outside, or slow
                c = np.sqrt(c_below) * np.sqrt(c_above)
            counts = np.clip(np.floor(0.5 + np.sqrt((c * sigma) ** 2 + 0.25)), floor, ceiling)
            total = counts.sum()
            if total <= budget:
                below, c_below = counts, c
            if total >= budget:
                above, c_above = counts, c
            aim = budget + np.sign(budget - total) * num / 4  # a little beyond the budget, to close the bracket
            free = counts[(floor < counts) & (counts < ceiling)].sum()
            c *= 1 + (aim - total) / max(free, 1.0)
    start = np.maximum(below - 1, floor).astype(np.int64)
    room = np.minimum(above + 1, ceiling).astype(np.int64) - start
    prompt = np.repeat(np.arange(num), room)
    n = (np.arange(prompt.size) - np.repeat(np.cumsum(room) - room - start, room)).astype(np.float64)
    chosen = first_largest(v[prompt] / (n * (n + 1)), budget - int(start.sum()))
    return start + np.bincount(prompt[chosen], minlength=num)
