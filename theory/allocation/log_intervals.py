"""Intervals of a log's comparison of two allocations, given the past; and whether groups were left out of the log.

Given everything before a step, its allocations are fixed, and only the successes k of its own groups are random, each a
binomial draw. So the errors of a sum over groups are uncorrelated, and their variances add up. A bootstrap over prompts
answers another question: it breaks the budget that every step has, and its intervals are several times too wide.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln
from scipy.stats import t as student

from theory.allocation.log_estimates import NOISE_ESTIMATORS, noise_bounds
from theory.allocation.variance import bernoulli_variance
from theory.base import require
from theory.base.arrays import FloatArray, IntArray

LEAST_FREEDOM = 5.0
"""Degrees of freedom below which the unbiased estimate of a variance is not used: it may be near 0, or below."""

NEGLIGIBLE = 1e-20
"""Probability, relative to the largest, below which an outcome is left out of a convolution."""

Ends = tuple[float | None, float | None]
"""A lower and an upper end; None where the log gives none."""

Past = tuple[FloatArray, FloatArray]
"""Successes and attempts of each group's prompt before its step."""


class NoiseRatio(NamedTuple):
    """Noise of one allocation over that of another: bounds, the interval around both, and how it was computed.

    Attributes
    ----------
    bounds : Estimates of two bounds on the ratio; they differ for `grpo` only, as in `noise_bounds`.
    interval : From the lower end of the lower bound's interval to the upper end of the upper bound's.
    p_value : Two-sided, of the ratio 1: one minus the confidence at which the interval ends at 1; 1 if 1 is in bounds.
    method : "same" if both allocations are one: the ratio is 1. "unbiased" or "predicted" is where the variance comes
        from, in `noise_ratio`. "none" if no group of the log has noise.
    """

    bounds: Ends
    interval: Ends
    p_value: float
    method: str


def estimate_variance(successes: Any, attempts: Any) -> FloatArray:
    """Unbiased estimate of the variance of P = k (n-k) / (n (n-1)), itself the unbiased estimate of p q, q = 1 - p.

    P is the sample variance of n draws of 0 and 1, whose fourth central moment is p q (1 - 3 p q). Hence

        Var(P) = (p q - (p q)^2 (3 + (n-3)/(n-1))) / n.

    P estimates p q, and k (k-1) (n-k) (n-k-1) / (n (n-1) (n-2) (n-3)) estimates (p q)^2.

    Parameters
    ----------
    successes, attempts : k and n, integers, [G], 0 <= k <= n, n >= 4; fewer rollouts have no such estimate.

    Returns
    -------
    FloatArray : [G]; a single estimate may be below 0.

    Examples
    --------
    >>> estimate_variance([0, 1, 2], [4, 4, 4]).round(4).tolist()
    [0.0, 0.0625, -0.0556]
    """
    k, n = (x.astype(np.float64) for x in require.groups(successes, attempts, 4))
    square = k / n * ((k - 1) / (n - 1)) * ((n - k) / (n - 2)) * ((n - k - 1) / (n - 3))
    return np.asarray((bernoulli_variance(k, n) - square * (3 + (n - 3) / (n - 1))) / n)


