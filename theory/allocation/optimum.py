"""Exact integer optima of a budget under bounds: of the variance (5), of concave gains, of any gains (Appendix C).

N prompts share `budget` rollouts; prompt i gets n_i of them, low_i <= n_i <= high_i, sum n_i = budget. With sigma_i^2
the variance of one rollout's gradient, the object is the variance of the batch, sum sigma_i^2 / n_i.

`low` and `high` are integers or integer arrays [N] with 0 <= low <= high, and `budget` lies between their sums. Budgets
and lower bounds are below 2**31; a larger `high` is no bound. Counts are int64 [N]. Of several optimal allocations the
lexicographically largest is returned: ties go to the lower index.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.allocation.bounds import MAX_BUDGET, IntBound, checked_bounds, first_largest, require_feasible
from theory.base import require
from theory.base.arrays import BoolArray, FloatArray, IntArray

_BLOCK = 2**18
"""Totals that `optimal_any` compares at a time; they fit into a processor's cache."""


def optimal(variances: Any, budget: int, low: IntBound, high: IntBound) -> IntArray:
    """Exact integer minimiser of the total variance under bounds and budget; the integer form of (5).

    argmin of sum_i v_i / n_i over integers low_i <= n_i <= high_i with sum n_i = budget.

    Parameters
    ----------
    variances : v, [N], >= 0.
    budget, low, high : As in the module's docstring. With 0/0 = 0 and v/0 infinite, a lower bound of 0 acts as 1 where
        v > 0.

    Returns
    -------
    IntArray : Exact for marginals v / (n (n + 1)) rounded once to float64; marginals equal in float64 tie. Prompts with
        v = 0 stay at `low` until all others are at `high`, and then fill in index order.

    Raises
    ------
    ValueError
        If no allocation meets the bounds and the budget with a finite variance.

    Examples
    --------
    >>> optimal([1.0, 4.0, 25.0], 16, 1, 16).tolist()
    [2, 4, 10]
    >>> optimal([1.0, 4.0, 25.0], 16, 3, 8).tolist()
    [3, 5, 8]
    """
    v, budget = require.vector("variances", variances, low=0.0), require.count("budget", budget, 0, MAX_BUDGET)
    floor, ceiling = checked_bounds(v.size, low, high)
    varied = v > 0
    if (ceiling[varied] == 0).any():
        index = int(np.argmax(varied & (ceiling == 0)))
        raise ValueError(f"high: expected at least 1 where the variance is positive, got 0 at index {index}")
    floor = np.maximum(floor, varied)
    require_feasible(budget, floor, ceiling)
    counts = floor.copy()
    if (rest := budget - int(floor[~varied].sum() + ceiling[varied].sum())) >= 0:
        counts[varied] = ceiling[varied]
        room = np.where(varied, 0, ceiling - floor)
        counts += np.clip(rest - (np.cumsum(room) - room), 0, room)
        return counts
    counts[varied] = _integer_optimum(v[varied], budget - int(floor[~varied].sum()), floor[varied], ceiling[varied])
    return counts


