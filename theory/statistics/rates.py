"""Intervals of a log's numbers: the success rate of one group, and ratios of sums over dependent rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import betaincinv

from theory.base import require
from theory.base.arrays import FloatArray, distinct
from theory.statistics.intervals import LARGEST, Interval

MAX_CLUSTERS = 4096
"""Most clusters that are resampled one by one; a larger number is pooled at random into this many."""


def jeffreys_interval(successes: Any, attempts: Any, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Jeffreys interval of a success rate (Brown, Cai, DasGupta, Statist. Sci. 2001).

    Equal-tailed quantiles of Beta(k + 1/2, n - k + 1/2); 0 below if k = 0, and 1 above if k = n.

    Parameters
    ----------
    successes, attempts, confidence : k and n, integers, [G], 0 <= k <= n, n >= 1, and a number in (0, 1).

    Returns
    -------
    tuple of FloatArray : The lower and the upper end, each [G].

    Examples
    --------
    >>> [x.round(3).tolist() for x in jeffreys_interval([0, 8], [16, 16])]
    [[0.0, 0.272], [0.143, 0.728]]
    """
    k, n = require.groups(successes, attempts, 1)
    require.in_range("confidence", confidence, 0.0, 1.0, open_low=True, open_high=True)
    tail = (1 - confidence) / 2
    (k, n), where = distinct(k, n)
    low = np.where(k > 0, betaincinv(k + 0.5, n - k + 0.5, tail), 0.0)
    high = np.where(k < n, betaincinv(k + 0.5, n - k + 0.5, 1 - tail), 1.0)
    return low[where], high[where]


def ratio_intervals(
    numerators: Any,
    denominators: Any,
    clusters: Any,
    rng: np.random.Generator,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> Interval:
    """Percentile cluster-bootstrap intervals of ratios of sums.

    sum x / sum y. All rows of a cluster are drawn together, with replacement. Ratios share the resamples. More than
    `MAX_CLUSTERS` clusters are first pooled at random into this many.

    Parameters
    ----------
    numerators, denominators : x and y, [G, R] each, of size up to `theory.statistics.intervals.LARGEST`. A column has
        sum y > 0, or both sums are 0; its ratios must be within float64.
    clusters : The cluster of each row (a prompt), integers >= 0, [G].
    rng, confidence, num_resamples : As in `theory.statistics.stratified_bootstrap_interval`.

    Returns
    -------
    Interval : Point, low and high, each [R]. 0/0 = 1; a resample without a positive denominator counts as 1 too.

    Examples
    --------
    >>> x, y = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [4.0], [6.0]])
    >>> [float(end[0]) for end in ratio_intervals(x, y, [0, 1, 2], np.random.default_rng(0))]
    [0.5, 0.5, 0.5]
    """
    x, y = (
        require.numbers(name, values, low=-LARGEST, high=LARGEST)
        for name, values in (("numerators", numerators), ("denominators", denominators))
    )
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"numerators: expected shape [G, R], got {x.shape}")
    require.same_shape(numerators=x, denominators=y)
    own = require.integer_vector("clusters", clusters)
    if own.size != len(x):
        raise ValueError(f"clusters: expected one per row, {len(x)}, got {own.size}")
    confidence = require.resampling(rng, confidence, num_resamples)
    _, cluster = np.unique(own, return_inverse=True)
    num = int(cluster.max()) + 1
    if num > MAX_CLUSTERS:
        cluster, num = (rng.permutation(num) % MAX_CLUSTERS)[cluster], MAX_CLUSTERS
    # A common scale per ratio keeps sums of any number of rows in range.
    scale = np.maximum(np.abs(x).max(axis=0), np.abs(y).max(axis=0))
    both = np.concatenate([x, y], axis=1) / np.tile(np.where(scale > 0, scale, 1.0), 2)
    sums = np.stack([np.bincount(cluster, weights=column, minlength=num) for column in both.T], axis=1)
    top, bottom = np.split(sums.sum(axis=0), 2)
    if np.any(bottom < 0) or np.any((bottom == 0) & (top != 0)):
        raise ValueError(f"denominators: expected a positive sum, got {bottom.min()}")
    drawn = np.concatenate(
        [
            rng.multinomial(num, np.full(num, 1 / num), size=min(256, num_resamples - start)) @ sums
            for start in range(0, num_resamples, 256)
        ]
    )
    with np.errstate(over="ignore"):
        point, estimates = _ratio(top, bottom), _ratio(*np.split(drawn, 2, axis=1))
    if not (np.isfinite(point).all() and np.isfinite(estimates).all()):
        raise ValueError("denominators: expected ratios within float64, got an overflow")
    return Interval.percentile(point, estimates, confidence)


def _ratio(x: FloatArray, y: FloatArray) -> FloatArray:
    positive = y > 0
    return np.where(positive, x / np.where(positive, y, 1.0), 1.0)