def noise_ratio(
    successes: Any,
    attempts: Any,
    past_successes: Any,
    past_attempts: Any,
    sizes: Any,
    others: Any,
    weights: Any,
    estimator: str,
    confidence: float = 0.95,
) -> NoiseRatio:
    """Noise of an allocation over that of another one, summed over a log, with an interval that is given the past.

    R = sum_g s x(m) / sum_g s x(u), with x of `noise_bounds` and weights s. The error of R is about sum_g D / sum_g s
    x(u), D = s (x(m) - R x(u)), and Var(sum D) is a sum over groups. It is estimated in one of two ways.

    - unbiased: x(m) = P/m, so D = s (1/m - R/u) P, and Var(P) is `estimate_variance`; likewise for `rloo`.
    - predicted: the squared error of a prediction of D from the prompt's past, which is at least Var(D) on average,
      however p drifts. Prediction: the expectation for p ~ Beta(K + 1/2, G - K + 1/2), K of G the past.

    The second is for `grpo`, for groups of fewer than 4 rollouts, and for everything if the first has fewer than
    `LEAST_FREEDOM` degrees of freedom or is not above 0. Quantiles are Student's with 2 V^2 / sum V_g^2 degrees of
    freedom (Satterthwaite), V_g the estimated variances and V their sum. Ours.

    The interval covers the ratio for this log's prompts, steps and policies, and no other prompts.

    Parameters
    ----------
    successes, attempts : k and n, integers, [G], 0 <= k <= n, n >= 2; n was fixed before the step's rewards were seen.
    past_successes, past_attempts : K and G of `past_counts`, [G].
    sizes, others : m and u, integers >= 2, [G], fixed before the step's rewards were seen.
    weights : s, [G], in [0, 1e100], not all 0: the squared share of a group in its step's gradient, for one.
    estimator, confidence : One of `NOISE_ESTIMATORS`, and a number in (0, 1).

    Returns
    -------
    NoiseRatio : The ratio; the interval's lower end is at least 0.

    Examples
    --------
    >>> k, n, past = [3, 5, 1, 4], [8, 8, 8, 8], [8, 8, 8, 8]
    >>> ratio = noise_ratio(k, n, [4, 4, 0, 8], past, [12, 12, 4, 4], [8, 8, 8, 8], [1.0] * 4, "exact-baseline")
    >>> [round(x, 2) for x in ratio.bounds], [round(x, 2) for x in ratio.interval], ratio.method
    ([1.25, 1.25], [0.54, 1.96], 'predicted')
    """
    k, n = require.groups(successes, attempts, 2)
    most = float(require.MAX_COUNT)
    past = (
        require.vector("past_successes", past_successes, low=0.0, high=most),
        require.vector("past_attempts", past_attempts, low=0.0, high=most),
    )
    m, u = (require.integer_vector(name, x, minimum=2) for name, x in (("sizes", sizes), ("others", others)))
    s = require.vector("weights", weights, low=0.0, high=1e100)
    require.same_shape(attempts=n, past_successes=past[0], past_attempts=past[1], sizes=m, others=u, weights=s)
    require.at_most(past_successes=past[0], past_attempts=past[1])
    require.in_range("confidence", confidence, 0.0, 1.0, open_low=True, open_high=True)
    require.one_of("estimator", estimator, NOISE_ESTIMATORS)
    if not s.any():
        raise ValueError("weights: expected a positive sum, got 0")
    s = s / s.max()
    if np.array_equal(m, u):
        return NoiseRatio((1.0, 1.0), (1.0, 1.0), 1.0, "same")
    if estimator == "grpo":
        low, high = (_of_bounds(k, n, past, m, u, s, end) for end in (0, 1))
    else:
        low = high = _of_variances(k, n, past, m, u, s, estimator)
    return _joined(low, high, confidence)


class _Estimate(NamedTuple):
    """A ratio, its standard error, the degrees of freedom of that, and whether a prediction stood in."""

    ratio: float
    error: float
    freedom: float
    predicted: bool


def _of_variances(
    k: IntArray, n: IntArray, past: Past, m: IntArray, u: IntArray, s: FloatArray, estimator: str
) -> _Estimate | None:
    """Return the ratio if both noises are multiples of p q."""
    lost = 1 if estimator == "rloo" else 0
    x, y, variance = s / (m - lost), s / (u - lost), bernoulli_variance(k, n)
    below = float((y * variance).sum())
    if below <= 0:
        return None
    ratio = float((x * variance).sum()) / below
    a, b = past[0] + 0.5, past[1] - past[0] + 0.5
    squared = (variance - a * b / ((a + b) * (a + b + 1))) ** 2
    known = n >= 4
    unbiased = squared.copy()
    if known.any():
        unbiased[known] = estimate_variance(k[known], n[known])
    scale = (x - ratio * y) ** 2
    error, freedom = _spread(scale * unbiased)
    if known.any() and freedom >= LEAST_FREEDOM:
        return _Estimate(ratio, error / below, freedom, not known.all())
    error, freedom = _spread(scale * squared)
    return _Estimate(ratio, error / below, freedom, True)


def _of_bounds(
    k: IntArray, n: IntArray, past: Past, m: IntArray, u: IntArray, s: FloatArray, end: int
) -> _Estimate | None:
    """Return one end of GRPO's ratio: of its bounds above, and of the opposite ones below."""
    x, y = s * noise_bounds(k, n, m, "grpo")[end], s * noise_bounds(k, n, u, "grpo")[1 - end]
    below = float(y.sum())
    if below <= 1e-12 * float(np.abs(y).sum()):  # no noise was seen, or the lower bound says nothing
        return None
    ratio = float(x.sum()) / below
    expected = s * (_expected_grpo(n, past, m)[end] - ratio * _expected_grpo(n, past, u)[1 - end])
    error, freedom = _spread((x - ratio * y - expected) ** 2)
    return _Estimate(ratio, error / below, freedom, True)


def _spread(variances: FloatArray) -> tuple[float, float]:
    """Return the standard deviation of a sum, and the degrees of freedom of its square; 0 and 0 if it is negative."""
    total, squares = float(variances.sum()), float((variances**2).sum())
    return (float(np.sqrt(total)), 2 * total**2 / squares) if total > 0 and squares > 0 else (0.0, 0.0)


