"""Comparisons within seeds: the gain, its interval by the number of seeds, and its p-value.

This is the one protocol for numbers over seeds; `interval_method` names what was used. How often its intervals hold the
truth is measured in `tests/theory/statistics/test_coverage.py` and stands in docs/statistics.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from theory.base import require
from theory.base.arrays import FloatArray
from theory.statistics.intervals import (
    LARGEST,
    NUM_RESAMPLES,
    Interval,
    interquartile_mean,
    stratified_bootstrap_interval,
)

BOOTSTRAP_SEEDS = 8
"""Fewest seeds with a bootstrap: of 2 to 7 normal differences its 95 % interval holds the truth in 50 to 91 %."""

SIGN_SEEDS = 3
"""Fewest seeds that decide a sign."""

ROUNDING = 1e-12
"""Share of the largest value below which differences are taken for rounding."""


def interval_method(num_seeds: int) -> str:
    """Say how `paired_gain` aggregates so many seeds, and which interval it gives.

    Parameters
    ----------
    num_seeds : At least 1.

    Returns
    -------
    str : Words for a caption.

    Examples
    --------
    >>> [interval_method(n) for n in (1, 3)]
    ['one seed, no interval', "mean with Student's t, 95 %"]
    >>> interval_method(32)
    'interquartile mean with percentile bootstrap (2,000 resamples), 95 %'
    """
    if require.count("num_seeds", num_seeds, 1) == 1:
        return "one seed, no interval"
    if num_seeds < BOOTSTRAP_SEEDS:
        return "mean with Student's t, 95 %"
    return f"interquartile mean with percentile bootstrap ({NUM_RESAMPLES:,} resamples), 95 %"


def paired_gain(values: Any, reference: Any = None, confidence: float = 0.95) -> Interval:
    """Gain over a reference within seeds, and its interval over seeds.

    Methods that share seeds share worlds, prompts and draws, so differences are taken seed by seed. From
    `BOOTSTRAP_SEEDS` on the gain is the interquartile mean of the differences, with `stratified_bootstrap_interval` and
    `NUM_RESAMPLES` resamples of the seeds. They are the same in every call, so a gain depends on nothing else than its
    two columns. Fewer seeds have their mean, with the interval of Student's t.

    Parameters
    ----------
    values : Finite numbers of size up to `LARGEST`, [num_seeds, ...].
    reference : Values of what is compared with, in the same shape and order of seeds; None aggregates `values`
        themselves. Differences are of size up to `LARGEST`, too.
    confidence : In (0, 1).

    Returns
    -------
    Interval : Point, low and high, each of the shape of the further axes. Each entry has an interval of its own, also
        along a curve. One seed has no interval: both ends are NaN.

    Examples
    --------
    >>> gain = paired_gain([0.5, 0.6, 0.7, 0.8], [0.4, 0.5, 0.5, 0.7])
    >>> round(float(gain.point), 3), round(float(gain.low), 3), round(float(gain.high), 3)
    (0.125, 0.045, 0.205)
    >>> paired_gain([[0.5, 0.7]]).low.tolist()
    [nan, nan]
    """
    gains = _differences(values, reference)
    confidence = require.in_range("confidence", confidence, 0.0, 1.0, open_low=True, open_high=True)
    if len(gains) >= BOOTSTRAP_SEEDS:
        return stratified_bootstrap_interval(gains[:, None], interquartile_mean, np.random.default_rng(0), confidence)
    if len(gains) == 1:
        nowhere = np.full(gains.shape[1:], np.nan)
        return Interval(gains[0], nowhere, nowhere)
    mean, error, scale = _mean_and_error(gains)
    largest = np.finfo(np.float64).max
    with np.errstate(over="ignore"):
        half = -stdtrit(len(gains) - 1, (1 - confidence) / 2) * error * scale
        ends = [np.clip(mean * scale + sign * half, -largest, largest) for sign in (-1, 1)]
    return Interval(mean * scale, *ends)


def paired_p_value(values: Any, reference: Any = None) -> FloatArray:
    """Two-sided p-value of no gain within seeds: Student's t-test of the differences.

    For normal differences it is exact at every number of seeds, and however small it is. For skewed ones it is too
    small (docs/statistics.md has rates). The bootstrap is worse: of ten comparisons of normal differences without
    effect, with 8 seeds, it declares one at .05/10 in 16 % of cases.

    Equal differences have no spread to judge by, so theirs is the p-value of the sign test, 2^(1 - num_seeds). Equal
    means within `ROUNDING` of the largest value. Differences that are all so small are none: they have 1.

    Parameters
    ----------
    values, reference : As in `paired_gain`.

    Returns
    -------
    FloatArray : In [0, 1], of the shape of the further axes; NaN for fewer than `SIGN_SEEDS` seeds, which decide
        nothing.

    Examples
    --------
    >>> round(float(paired_p_value([0.5, 0.6, 0.7, 0.8], [0.4, 0.5, 0.5, 0.7])), 4)
    0.0154
    >>> float(paired_p_value([0.5, 0.6])), float(paired_p_value([0.5, 0.5, 0.5])), float(paired_p_value([0.0] * 3))
    (nan, 0.25, 1.0)
    """
    gains = _differences(values, reference)
    if len(gains) < SIGN_SEEDS:
        return np.full(gains.shape[1:], np.nan)
    mean, error, _ = _mean_and_error(gains)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(mean == 0, 0.0, np.abs(mean) / error)
    p = 2 * stdtr(len(gains) - 1, -size)
    largest = np.abs(values).max(axis=0)
    if reference is not None:
        largest = np.maximum(largest, np.abs(reference).max(axis=0))
    p = np.where(np.ptp(gains, axis=0) <= ROUNDING * largest, 2.0 ** (1 - len(gains)), p)
    return np.where(np.abs(gains).max(axis=0) <= ROUNDING * largest, 1.0, p)


def _differences(values: Any, reference: Any) -> FloatArray:
    gains = require.numbers("values", values, low=-LARGEST, high=LARGEST)
    if reference is not None:
        other = require.numbers("reference", reference, low=-LARGEST, high=LARGEST)
        require.same_shape(values=gains, reference=other)
        gains = require.numbers("values - reference", gains - other, low=-LARGEST, high=LARGEST)
    if gains.ndim < 1 or gains.size == 0:
        raise ValueError(f"values: expected shape [num_seeds >= 1, ...], got {gains.shape}")
    return gains


def _mean_and_error(gains: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the mean and its standard error, both over the largest size, which keeps squares in range, and that."""
    scale = np.abs(gains).max(axis=0)
    scaled = gains / np.where(scale > 0, scale, 1.0)
    return scaled.mean(axis=0), scaled.std(axis=0, ddof=1) / math.sqrt(len(gains)), scale
