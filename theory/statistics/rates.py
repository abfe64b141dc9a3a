"""Intervals of success rates."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import betaincinv

from theory.base import require
from theory.base.arrays import FloatArray, distinct


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
