"""Means over runs and problems, both a sample of more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, logit, stdtrit

from theory.base import require
from theory.base.arrays import FloatArray
from theory.statistics.intervals import LARGEST, Interval


def crossed_interval(strata: Sequence[Any], confidence: float = 0.95, shares: bool = False) -> Interval:
    """Intervals of means over runs and problems, both sampled, and of the mean of the strata.

    A score is the sum of what its run adds, of what its problem adds, and of a remainder. With V_P the variance of the
    mean over problems, from the means of the P problems; V_R that over runs; and V_E that of the remainder, which is in
    both, the half-width is

        sqrt( t_(P-1)^2 V_P + t_(R-1)^2 max(V_R - V_E, 0) ),

    with Student's quantiles. Each part has its own, so that few runs get a wide interval (the modified large-sample
    interval of Graybill and Wang, J. Amer. Statist. Assoc. 1980). Strata share the runs and have problems of their own.
    One run tells nothing of runs: its interval is for the mean over problems of that run. Two runs tell so little that
    V_E is not subtracted: else it would be taken for all of V_R too often.

    Parameters
    ----------
    strata : One array for each stratum (a benchmark): finite numbers of size up to `LARGEST`, [num_runs, num_problems,
        ...]; only num_problems differs between strata.
    confidence : In (0, 1).
    shares : Whether scores are in [0, 1], as pass@k is. The interval is then computed on the scale of the logit, by the
        delta method, and stays within [0, 1]. Its low end is that of the scores and one more problem with score 0 in
        each stratum, its high end that with score 1: problems of a rare kind may be missing from the sample. So the
        interval is never a point, also where all scores are 1.

    Returns
    -------
    Interval : Point, low and high, each [num_strata + 1, ...]; the last is the mean of the strata, all weighted alike.
        A stratum with one problem has NaN ends, and the mean of the strata with it. Where all scores are equal the
        interval is a point, unless they are shares.

    Examples
    --------
    >>> scores = np.random.default_rng(0).random((3, 40))
    >>> interval = crossed_interval([scores, scores[:, :30]])
    >>> interval.point.shape, bool(np.all((interval.low < interval.point) & (interval.point < interval.high)))
    ((3,), True)
    """
    if not isinstance(strata, Sequence) or not strata:
        raise ValueError(f"strata: expected at least one array in a list, got {type(strata).__name__}")
    low, high = (0.0, 1.0) if shares else (-LARGEST, LARGEST)
    values = [require.numbers(f"strata[{i}]", x, low=low, high=high) for i, x in enumerate(strata)]
    for number, x in enumerate(values):
        if x.ndim < 2 or x.size == 0:
            raise ValueError(f"strata[{number}]: expected shape [num_runs, num_problems, ...], got {x.shape}")
        if (len(x), *x.shape[2:]) != (len(values[0]), *values[0].shape[2:]):
            raise ValueError(
                f"strata[{number}]: expected the runs and further axes of strata[0], {values[0].shape}, got {x.shape}"
            )
    confidence = require.in_range("confidence", confidence, 0.0, 1.0, open_low=True, open_high=True)
    tail = (1 - confidence) / 2
    if shares:
        return _of_shares(values, tail)
    point, half = _means_and_halves(values, tail)
    largest = np.finfo(np.float64).max
    return Interval(point, np.clip(point - half, -largest, largest), np.clip(point + half, -largest, largest))


def _means_and_halves(values: Sequence[FloatArray], tail: float) -> tuple[FloatArray, FloatArray]:
    """Return the means of the strata, last that of all, and the half-widths of their intervals."""
    scale = max(float(np.abs(x).max()) for x in values) or 1.0  # keeps squares in range
    scaled = [x / scale for x in values]
    of_runs = [x.mean(axis=1) for x in scaled]
    problems = [_of_problems(x, tail) for x in scaled]
    remainders = [_of_remainder(x) for x in scaled]
    num = len(values)
    of_runs.append(np.mean(of_runs, axis=0))
    problems.append(np.sum(problems, axis=0) / num**2)
    remainders.append(np.sum(remainders, axis=0) / num**2)
    runs = [_of_runs(means, remainder, tail) for means, remainder in zip(of_runs, remainders, strict=True)]
    point = np.stack([means.mean(axis=0) for means in of_runs]) * scale
    with np.errstate(over="ignore"):
        return point, np.sqrt(np.stack(problems) + np.stack(runs)) * scale


def _of_shares(values: Sequence[FloatArray], tail: float) -> Interval:
    """Return the interval of shares: of each end, with one more problem that has the score of that end."""
    point, half = _means_and_halves(values, tail)
    ends = []
    for score, sign in ((0.0, -1), (1.0, 1)):
        more = [np.concatenate([x, np.full((len(x), 1, *x.shape[2:]), score)], axis=1) for x in values]
        mean, wide = _means_and_halves(more, tail)
        inner = (mean > 0) & (mean < 1)
        share = np.where(inner, mean, 0.5)
        # On the scale of the logit the half-width is divided by share (1 - share).
        end = expit(logit(share) + sign * wide / (share * (1 - share)))
        ends.append(np.where(inner, end, mean) + 0 * half)  # NaN where one problem tells nothing
    return Interval(point, *ends)


def _of_problems(x: FloatArray, tail: float) -> FloatArray:
    """Return t^2 V_P, NaN for one problem."""
    num = x.shape[1]
    if num == 1:
        return np.full(x.shape[2:], np.nan)
    return np.asarray(stdtrit(num - 1, tail) ** 2 * x.mean(axis=0).var(axis=0, ddof=1) / num)


def _of_runs(means: FloatArray, remainder: FloatArray, tail: float) -> FloatArray:
    """Return t^2 max(V_R - V_E, 0) from the runs' means, 0 for one run; of two runs V_E is not taken off."""
    num = len(means)
    if num == 1:
        return np.zeros(means.shape[1:])
    variance = means.var(axis=0, ddof=1) / num
    if num == 2:
        return np.asarray(stdtrit(1, tail) ** 2 * variance)
    return np.asarray(stdtrit(num - 1, tail) ** 2 * np.maximum(variance - remainder, 0.0))


def _of_remainder(x: FloatArray) -> FloatArray:
    """Return V_E, the variance of the mean that is due to neither runs nor problems; 0 where it cannot be told."""
    num_runs, num_problems = x.shape[:2]
    if num_runs == 1 or num_problems == 1:
        return np.zeros(x.shape[2:])
    rest = x - x.mean(axis=1, keepdims=True) - x.mean(axis=0, keepdims=True) + x.mean(axis=(0, 1), keepdims=True)
    return np.asarray((rest**2).sum(axis=(0, 1)) / ((num_runs - 1) * (num_problems - 1) * num_runs * num_problems))
