"""Shares of a budget in proportion to weights: over the reals, and at the water level of bounds (Alg. 1, App. D)."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.allocation.bounds import MAX_BUDGET, IntBound, checked_bounds, first_largest
from theory.base import require
from theory.base.arrays import FloatArray, IntArray

NEGLIGIBLE_WEIGHT = 1e-8
"""If all weights are below this one, the allocation is uniform (Alg. 1)."""


def proportional(sigmas: Any, budget: int) -> FloatArray:
    """Real-valued minimiser of sum sigma^2 / n under sum n = budget, without bounds (5, 36).

    n_i = budget * sigma_i / sum_j sigma_j.

    Parameters
    ----------
    sigmas, budget : Standard deviations of one rollout, [N], >= 0, and the number of rollouts, from 0 to 2**31 - 1.

    Returns
    -------
    FloatArray : Shares, [N]; 0 where sigma is 0, and equal if all sigmas are 0.

    Examples
    --------
    >>> proportional([1.0, 3.0, 0.0], 8).tolist()
    [2.0, 6.0, 0.0]
    """
    s, budget = require.vector("sigmas", sigmas, low=0.0), require.count("budget", budget, 0, MAX_BUDGET)
    if not s.any():
        return np.full(s.size, budget / s.size)
    s = s / s.max()
    shares: FloatArray = budget * s / s.sum()
    return shares


def water_level(weights: Any, budget: int, low: IntBound, high: IntBound) -> IntArray:
    """Integer shares proportional to the weights, within bounds, that spend the budget exactly (Alg. 1, App. D).

    x_i = clip(c w_i, low_i, high_i) with the level c such that sum x_i = budget, then integers by largest remainder.

    Parameters
    ----------
    weights : w, [N], >= 0; P in the paper, sigma for the optimum of (5). Only ratios matter, except for
        `NEGLIGIBLE_WEIGHT`.
    budget, low, high : Number of rollouts, at most sum(high), and bounds, integers or integer arrays [N], 0 <= low <=
        high; budget and low are below 2**31, and a larger high is no bound.

    Returns
    -------
    IntArray : Counts, [N], int64.

        - Ties of remainders go to the lower index; remainders are compared to 2**-30, so rounding decides no tie.
        - sum(low) > budget: the lower bounds shrink in proportion. The counts are budget * low / sum(low), rounded
          likewise, whatever the weights.
        - All weights below `NEGLIGIBLE_WEIGHT`: as for equal weights.
        - Zero weights among others stay at `low` until all others are at `high`; then they share the rest as for equal
          weights. A weight below 2**-2000 of the largest counts as zero.
        - More budget never lowers x, but may cost a prompt one rollout: the Alabama paradox of largest remainders.

    Examples
    --------
    >>> water_level([1.0, 2.0, 5.0], 16, 1, 16).tolist()
    [2, 4, 10]
    >>> water_level([1.0, 2.0, 5.0], 16, 3, 8).tolist()
    [3, 5, 8]
    >>> water_level([0.0, 0.0, 0.0], 16, 2, 24).tolist()
    [6, 5, 5]
    """
    w, budget = require.vector("weights", weights, low=0.0), require.count("budget", budget, 0, MAX_BUDGET)
    floor, ceiling = checked_bounds(w.size, low, high)
    if ceiling.sum() < budget:
        raise ValueError(f"budget: expected at most sum(high) = {ceiling.sum()}, got {budget}")
    if (total := int(floor.sum())) > budget:
        quotient, remainder = np.divmod(floor * budget, total)
        return _add_rest(quotient, remainder, budget)
    if w.max() < NEGLIGIBLE_WEIGHT:
        w = np.ones_like(w)
    w = np.ldexp(w, 1015 - np.frexp(w.max())[1])  # the top of the range of float64: small weights keep their digits
    positive = w > 2.0**-985
    if ceiling[positive].sum() + floor[~positive].sum() < budget:  # the zero weights share what is left
        filled, part, w = np.where(positive, ceiling, 0), ~positive, np.ones_like(w)
    else:
        filled, part = np.where(positive, 0, floor), positive
    level = _level(w[part], budget - int(filled.sum()), floor[part], ceiling[part])
    filled = filled.astype(np.float64)
    filled[part] = level
    counts = np.floor(filled).astype(np.int64)
    return _add_rest(counts, np.rint((filled - counts) * 2**30).astype(np.int64), budget)


def _add_rest(counts: IntArray, remainders: IntArray, budget: int) -> IntArray:
    """Give one more rollout to the largest remainders until the budget is spent."""
    return counts + first_largest(remainders, budget - int(counts.sum()))


def _level(weights: FloatArray, budget: int, low: IntArray, high: IntArray) -> FloatArray:
    """Return clip(c w, low, high) with sum = budget; every weight is positive, at most 2**1016, at least 2**-985.

    The sum grows with c, linearly between the 2N breakpoints low/w and high/w. Bisection over the sorted breakpoints
    finds the segment of c, where c solves one linear equation. The sum is computed anew each time: running sums over
    the sorted weights would cancel when these differ by many orders of magnitude.
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
