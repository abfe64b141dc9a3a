"""pass@k: the unbiased estimate from counts, and the exact value from the success probability."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlog1py

from theory.base import require
from theory.base.arrays import FloatArray


def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: ArrayLike) -> FloatArray:
    """Unbiased estimate of pass@k from n samples of which c are correct (Chen et al., 2107.03374).

    1 - C(n-c, k) / C(n, k) = 1 - prod_{j < m} (1 - M / (n - j)), with m = min(c, k) and M = max(c, k): the share of
    the k-subsets that hold a correct sample. The plug-in value 1 - (1 - c/n)^k is biased downwards.

    Parameters
    ----------
    num_samples, num_correct, k : n >= k, c in [0, n] and k >= 1, integers, [...]; the three broadcast.

    Returns
    -------
    FloatArray : float64, [...], in [0, 1]; 1 where fewer than k samples are wrong. The factors are summed as
        logarithms. Unlike log-gamma values of size n log n these do not cancel, so small values keep their relative
        precision.

    Examples
    --------
    >>> pass_at_k([64, 64, 64], [0, 1, 33], 32).tolist()
    [0.0, 0.5, 1.0]
    """
    k = require.integers("k", k, minimum=1)
    n = require.integers("num_samples", num_samples, minimum=1)
    c = require.integers("num_correct", num_correct)
    n, c, k = require.broadcast(num_samples=n, num_correct=c, k=k)
    require.at_most(k=k, num_samples=n)
    require.at_most(num_correct=c, num_samples=n)
    certain = n - c < k
    num_factors = np.where(certain, 0, np.minimum(c, k))
    larger = np.maximum(c, k)
    log_miss = np.zeros(n.shape)
    for j in range(num_factors.max(initial=0)):
        # Below -40 the answer is 1 to the last bit, so at most about sqrt(40 n) factors are ever needed.
        rows = (j < num_factors) & (log_miss > -40.0)
        if not rows.any():
            break
        log_miss[rows] += np.log1p(-larger[rows] / (n[rows] - j))
    return np.where(certain, 1.0, 0.0 - np.expm1(log_miss))


def exact_pass_at_k(p: ArrayLike, k: ArrayLike) -> FloatArray:
    """Probability that at least one of k independent samples is correct.

    1 - (1 - p)^k = -expm1(k log1p(-p)), which keeps its relative precision for tiny p.

    Parameters
    ----------
    p, k : Success probability in [0, 1], and integers >= 1, [...]; both broadcast.

    Returns
    -------
    FloatArray : float64, [...], in [0, 1].

    Examples
    --------
    >>> exact_pass_at_k([0.0, 0.5, 1.0], 2).tolist()
    [0.0, 0.75, 1.0]
    >>> exact_pass_at_k(1e-20, 4).tolist()
    4e-20
    """
    p = require.numbers("p", p, low=0.0, high=1.0)
    k = require.integers("k", k, minimum=1)
    p, k = require.broadcast(p=p, k=k)
    return np.asarray(0.0 - np.expm1(xlog1py(k, -p)))
