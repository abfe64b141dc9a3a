"""How to divide a budget of rollouts among prompts: proxies, the water level, exact integer optima (Appendix C, D).

N prompts share `budget` rollouts; prompt i gets n_i of them, low_i <= n_i <= high_i, sum n_i = budget. With sigma_i^2
the variance of one rollout's gradient, the object is the variance of the batch, sum sigma_i^2 / n_i.

Conventions of all functions: `low` and `high` are integers or integer arrays [N]; budgets and lower bounds are below
2**31, and a larger `high` is no bound; counts come as int64 [N]. Of several optimal allocations the lexicographically
largest is returned: ties go to the lower index. The algorithms are in `theory.allocation.solvers`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.allocation import solvers
from theory.base import require
from theory.base.arrays import BoolArray, FloatArray, IntArray

MAX_BUDGET = 2**31 - 1
"""Largest budget and lower bound: all sums of counts stay exact in int64 and float64."""

NEGLIGIBLE_WEIGHT = 1e-8
"""Weights that are all below this one mean a uniform allocation (Alg. 1)."""

_BLOCK = 2**18
"""Totals that `optimal_any` compares at a time: as many as fit into a processor's cache."""

IntBound = int | IntArray


def _budget(budget: int) -> int:
    if require.count("budget", budget) > MAX_BUDGET:
        raise ValueError(f"budget: expected an integer in [0, {MAX_BUDGET}], got {budget}")
    return int(budget)


def _bounds(num: int, low: Any, high: Any) -> tuple[IntArray, IntArray]:
    """Require integer bounds with 0 <= low <= high; return them as int64 [num], `high` at most MAX_BUDGET."""
    arrays = []
    for name, value in (("low", low), ("high", high)):
        try:
            x = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected integers, got {type(value).__name__}") from error
        if x.dtype.kind not in "iu":
            raise ValueError(f"{name}: expected integers, got dtype {x.dtype}")
        if x.shape not in ((), (num,)):
            raise ValueError(f"{name}: expected a scalar or shape ({num},), got shape {x.shape}")
        if name == "low" and (x.min() < 0 or x.max() > MAX_BUDGET):
            raise ValueError(f"low: expected integers in [0, {MAX_BUDGET}], got {x.min()} to {x.max()}")
        arrays.append(np.broadcast_to(np.minimum(x, MAX_BUDGET).astype(np.int64), (num,)))
    floor, ceiling = arrays
    if (floor > ceiling).any():
        at = int(np.argmax(floor > ceiling))
        raise ValueError(f"low: expected at most high, got low {floor[at]} > high {ceiling[at]} at index {at}")
    return floor, ceiling


def _require_feasible(budget: int, low: IntArray, high: IntArray) -> None:
    """Require sum(low) <= budget <= sum(high)."""
    if not int(low.sum()) <= budget <= int(high.sum()):
        raise ValueError(f"budget: expected sum(low) = {low.sum()} to sum(high) = {high.sum()}, got {budget}")


def bernoulli_variance(successes: Any, attempts: Any) -> FloatArray:
    """Unbiased estimate of p(1 - p) from k successes in G attempts (6, 43).

    P = k (G - k) / (G (G - 1)).

    Parameters
    ----------
    successes
        k, [N], 0 <= k <= G; real where a discounted history gives effective counts.
    attempts
        G, [N], at least 2; real likewise. The estimate is unbiased for integer counts of independent attempts.

    Returns
    -------
    FloatArray
        P, [N], in [0, 1/2]; 0 where all attempts agree. Below G = 2 it would grow without bound, hence the limit.

    Raises
    ------
    ValueError
        If the counts are not finite, differ in shape, or are out of range.

    Examples
    --------
    >>> bernoulli_variance([0, 1, 4], [8, 2, 8]).round(4).tolist()
    [0.0, 0.5, 0.2857]
    """
    k, g = require.vector("successes", successes, low=0.0), require.vector("attempts", attempts, low=2.0)
    require.same_shape(successes=k, attempts=g)
    if (k > g).any():
        at = int(np.argmax(k > g))
        raise ValueError(f"successes: expected at most attempts, got {k[at]} > {g[at]} at index {at}")
    return k / g * ((g - k) / (g - 1))


