"""Aggregates of runs, and their bootstrap over runs and tasks.

Scores are [num_runs, num_tasks, ...]: one row for each run (a seed). Further axes, such as training steps, are carried
along. Agarwal et al. (arXiv 2108.13264) give the reasons for the interquartile mean and the stratified bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from theory.base import require
from theory.base.arrays import FloatArray

MAX_BLOCK = 2**23
"""Scores of resamples held at once: about 64 MB, whatever the number of resamples."""

LARGEST = 1e300
"""Largest size of a score: far enough from overflow for sums of any number of scores that fits into memory."""

NUM_RESAMPLES = 2000
"""Default number of resamples behind an interval."""


class Interval(NamedTuple):
    """A statistic of the scores and its interval; the three share one shape."""

    point: FloatArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def percentile(cls, point: FloatArray, estimates: FloatArray, confidence: float) -> Interval:
        """Return the percentile interval from the estimates of all resamples, [num_resamples, ...]."""
        return cls(point, *np.quantile(estimates, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0))


def interquartile_mean(scores: Any, axis: int | tuple[int, ...] | None = None) -> FloatArray:
    """Mean of the middle half of the scores.

    This is the 25 % trimmed mean: of n sorted scores the floor(n / 4) lowest and as many highest are left out. Up to
    three scores are averaged in full.

    Parameters
    ----------
    scores : Finite numbers of size up to `LARGEST`, of any shape, at least one along `axis`.
    axis : Axis or axes that are pooled; None pools all.

    Returns
    -------
    FloatArray : The shape of `scores` without `axis`.

    Examples
    --------
    >>> interquartile_mean([0.0, 1.0, 2.0, 99.0]).item()
    1.5
    >>> interquartile_mean([[0.0, 1.0, 2.0, 99.0], [3.0, 3.0, 3.0, 3.0]], axis=1).tolist()
    [1.5, 3.0]
    """
    values = require.numbers("scores", scores, low=-LARGEST, high=LARGEST)
    axes = tuple(range(values.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for each in axes:
        if isinstance(each, bool) or not isinstance(each, (int, np.integer)) or not -values.ndim <= each < values.ndim:
            raise ValueError(f"axis: expected axes of scores of shape {values.shape}, got {axis!r}")
    if len({each % values.ndim for each in axes}) < len(axes):
        raise ValueError(f"axis: expected different axes, got {axis!r}")
    moved = np.moveaxis(values, axes, range(-len(axes), 0))
    kept = moved.shape[: moved.ndim - len(axes)]
    num_scores = math.prod(moved.shape[len(kept) :])
    if num_scores == 0:
        raise ValueError(f"scores: expected at least one score along axis {axis}, got shape {values.shape}")
    ordered = np.sort(moved.reshape(*kept, num_scores), axis=-1)
    cut = num_scores // 4
    return np.asarray(ordered[..., cut : num_scores - cut].mean(axis=-1))


def stratified_bootstrap_interval(
    scores: Any,
    statistic: Callable[..., FloatArray],
    rng: np.random.Generator,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval of a statistic over runs and tasks, runs resampled within each task.

    A resample draws num_runs runs with replacement, for every task on its own. A run is taken whole, with all its
    further axes (its curve). To compare two methods that share seeds, pass their difference per run.

    Parameters
    ----------
    scores : Finite numbers of size up to `LARGEST`, [num_runs, num_tasks, ...], num_runs >= 2.
    statistic : Function `statistic(scores, axis=(i, j))` that reduces the axes of runs and tasks: `interquartile_mean`,
        `np.mean`, `np.median`.
    rng : The only source of randomness: the same state gives the same interval.
    confidence, num_resamples : In (0, 1), and at least 1; with fewer than about 1,000 resamples the ends of a 95 %
        interval are noisy.

    Returns
    -------
    Interval : Point, low and high, each of the shape of the further axes.

    Examples
    --------
    >>> scores = np.random.default_rng(0).normal(size=(32, 3))
    >>> interval = stratified_bootstrap_interval(scores, interquartile_mean, np.random.default_rng(1))
    >>> bool(interval.low < interval.point < interval.high)
    True
    """
    values = require.numbers("scores", scores, low=-LARGEST, high=LARGEST)
    if values.ndim < 2 or values.size == 0 or len(values) < 2:
        raise ValueError(f"scores: expected shape [num_runs >= 2, num_tasks, ...], got {values.shape}")
    if not callable(statistic):
        raise ValueError(f"statistic: expected a function, got {statistic!r}")
    confidence = require.resampling(rng, confidence, num_resamples)
    num_runs, num_tasks = values.shape[:2]
    runs = rng.integers(num_runs, size=(num_resamples, num_runs, num_tasks))
    block = max(1, MAX_BLOCK // values.size)
    estimates = np.concatenate(
        [
            statistic(values[runs[start : start + block], np.arange(num_tasks)], axis=(1, 2))
            for start in range(0, num_resamples, block)
        ]
    )
    return Interval.percentile(np.asarray(statistic(values, axis=(0, 1))), estimates, confidence)
