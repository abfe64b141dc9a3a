"""Intervals of means over runs and problems that are crossed: every run answers the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from theory.base import require
from theory.base.arrays import FloatArray
from theory.statistics.intervals import LARGEST, MAX_BLOCK, Interval


def crossed_bootstrap_interval(
    strata: Sequence[Any],
    rng: np.random.Generator,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> Interval:
    """Percentile bootstrap intervals of means over runs and problems, both resampled, and of the mean of the strata.

    A resample draws the runs with replacement, once for all strata, and on its own the problems of every stratum; a
    score counts as often as its run times its problem was drawn (Owen, The pigeonhole bootstrap, Ann. Appl. Stat.
    2007). A run is taken whole, over strata too, since a good run may be good at everything. The variance is that of
    problems and of runs, and up to three times that of what is left, so that intervals err on the wide side; but of R
    runs only (R - 1)/R of the runs' part is seen, and of one run nothing: the interval is then that of the problems.

    Parameters
    ----------
    strata
        One array for each stratum (a benchmark): finite numbers of size up to `theory.statistics.intervals.LARGEST`,
        [num_runs, num_problems, ...]; only num_problems differs between strata.
    rng
        The only source of randomness.
    confidence
        In (0, 1).
    num_resamples
        At least 1; below about 1,000 the ends of a 95 % interval are noisy.

    Returns
    -------
    Interval
        Point, low and high, each [num_strata + 1, ...]; the last is the mean of the strata, all weighted alike.

    Raises
    ------
    ValueError
        If an argument is not as above.

    Examples
    --------
    >>> scores = np.random.default_rng(0).random((3, 40))
    >>> found = crossed_bootstrap_interval([scores, scores[:, :30]], np.random.default_rng(1))
    >>> found.point.shape, bool(np.all((found.low < found.point) & (found.point < found.high)))
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
    estimates = np.stack([*means, _mean(means)], axis=1)
    points = [x.mean(axis=(0, 1)) for x in values]
    low, high = np.quantile(estimates, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0)
    return Interval(np.stack([*points, _mean(points)]), low, high)


def _mean(values: Sequence[FloatArray]) -> FloatArray:
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