def proportional(sigmas: Any, budget: int) -> FloatArray:
    """Real-valued minimiser of sum sigma^2 / n under sum n = budget, without bounds (5, 36).

    n_i = budget * sigma_i / sum_j sigma_j.

    Parameters
    ----------
    sigmas
        Standard deviations of one rollout, [N], >= 0.
    budget
        Number of rollouts, 0 to 2**31 - 1.

    Returns
    -------
    FloatArray
        Shares, [N]; 0 where sigma is 0, equal where all are.

    Raises
    ------
    ValueError
        If `sigmas` is not a vector of finite numbers >= 0, or `budget` is no such integer.

    Examples
    --------
    >>> proportional([1.0, 3.0, 0.0], 8).tolist()
    [2.0, 6.0, 0.0]
    """
    s, budget = require.vector("sigmas", sigmas, low=0.0), _budget(budget)
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
    weights
        w, [N], >= 0; P in the paper, sigma for the optimum of (5). Only ratios matter, except for `NEGLIGIBLE_WEIGHT`.
    budget
        Number of rollouts, 0 to 2**31 - 1.
    low, high
        Bounds, integers or [N], 0 <= low <= high.

    Returns
    -------
    IntArray
        Counts, [N], int64.

        - Ties of remainders go to the lower index; remainders are compared to 2**-30, so rounding decides no tie.
        - sum(low) > budget: the lower bounds shrink in proportion, so the counts are budget * low / sum(low), rounded
          likewise, whatever the weights.
        - All weights below 1e-8: as for equal weights.
        - Zero weights among others stay at `low` until all others are at `high`; then they share the rest as for equal
          weights. A weight below 2**-2000 of the largest counts as zero.
        - More budget never lowers x, but may cost a prompt one rollout: the Alabama paradox of largest remainders.

    Raises
    ------
    ValueError
        If sum(high) < budget, or an argument is out of range.

    Examples
    --------
    >>> water_level([1.0, 2.0, 5.0], 16, 1, 16).tolist()
    [2, 4, 10]
    >>> water_level([1.0, 2.0, 5.0], 16, 3, 8).tolist()
    [3, 5, 8]
    >>> water_level([0.0, 0.0, 0.0], 16, 2, 24).tolist()
    [6, 5, 5]
    """
    w, budget = require.vector("weights", weights, low=0.0), _budget(budget)
    floor, ceiling = _bounds(w.size, low, high)
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
    level = solvers.water_level(w[part], budget - int(filled.sum()), floor[part], ceiling[part])
    filled = filled.astype(np.float64)
    filled[part] = level
    counts = np.floor(filled).astype(np.int64)
    return _add_rest(counts, np.rint((filled - counts) * 2**30).astype(np.int64), budget)


def _add_rest(counts: IntArray, remainders: IntArray, budget: int) -> IntArray:
    """Give one more rollout to the largest remainders until the budget is spent."""
    return counts + solvers.first_largest(remainders, budget - int(counts.sum()))


def optimal(variances: Any, budget: int, low: IntBound, high: IntBound) -> IntArray:
    """Exact integer minimiser of the total variance under bounds and budget; the integer form of (5).

    argmin of sum_i v_i / n_i over integers low_i <= n_i <= high_i with sum n_i = budget.

    Parameters
    ----------
    variances
        v, [N], >= 0.
    budget
        Number of rollouts, sum(low) to sum(high).
    low, high
        Bounds, integers or [N], 0 <= low <= high. With 0/0 = 0 and v/0 infinite, a lower bound of 0 acts as 1 where
        v > 0.

    Returns
    -------
    IntArray
        Counts, [N], int64. Exact for marginals v / (n (n + 1)) rounded once to float64; marginals equal in float64 tie,
        and ties go to the lower index. Prompts with v = 0 stay at `low` until all others are at `high`, and then fill
        in index order.

    Raises
    ------
    ValueError
        If no allocation meets the bounds and the budget with a finite variance, or an argument is out of range.

    Examples
    --------
    >>> optimal([1.0, 4.0, 25.0], 16, 1, 16).tolist()
    [2, 4, 10]
    >>> optimal([1.0, 4.0, 25.0], 16, 3, 8).tolist()
    [3, 5, 8]
    """
    v, budget = require.vector("variances", variances, low=0.0), _budget(budget)
    floor, ceiling = _bounds(v.size, low, high)
    varied = v > 0
    if (ceiling[varied] == 0).any():
        at = int(np.argmax(varied & (ceiling == 0)))
        raise ValueError(f"high: expected at least 1 where the variance is positive, got 0 at index {at}")
    floor = np.maximum(floor, varied)
    _require_feasible(budget, floor, ceiling)
    counts = floor.copy()
    if (rest := budget - int(floor[~varied].sum() + ceiling[varied].sum())) >= 0:
        counts[varied] = ceiling[varied]
        room = np.where(varied, 0, ceiling - floor)
        counts += np.clip(rest - (np.cumsum(room) - room), 0, room)
        return counts
    counts[varied] = solvers.integer_optimum(
        v[varied], budget - int(floor[~varied].sum()), floor[varied], ceiling[varied]
    )
    return counts


def _gain_table(gains: Any, budget: int, low: Any, high: Any) -> tuple[FloatArray, BoolArray, IntArray, int]:
    """Return the table scaled to |gain| < 1 and 0 outside the bounds, the mask of entries inside, low and budget."""
    if not isinstance(gains, np.ndarray) or gains.dtype.kind not in "iuf" or gains.ndim != 2 or 0 in gains.shape:
        got = f"{gains.dtype} of shape {gains.shape}" if isinstance(gains, np.ndarray) else type(gains).__name__
        raise ValueError(f"gains: expected a numeric array [N, M + 1] with N >= 1, got {got}")
    floor, ceiling = _bounds(gains.shape[0], low, high)
    if (ceiling >= gains.shape[1]).any():
        raise ValueError(f"high: expected at most {gains.shape[1] - 1}, the last column of gains, got {ceiling.max()}")
    budget = _budget(budget)
    _require_feasible(budget, floor, ceiling)
    columns = np.arange(gains.shape[1])
    inside = (floor[:, None] <= columns) & (columns <= ceiling[:, None])
    table = np.where(inside, gains, 0).astype(np.float64)
    if not np.isfinite(table).all():
        row = int(np.argmax(~np.isfinite(table).all(axis=1)))
        raise ValueError(f"gains: expected finite values within [low, high], got NaN or infinity in row {row}")
    return np.ldexp(table, -np.frexp(np.abs(table).max())[1]), inside, floor, budget


def optimal_concave(gains: FloatArray, budget: int, low: IntBound, high: IntBound) -> IntArray:
    """Exact integer maximiser of a sum of concave gains under bounds and budget.

    argmax of sum_i gains[i, n_i] over integers low_i <= n_i <= high_i with sum n_i = budget. For concave rows the
    largest marginals gains[i, n + 1] - gains[i, n] of all prompts form the optimum, by exchange.

    Parameters
    ----------
    gains
        [N, M + 1]; column n holds the gain of n rollouts. Entries outside [low, high] are not read. `optimal` is the
        case gains = -v/n.
    budget
        Number of rollouts, sum(low) to sum(high).
    low, high
        Bounds, integers or [N], 0 <= low <= high <= M.

    Returns
    -------
    IntArray
        Counts, [N], int64. Marginals equal in float64 tie; ties go to the lower index.

    Raises
    ------
    ValueError
        If a row is not concave on [low, high]: a marginal may exceed the one before it only by rounding, 8 units of
        float64 epsilon times the row's largest |gain|. If the bounds are infeasible, or an argument is out of range.

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
    chosen = solvers.first_largest(so_far[step], budget - int(floor.sum()))
    return floor + np.bincount(np.nonzero(step)[0][chosen], minlength=floor.size)


