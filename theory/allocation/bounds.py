"""Shared by all divisions of a budget: limits, the check of the bounds, and how ties are broken.

After the checks bounds are int64 [N] with 0 <= low <= high < 2**31, so every sum of counts is exact in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.base import require
from theory.base.arrays import BoolArray, FloatArray, IntArray

MAX_BUDGET = require.MAX_COUNT
"""Largest budget and lower bound."""

IntBound = int | IntArray


def checked_bounds(num: int, low: Any, high: Any) -> tuple[IntArray, IntArray]:
    """Require integer bounds with 0 <= low <= high; return them as int64 [num], `high` cut to MAX_BUDGET."""
    arrays = []
    for name, value, maximum in (("low", low, MAX_BUDGET), ("high", high, None)):
        x = require.integers(name, value, maximum=maximum)
        if x.shape not in ((), (num,)):
            raise ValueError(f"{name}: expected a scalar or shape ({num},), got shape {x.shape}")
        arrays.append(np.broadcast_to(np.minimum(x, MAX_BUDGET), (num,)))
    floor, ceiling = arrays
    require.at_most(low=floor, high=ceiling)
    return floor, ceiling


def require_feasible(budget: int, low: IntArray, high: IntArray) -> None:
    """Require sum(low) <= budget <= sum(high)."""
    if not int(low.sum()) <= budget <= int(high.sum()):
        raise ValueError(f"budget: expected sum(low) = {low.sum()} to sum(high) = {high.sum()}, got {budget}")


def first_largest(keys: FloatArray | IntArray, num: int) -> BoolArray:
    """Mark the `num` largest keys; of equal keys the earlier."""
    if num == 0:
        return np.zeros(keys.size, dtype=np.bool_)
    threshold = np.partition(keys, keys.size - num)[keys.size - num]
    chosen: BoolArray = keys > threshold
    tied = np.flatnonzero(keys == threshold)
    chosen[tied[: num - int(np.count_nonzero(chosen))]] = True
    return chosen
