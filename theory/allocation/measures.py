"""Measures of an allocation: how unequal it was, and which part of it taught nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.base import require
from theory.base.arrays import BoolArray, FloatArray


def degenerate_groups(successes: ArrayLike, counts: ArrayLike) -> BoolArray:
    """Return which groups have one reward only, k = 0 or k = n, hence no group-relative advantage.

    Parameters
    ----------
    successes, counts : k and n of every prompt, integers, 0 <= k <= n, [...] of one shape; an empty group is
        degenerate.

    Returns
    -------
    BoolArray : [...].

    Examples
    --------
    >>> degenerate_groups([0, 3, 4, 0], [4, 4, 4, 0]).tolist()
    [True, False, True, True]
    """
    k, n = require.integers("successes", successes), require.integers("counts", counts)
    require.same_shape(successes=k, counts=n)
    require.at_most(successes=k, counts=n)
    return np.asarray((k == 0) | (k == n))


def wasted_share(successes: ArrayLike, counts: ArrayLike) -> FloatArray:
    """Share of a batch's rollouts that went into degenerate groups, over the last axis.

    Arguments as in `degenerate_groups`, [..., N] with N >= 1 prompts and at least one rollout.

    Returns
    -------
    FloatArray : float64, [...], in [0, 1].

    Examples
    --------
    >>> wasted_share([0, 3], [4, 12]).tolist()
    0.25
    """
    degenerate = degenerate_groups(successes, counts)
    n = _batch(counts)
    return np.asarray(np.where(degenerate, n, 0).sum(-1) / n.sum(-1))


def concentration(counts: ArrayLike) -> FloatArray:
    """Return N sum n^2 / (sum n)^2 over the last axis: 1 if all prompts have as many rollouts, N if one has all.

    Arguments as in `wasted_share`.

    Returns
    -------
    FloatArray : float64, [...], in [1, N].

    Examples
    --------
    >>> concentration([[4, 4], [8, 0]]).tolist()
    [1.0, 2.0]
    """
    n = _batch(counts)
    return np.asarray(n.shape[-1] * (n * n).sum(-1) / n.sum(-1) ** 2)


def _batch(counts: ArrayLike) -> FloatArray:
    n = require.integers("counts", counts).astype(np.float64)
    if n.ndim < 1 or not np.all(n.sum(-1) > 0):
        raise ValueError(f"counts: expected batches [..., N] of at least one rollout, got shape {n.shape}")
    return n