def optimal_any(gains: FloatArray, budget: int, low: IntBound, high: IntBound) -> IntArray:
    """Exact integer maximiser of a sum of arbitrary gains under bounds and budget, by dynamic programming.

    argmax of sum_i gains[i, n_i] over integers low_i <= n_i <= high_i with sum n_i = budget, through
    V_i(b) = max_n gains[i, n] + V_{i+1}(b - n). With B = budget - sum(low), time O(N B (high - low + 1)) and memory
    O(N B): for small cases, and for gains that are not concave, such as Knapsack RL's (arXiv 2509.25849).

    Parameters
    ----------
    gains
        [N, M + 1]; column n holds the gain of n rollouts. Entries outside [low, high] are not read.
    budget
        Number of rollouts, sum(low) to sum(high).
    low, high
        Bounds, integers or [N], 0 <= low <= high <= M.

    Returns
    -------
    IntArray
        Counts, [N], int64. Gains count to within 2N units of float64 epsilon times the largest |gain|; totals that are
        equal then tie, and ties go to the lower index.

    Raises
    ------
    ValueError
        If the bounds are infeasible, or an argument is out of range.

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


def _variances_and_counts(variances: Any, counts: Any) -> tuple[FloatArray, FloatArray]:
    """Require v >= 0 and 0 <= n < 2**31 of one shape, n > 0 where v > 0; return them."""
    v = require.vector("variances", variances, low=0.0)
    n = require.vector("counts", counts, low=0.0, high=MAX_BUDGET)
    require.same_shape(variances=v, counts=n)
    if ((n == 0) & (v > 0)).any():
        at = int(np.argmax((n == 0) & (v > 0)))
        raise ValueError(f"counts: expected positive counts where the variance is positive, got 0 at index {at}")
    return v, n


def total_variance(variances: Any, counts: Any) -> float:
    """Variance of the batch, the objective of Appendix C.

    sum_i v_i / n_i.

    Parameters
    ----------
    variances
        v, variance of one rollout, [N], >= 0.
    counts
        n, rollouts, [N], 0 <= n < 2**31; real for the shares of `proportional`. 0/0 = 0.

    Returns
    -------
    float
        The sum, >= 0.

    Raises
    ------
    ValueError
        If a count is 0 where the variance is positive, the sum is beyond float64, or an argument is out of range.

    Examples
    --------
    >>> total_variance([1.0, 4.0, 0.0], [2, 4, 0])
    1.5
    """
    v, n = _variances_and_counts(variances, counts)
    varied = v > 0
    with np.errstate(over="ignore"):
        total = float((v[varied] / n[varied]).sum())
    if not np.isfinite(total):
        raise ValueError("variances: expected a sum of v/n within float64, got an overflow")
    return total


def variance_ratio(variances: Any, counts: Any) -> float:
    """Variance of an allocation over that of a uniform one with the same budget.

    sum_i v_i / n_i over sum_i v_i / (B/N), with B = sum n; uniform means the real share B/N each, also where N does not
    divide B.

    Parameters
    ----------
    variances
        v, variance of one rollout, [N], >= 0.
    counts
        n, rollouts, [N], 0 <= n < 2**31; real for the shares of `proportional`. 0/0 = 0.

    Returns
    -------
    float
        The ratio, below 1 where the allocation beats uniform; 1 if all variances are 0.

    Raises
    ------
    ValueError
        If a count is 0 where the variance is positive, the ratio is beyond float64, or an argument is out of range.

    Examples
    --------
    >>> round(variance_ratio([1.0, 9.0], [2, 6]), 4)
    0.8
    """
    v, n = _variances_and_counts(variances, counts)
    if not v.any():
        return 1.0
    v, n = v / v.max(), n / n.max()
    return total_variance(v, n) * float(n.mean() / v.sum())


def optimal_variance_ratio(sigmas: Any) -> float:
    """Variance of the optimal allocation (5) over uniform's, without bounds (44).

    (sum sigma)^2 / (N sum sigma^2) = 1 / (1 + CV^2), CV the coefficient of variation of sigma over the prompts.

    Parameters
    ----------
    sigmas
        Standard deviations of one rollout, [N], >= 0.

    Returns
    -------
    float
        The ratio, in [1/N, 1]; 1 if all sigmas are 0.

    Raises
    ------
    ValueError
        If `sigmas` is not a vector of finite numbers >= 0.

    Examples
    --------
    >>> round(optimal_variance_ratio([1.0, 3.0]), 4)
    0.8
    """
    s = require.vector("sigmas", sigmas, low=0.0)
    if not s.any():
        return 1.0
    s = s / s.max()
    return float(s.sum() ** 2 / (s.size * (s**2).sum()))
