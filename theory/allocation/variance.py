"""The variance of an allocation, and its estimate from a group: P (6), sum sigma^2/n, and ratios to uniform."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.allocation.bounds import MAX_BUDGET
from theory.base import require
from theory.base.arrays import FloatArray


def bernoulli_variance(successes: Any, attempts: Any) -> FloatArray:
    """Unbiased estimate of p(1 - p) from k successes in G attempts (6, 43).

    P = k (G - k) / (G (G - 1)).

    Parameters
    ----------
    successes, attempts : k and G, [N], 0 <= k <= G, G >= 2, below which P would grow without bound. They are real where
        a discounted history gives effective counts; the estimate is unbiased for integer counts of independent
        attempts.

    Returns
    -------
    FloatArray : P, [N], in [0, 1/2]; 0 where all attempts agree.

    Examples
    --------
    >>> bernoulli_variance([0, 1, 4], [8, 2, 8]).round(4).tolist()
    [0.0, 0.5, 0.2857]
    """
    k, g = require.vector("successes", successes, low=0.0), require.vector("attempts", attempts, low=2.0)
    require.same_shape(successes=k, attempts=g)
    require.at_most(successes=k, attempts=g)
    return k / g * ((g - k) / (g - 1))


def total_variance(variances: Any, counts: Any) -> float:
    """Variance of the batch, the objective of Appendix C.

    sum_i v_i / n_i.

    Parameters
    ----------
    variances, counts : v >= 0, the variance of one rollout, and n, the rollouts, each [N]. 0 <= n < 2**31, and n = 0
        only where v = 0: 0/0 = 0. n is real for the shares of `proportional`.

    Returns
    -------
    float : The sum, >= 0; it must be within float64.

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
    divide B. Arguments as in `total_variance`.

    Returns
    -------
    float : The ratio, below 1 where the allocation beats uniform; 1 if all variances are 0.

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
    Arguments as in `proportional`.

    Returns
    -------
    float : The ratio, in [1/N, 1]; 1 if all sigmas are 0.

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


def _variances_and_counts(variances: Any, counts: Any) -> tuple[FloatArray, FloatArray]:
    """Require v >= 0 and 0 <= n < 2**31 of one shape, n > 0 where v > 0."""
    v = require.vector("variances", variances, low=0.0)
    n = require.vector("counts", counts, low=0.0, high=MAX_BUDGET)
    require.same_shape(variances=v, counts=n)
    if ((n == 0) & (v > 0)).any():
        index = int(np.argmax((n == 0) & (v > 0)))
        raise ValueError(f"counts: expected positive counts where the variance is positive, got 0 at index {index}")
    return v, n
