"""Aggregates of runs and their intervals: gains within seeds, and bootstraps over runs, tasks and problems.

Scores are [num_runs, num_tasks, ...]: one row for each run (a seed). Further axes, such as training steps, are carried
along. Agarwal et al. (arXiv 2108.13264) give the reasons for the interquartile mean and the stratified bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def paired_gain(values: Any, reference: Any = None, confidence: float = 0.95) -> Interval:
    """Gain over a reference within seeds: interquartile mean of the differences, and its interval over seeds.

    Methods that share seeds share worlds, prompts and draws, so differences are taken seed by seed. The difference of
    two interquartile means is another number. The interval is `stratified_bootstrap_interval` with `NUM_RESAMPLES`
    resamples of the seeds. They are the same in every call, so a gain depends on nothing else than its two columns.

    Parameters
    ----------
    values : Finite numbers of size up to `LARGEST`, [num_seeds, ...].
    reference : Values of what is compared with, in the same shape and order of seeds; None aggregates `values`
        themselves.
    confidence : In (0, 1).

    Returns
    -------
    Interval : Point, low and high, each of the shape of the further axes. One seed has no interval: both ends are NaN.

    Examples
    --------
    >>> gain = paired_gain([0.5, 0.6, 0.7, 0.8], [0.4, 0.5, 0.5, 0.7])
    >>> round(float(gain.point), 3), round(float(gain.low), 3), round(float(gain.high), 3)
    (0.1, 0.1, 0.2)
    >>> paired_gain([[0.5, 0.7]]).low.tolist()
    [nan, nan]
    """
    gains = require.numbers("values", values, low=-LARGEST, high=LARGEST)
    if reference is not None:
        other = require.numbers("reference", reference, low=-LARGEST, high=LARGEST)
        require.same_shape(values=gains, reference=other)
        gains = gains - other
    if gains.ndim < 1 or gains.size == 0:
        raise ValueError(f"values: expected shape [num_seeds >= 1, ...], got {gains.shape}")
    rng = np.random.default_rng(0)
    if len(gains) == 1:
        require.resampling(rng, confidence, NUM_RESAMPLES)
        nowhere = np.full(gains.shape[1:], np.nan)
        return Interval(gains[0], nowhere, nowhere)
    return stratified_bootstrap_interval(gains[:, None], interquartile_mean, rng, confidence)


def crossed_bootstrap_interval(
    strata: Sequence[Any],
    rng: np.random.Generator,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Percentile bootstrap intervals of means over runs and problems, both resampled, and of the mean of the strata.

    A resample draws runs with replacement, once for all strata, and problems for every stratum on its own. A score
    counts as often as its run times its problem was drawn (Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 2007). A
    run is taken whole, over strata too, since a good run may be good at everything. The variance is that of problems
    and of runs, and up to three times that of the remainder, so intervals err on the wide side. But R runs show only
    (R - 1)/R of the variance of runs. One run shows nothing of it: the interval is then that of the problems.

    Parameters
    ----------
    strata : One array for each stratum (a benchmark): finite numbers of size up to `LARGEST`, [num_runs, num_problems,
        ...]; only num_problems differs between strata.
    rng, confidence, num_resamples : As in `stratified_bootstrap_interval`.

    Returns
    -------
    Interval : Point, low and high, each [num_strata + 1, ...]; the last is the mean of the strata, all weighted alike.

    Examples
    --------
    >>> scores = np.random.default_rng(0).random((3, 40))
    >>> interval = crossed_bootstrap_interval([scores, scores[:, :30]], np.random.default_rng(1))
    >>> interval.point.shape, bool(np.all((interval.low < interval.point) & (interval.point < interval.high)))
    ((3,), True)
    """
    if not isinstance(strata, Sequence) or not strata:
        raise ValueError(f"strata: expected at least one array in a list, got {type(strata).__name__}")
    values = [require.numbers(f"strata[{i}]", x, low=-LARGEST, high=LARGEST) for i, x in enumerate(strata)]
    for number, x in enumerate(values):
        if x.ndim < 2 or x.size == 0:
            raise ValueError(f"strata[{number}]: expected shape [num_runs, num_problems, ...], got {x.shape}")
        if (len(x), *x.shape[2:]) != (len(values[0]), *values[0].shape[2:]):
            raise ValueError(
                f"strata[{number}]: expected the runs and further axes of strata[0], {values[0].shape}, got {x.shape}"
            )
    confidence = require.resampling(rng, confidence, num_resamples)
    num_runs = len(values[0])
    runs = _weights(rng, num_runs, num_resamples)
    means = [_resampled_means(x, runs, _weights(rng, x.shape[1], num_resamples)) for x in values]
    estimates = np.stack([*means, _mean_of_strata(means)], axis=1)
    points = [x.mean(axis=(0, 1)) for x in values]
    return Interval.percentile(np.stack([*points, _mean_of_strata(points)]), estimates, confidence)


def _mean_of_strata(values: Sequence[FloatArray]) -> FloatArray:
    return np.asarray(np.stack(values).mean(axis=0))


def _weights(rng: np.random.Generator, size: int, num_resamples: int) -> FloatArray:
    """Return how often each of `size` things was drawn, as a share of the draws, [num_resamples, size]."""
    return rng.multinomial(size, np.full(size, 1 / size), size=num_resamples) / size


def _resampled_means(x: FloatArray, runs: FloatArray, problems: FloatArray) -> FloatArray:
    """Return sum over r, i of runs[b, r] problems[b, i] x[r, i, ...] for every b, a block of resamples at a time."""
    block = max(1, MAX_BLOCK // (x.size // len(x)))
    return np.concatenate(
        [
            np.einsum(
                "bi...,bi->b...", np.tensordot(runs[start : start + block], x, 1), problems[start : start + block]
            )
            for start in range(0, len(runs), block)
        ]
    )