def _integer_optimum(variances: FloatArray, budget: int, low: IntArray, high: IntArray) -> IntArray:
    """Return the integer minimiser of sum v/n under the bounds, with v > 0 and low >= 1; ties to the lower index.

    The rollout that follows n lowers the variance by the marginal m(n) = v / (n (n + 1)), which falls with n. Moving a
    rollout to a larger marginal lowers the total. So an allocation is optimal exactly if it takes the largest marginals
    of all prompts, and a falling m makes these a prefix of each prompt.

    1. For a level c, the rollouts with marginal >= 1/c^2 are n(c) = floor(1/2 + sqrt(c^2 v + 1/4)) per prompt. A search
       brackets the budget, sum n(c_below) <= budget <= sum n(c_above), to at most N rollouts in between.
    2. Rounding can misplace in n(c) only rollouts whose marginal is within a few units in the last place of 1/c^2, and
       consecutive marginals of a prompt differ by a factor above 1 + 2^-30. So all rollouts up to n(c_below) - 1 belong
       to the optimum, and none beyond n(c_above) + 1.
    3. Of the at most 3N rollouts in between, the largest marginals are taken. Each is one number, v / (n (n + 1))
       rounded to float64, which keeps the order: the rounding of a sum decides nothing.
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


def optimal_concave(gains: FloatArray, budget: int, low: IntBound, high: IntBound) -> IntArray:
    """Exact integer maximiser of a sum of concave gains under bounds and budget.

    argmax of sum_i gains[i, n_i] over integers low_i <= n_i <= high_i with sum n_i = budget. For concave rows the
    largest marginals gains[i, n + 1] - gains[i, n] of all prompts form the optimum, by exchange.

    Parameters
    ----------
    gains : [N, M + 1]; column n holds the gain of n rollouts. Entries outside [low, high] are not read. `optimal` is
        the case gains = -v/n.
    budget, low, high : As in the module's docstring, and high <= M.

    Returns
    -------
    IntArray : Counts; marginals equal in float64 tie.

    Raises
    ------
    ValueError
        If a row is not concave on [low, high]: a marginal may exceed the one before it only by rounding, 8 units of
        float64 epsilon times the row's largest |gain|.

    Examples
    --------
    >>> n = np.arange(5)
    >>> optimal_concave(np.stack([1 - 0.5**n, 1 - 0.9**n]), 5, 0, 4).tolist()
    [3, 2]
    """
    table, inside, floor, budget = _gain_table(gains, budget, low, high)
    step = inside[:, 1:] & inside[:, :-1]
    marginals = np.where(step, np.diff(table, axis=1), np.inf)
    so_far = np.minimum.accumulate(marginals, axis=1)
    tolerance = 8 * np.finfo(np.float64).eps * np.abs(table).max(axis=1, keepdims=True)
    rising = step & (marginals > so_far + tolerance)
    if rising.any():
        row, n = (int(x) for x in np.argwhere(rising)[0])
        raise ValueError(f"gains: expected concave rows within [low, high], got a rising marginal in row {row} at {n}")
    chosen = first_largest(so_far[step], budget - int(floor.sum()))
    return floor + np.bincount(np.nonzero(step)[0][chosen], minlength=floor.size)


def optimal_any(gains: FloatArray, budget: int, low: IntBound, high: IntBound) -> IntArray:
    """Exact integer maximiser of a sum of arbitrary gains under bounds and budget, by dynamic programming.

    argmax of sum_i gains[i, n_i] over integers low_i <= n_i <= high_i with sum n_i = budget, through
    V_i(b) = max_n gains[i, n] + V_{i+1}(b - n). With B = budget - sum(low), it takes time O(N B (high - low + 1)) and
    memory O(N B). It serves small cases, and gains that are not concave, such as Knapsack RL's (arXiv 2509.25849).
    Arguments as in `optimal_concave`.

    Returns
    -------
    IntArray : Counts. Gains are exact to 2N units of float64 epsilon times the largest |gain|; totals that are then
        equal tie.

    Examples
    --------
    >>> optimal_any(np.array([[0.0, 0.0, 0.0, 9.0], [0.0, 4.0, 5.0, 6.0]]), 4, 0, 3).tolist()
    [3, 1]
    """
    table, inside, floor, budget = _gain_table(gains, budget, low, high)
    # As many bits as leave every sum of N gains exact: equal totals are equal in whatever order they are summed.
    grid = 2.0 ** (52 - floor.size.bit_length())
    table = np.rint(table * grid) / grid
    room = inside.sum(axis=1) - 1
    left = budget - int(floor.sum())
    # Prompt i and those after it share, beyond low, no more than they have room for and no less than the others leave.
    most = np.minimum(np.cumsum(room[::-1])[::-1], left)
    least = np.maximum(left - np.cumsum(room) + room, 0)
    best = np.where(np.arange(left + 1) == 0, 0.0, -np.inf)
    rows, rests = list[FloatArray](), list[FloatArray]()
    for i in reversed(range(floor.size)):
        # Row j, column b: the share is b, of which prompt i takes room - j.
        rest = np.concatenate([np.full(room[i], -np.inf), best])
        rows.append(table[i, floor[i] : floor[i] + room[i] + 1][::-1])
        rests.append(np.lib.stride_tricks.sliding_window_view(rest, left + 1))
        best = np.full(left + 1, -np.inf)
        for start in range(least[i], most[i] + 1, size := max(1, _BLOCK // (room[i] + 1))):
            block = slice(start, min(start + size, most[i] + 1))
            best[block] = (rests[-1][:, block] + rows[-1][:, None]).max(axis=0)
    counts = floor.copy()
    for i, (gain, rest) in enumerate(zip(reversed(rows), reversed(rests), strict=True)):
        taken = room[i] - int(np.argmax(rest[:, left] + gain))  # The first maximum is the largest count.
        counts[i] += taken
        left -= taken
    return counts


def _gain_table(gains: Any, budget: int, low: Any, high: Any) -> tuple[FloatArray, BoolArray, IntArray, int]:
    """Return the table scaled to |gain| < 1 and 0 outside the bounds, the mask of entries inside, low and budget."""
    if not isinstance(gains, np.ndarray) or gains.dtype.kind not in "iuf" or gains.ndim != 2 or 0 in gains.shape:
        got = f"{gains.dtype} of shape {gains.shape}" if isinstance(gains, np.ndarray) else type(gains).__name__
        raise ValueError(f"gains: expected a numeric array [N, M + 1] with N >= 1, got {got}")
    floor, ceiling = checked_bounds(gains.shape[0], low, high)
    if (ceiling >= gains.shape[1]).any():
        raise ValueError(f"high: expected at most {gains.shape[1] - 1}, the last column of gains, got {ceiling.max()}")
    budget = require.count("budget", budget, 0, MAX_BUDGET)
    require_feasible(budget, floor, ceiling)
    columns = np.arange(gains.shape[1])
    inside = (floor[:, None] <= columns) & (columns <= ceiling[:, None])
    table = np.where(inside, gains, 0).astype(np.float64)
    if not np.isfinite(table).all():
        row = int(np.argmax(~np.isfinite(table).all(axis=1)))
        raise ValueError(f"gains: expected finite values within [low, high], got NaN or infinity in row {row}")
    return np.ldexp(table, -np.frexp(np.abs(table).max())[1]), inside, floor, budget