def _expected_grpo(n: IntArray, past: Past, m: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return what `noise_bounds` is on average, for `grpo` and p ~ Beta(K + 1/2, G - K + 1/2)."""
    a, b = past[0] + 0.5, past[1] - past[0] + 0.5
    within = np.minimum(m, n)
    same, short = np.zeros(n.size), np.zeros(n.size)
    for right, wrong in ((a, b), (b, a)):
        power = np.exp(_log_moment(right, wrong, within - 1))
        same += power * (right + within - 1) / (right + wrong + within - 1)
        short += power * wrong / (right + wrong + within - 1)
    least = same - np.maximum(m - n, 0) * short
    return (1 - same) / m, (1 - least) / m


def _log_moment(a: FloatArray, b: FloatArray, power: IntArray) -> FloatArray:
    """Return log E[p^j] for p ~ Beta(a, b)."""
    return np.asarray(gammaln(a + power) - gammaln(a) + gammaln(a + b) - gammaln(a + b + power))


def _joined(low: _Estimate | None, high: _Estimate | None, confidence: float) -> NoiseRatio:
    """Return the bounds, the interval around both, and the p-value of the ratio 1."""
    bounds = None if low is None else low.ratio, None if high is None else high.ratio
    if low is None and high is None:
        return NoiseRatio((None, None), (None, None), 1.0, "none")
    ends: list[float | None] = [None, None]
    p_value, quantile = 1.0, (1 + confidence) / 2
    for index, (x, sign) in enumerate(((low, -1), (high, 1))):
        if x is None:
            continue
        freedom = max(x.freedom, 1.0)
        ends[index] = max(0.0, x.ratio + sign * x.error * float(student.ppf(quantile, freedom)))
        beyond = sign * (1 - x.ratio)
        if beyond > 0:
            p_value = 2 * float(student.sf(beyond / x.error, freedom)) if x.error else 0.0
    predicted = any(x is not None and x.predicted for x in (low, high))
    return NoiseRatio(bounds, (ends[0], ends[1]), p_value, "predicted" if predicted else "unbiased")


def left_out(successes: Any, attempts: Any) -> tuple[float, float]:
    """Chances that a whole log has so few groups that are all right, and so few that are all wrong.

    Let b_j = E[p^j q^(n-j)] over the prompts of all groups of n rollouts. By Cauchy and Schwarz b_(n-1)^2 <= b_n
    b_(n-2), whatever the p are. So groups with no, one and two wrong rollouts have probabilities x, y, z with

        x z >= r y^2,   r = (n-1) / (2n).

    If equality holds, the number X that are all right has a known law given X + Y + Z and 2 X + Y: its weights are
    r^X / (X! Y! Z!). Otherwise X is larger in law. The chance is that of at most the number found, summed over all n by
    convolution: a valid p-value, if p is drawn anew for each group and n does not depend on its rewards. Likewise for
    groups that are all wrong. Ours; for n = 2 it is the exact test of Hardy-Weinberg proportions.

    Parameters
    ----------
    successes, attempts : k and n, integers, [G], 0 <= k <= n, n >= 1; groups of one rollout say nothing.

    Returns
    -------
    tuple of float : The chance for groups that are all right and for those that are all wrong, in [0, 1]; 1 if the log
        has no group from which it could be told.

    Examples
    --------
    >>> k = [7] * 12 + [6] * 9 + [3, 2, 5, 0, 1, 0, 1]
    >>> [round(x, 4) for x in left_out(k, [8] * 28)]
    [0.0384, 0.9045]
    """
    k, n = require.groups(successes, attempts, 1)
    right, wrong = (_chance_of_so_few(x, n) for x in (n - k, k))
    return right, wrong


def _chance_of_so_few(misses: IntArray, n: IntArray) -> float:
    """Return the chance of so few groups without a miss."""
    chances, least, found = np.ones(1), 0, 0
    for size in np.unique(n[(n >= 2) & (misses <= 2)]).tolist():
        none, one, two = (int(((n == size) & (misses == j)).sum()) for j in range(3))
        total, twice = none + one + two, 2 * none + one
        x = np.arange(max(0, twice - total), twice // 2 + 1)
        weights = x * np.log((size - 1) / (2 * size)) - gammaln(x + 1)
        weights -= gammaln(twice - 2 * x + 1) + gammaln(total - twice + x + 1)
        weights = np.exp(weights - weights.max())
        kept = np.flatnonzero(weights >= NEGLIGIBLE)
        x, weights = x[kept], weights[kept]
        chances, least, found = np.convolve(chances, weights / weights.sum()), least + int(x[0]), found + none
    return float(min(chances[: max(0, found - least + 1)].sum(), 1.0))
