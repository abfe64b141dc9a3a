"""Estimates for group sizes that a log did not run, from its own groups: bounds on noise, weights, and their shift.

Of a group with k correct of n rollouts, what would m rollouts have done? p is the success rate of the group's prompt
under the policy of the group's step, q = 1 - p. See `theory.allocation.log_replay` for why the group may judge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.allocation.variance import bernoulli_variance
from theory.base import require
from theory.base.arrays import FloatArray, distinct
from theory.estimators import implied_weight
from theory.statistics import pass_at_k

NOISE_ESTIMATORS = ("exact-baseline", "rloo", "grpo")
"""Advantages whose noise `noise_bounds` knows: (R - p), leave-one-out, and standardised by the group."""


def degenerate_bounds(successes: Any, attempts: Any, sizes: Any) -> tuple[FloatArray, FloatArray]:
    """Unbiased estimates of two bounds on the probability that a group of m rollouts is all right or all wrong.

    p^m + q^m. For m <= n it has an unbiased estimate from k of n, C(k, m) / C(n, m) + C(n-k, m) / C(n, m), and both
    bounds equal it. For m > n it has none. The bounds are then polynomials of degree n, which have one:

        p^n - (m - n) p^(n-1) q  <=  p^m  <=  p^n,   estimated by [k = n] - (m-n)/n [k = n-1]  and  [k = n],

    (Bernoulli's inequality p^(m-n+1) >= 1 - (m-n+1) q, times p^(n-1)), and likewise for q. Ours.

    Parameters
    ----------
    successes, attempts, sizes : k, n and m, integers, [G], 0 <= k <= n, n >= 1, m >= 1.

    Returns
    -------
    tuple of FloatArray : The lower and the upper bound, each [G]. A single estimate may be below 0; its expectation
        bounds a probability.

    Examples
    --------
    >>> [x.round(3).tolist() for x in degenerate_bounds([4, 3, 3, 2], [4, 4, 4, 4], [6, 6, 2, 2])]
    [[1.0, -0.5, 0.5, 0.333], [1.0, 0.0, 0.5, 0.333]]
    """
    k, n = require.groups(successes, attempts, 1)
    m = require.integer_vector("sizes", sizes, minimum=1)
    require.same_shape(attempts=n, sizes=m)
    (k, n, m), where = distinct(k, n, m)
    within = np.minimum(m, n)
    high = 2 - pass_at_k(n, k, within) - pass_at_k(n, n - k, within)
    low = high - np.maximum(m - n, 0) / n * ((k == n - 1).astype(np.float64) + (k == 1))
    return low[where], high[where]


def noise_bounds(successes: Any, attempts: Any, sizes: Any, estimator: str) -> tuple[FloatArray, FloatArray]:
    """Unbiased estimates of two bounds on a group's gradient noise, in units of the squared score norm.

    E[sum_j A_j^2] / m^2: the trace of the covariance of (1/m) sum_j A_j s_j if the scores s_j of all responses have one
    length and those of different rollouts are orthogonal, the limit of many, diffuse answers in
    `theory.estimators.moments`.

        exact-baseline  A = R - p, p q / m           rloo  p q / (m - 1)
        grpo            (1 - p^m - q^m) / m, by `degenerate_bounds`: a degenerate group makes no noise, and no gradient

    p q is estimated by k (n - k) / (n (n - 1)). The two bounds differ only for `grpo` with m > n.

    Parameters
    ----------
    successes, attempts, sizes : As in `degenerate_bounds`, with n >= 2 and m >= 2.
    estimator : One of `NOISE_ESTIMATORS`.

    Returns
    -------
    tuple of FloatArray : The lower and the upper bound, each [G].

    Examples
    --------
    >>> [x.round(3).tolist() for x in noise_bounds([2, 4], [4, 4], [6, 6], "rloo")]
    [[0.067, 0.0], [0.067, 0.0]]
    """
    require.one_of("estimator", estimator, NOISE_ESTIMATORS)
    k, n = require.groups(successes, attempts, 2)
    m = require.integer_vector("sizes", sizes, minimum=2)
    require.same_shape(attempts=n, sizes=m)
    if estimator == "grpo":
        least, most = degenerate_bounds(k, n, m)
        return (1 - most) / m, (1 - least) / m
    noise = bernoulli_variance(k, n) / (m if estimator == "exact-baseline" else m - 1)
    return noise, noise


def squared_change(successes: Any, attempts: Any, later_successes: Any, later_attempts: Any) -> FloatArray:
    """Unbiased estimate of the squared change of a success rate between two groups of a prompt.

    (k/n - k'/n')^2 - P/n - P'/n', with P = k (n-k) / (n (n-1)): the square of the difference, less its noise.

    Parameters
    ----------
    successes, attempts, later_successes, later_attempts : k, n, k', n', integers, [V], 0 <= k <= n, n >= 2.

    Returns
    -------
    FloatArray : [V]; a single estimate may be below 0.

    Examples
    --------
    >>> squared_change([0, 2], [4, 4], [4, 2], [4, 4]).round(3).tolist()
    [1.0, -0.167]
    """
    k, n = require.groups(successes, attempts, 2)
    later, of = require.groups(later_successes, later_attempts, 2)
    require.same_shape(attempts=n, later_attempts=of)
    noise = bernoulli_variance(k, n) / n + bernoulli_variance(later, of) / of
    return np.asarray((k / n - later / of) ** 2 - noise)


def implied_weights(successes: Any, attempts: Any, sizes: Any, estimator: str = "grpo") -> FloatArray:
    """Weight that a group of m rollouts gives to its prompt's own gradient, at a success rate estimated from k of n.

    w(p, m) of `theory.estimators.implied_weight` at the posterior mean p = (k + 1/2) / (n + 1). A plug-in is biased:
    use it for the difference between two sizes, as in `moved_weight`.

    Parameters
    ----------
    successes, attempts, sizes : As in `degenerate_bounds`, with m <= 10000.
    estimator : One of `theory.estimators.ESTIMATORS`.

    Returns
    -------
    FloatArray : w, [G].

    Examples
    --------
    >>> implied_weights([0, 8], [16, 16], [8, 8]).round(2).tolist()
    [2.54, 1.86]
    """
    k, n = require.groups(successes, attempts, 1)
    m = require.integer_vector("sizes", sizes, minimum=1, maximum=10_000)
    require.same_shape(attempts=n, sizes=m)
    (k, n, m), where = distinct(k, n, m)
    return np.asarray(implied_weight((k + 0.5) / (n + 1), m, estimator)[where])


def moved_weight(steps: Any, weights: Any, reference: Any) -> FloatArray:
    """Share of a batch's weight that lies on other prompts than under the reference, for every step.

    (1/2) sum_i |w_i / sum w - r_i / sum r|, the total variation distance: 0 for proportional weights, 1 at most.

    Parameters
    ----------
    steps, weights, reference : Integers >= 0, w and r, each [G]; w and r are in [0, 1e100], not all 0 in a step.

    Returns
    -------
    FloatArray : [number of steps], in the order of the steps.

    Examples
    --------
    >>> moved_weight([1, 1, 2], [8, 24, 16], [16, 16, 16]).tolist()
    [0.25, 0.0]
    """
    t = require.integer_vector("steps", steps)
    _, step = np.unique(t, return_inverse=True)
    shares = []
    for name, values in (("weights", weights), ("reference", reference)):
        x = require.vector(name, values, low=0.0, high=1e100)
        require.same_shape(**{"steps": t, name: x})
        x = x / (x.max() or 1.0)
        total = np.bincount(step, weights=x)
        if not total.all():
            raise ValueError(f"{name}: expected a positive sum in every step, got 0")
        shares.append(x / total[step])
    return np.asarray(np.bincount(step, weights=np.abs(shares[0] - shares[1])) / 2)
