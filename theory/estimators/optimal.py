"""The centred group estimator of least variance.

The setting is that of `theory.estimators.group_gradient`, but a rollout may be any sequence of tokens. Its score S is
the gradient of the log-probability of the whole sequence. Let v_C and v_W be the trace variances of S given a right and
a wrong reward, and d = E[S | right] - E[S | wrong], so that grad J = p q d.

Advantages that depend on the rewards alone, and sum to 0 in every group, have the form A_j = s(k) (R_j - k/n). RLOO is
s = n / (n-1), GRPO is s = 1 / sqrt(X). With r = k/n and X = r (1-r), the gradient g of a group has, given k,

    E[g] = s X d
    E|g|^2 = s^2 Q, with Q = X D and D = ((1-r) v_C + r v_W) / n + X |d|^2.

So E[s X] = p q is the condition that g is unbiased, and by Lagrange's rule the s of least E[s^2 Q] under it is

    s(k) = p q / (D E[X/D]), E|g|^2 = (p q)^2 / E[X/D].

Ours. It holds for independent rollouts of one policy, a reward in {0, 1}, and one step with the whole group, unclipped.
Two limits: s = 1/X where each kind has one score (v_C = v_W = 0), and a constant, RLOO, where d is small and v_C = v_W.
Advantages that are not centred can do better: with b = p known, R - b does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.base import require
from theory.base.arrays import FloatArray
from theory.estimators.group_gradient import log_binomial, path_probability

ROUNDING = 1e-12
"""How far beyond its range a variance or a distance may lie by rounding; it counts as 0 below 0."""


def optimal_scale(
    p: ArrayLike, n: int, v_correct: ArrayLike, v_wrong: ArrayLike, distance_squared: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return the s(k) of least variance among unbiased advantages s(k) (R - k/n), and that variance.

    s(k) = p q / (D E[X/D]) for 0 < k < n, in the notation of the module. The variance is the trace of the covariance,
    E|g|^2 - |grad J|^2 = (p q)^2 (1 / E[X/D] - |d|^2). It needs the true p: with another p, s is biased.

    Parameters
    ----------
    p, n : Success probability in (0, 1), [...], and group size, an integer >= 2.
    v_correct, v_wrong : v_C and v_W in [0, 1], [...]. One token has v = 1 - sum of pi_C^2. If those of a sequence are
        larger, divide them and |d|^2 by one number: s stays the same, and the variance is divided by it as well.
    distance_squared : |d|^2 >= 0, [...]; 2 - v_C - v_W for one token. All four broadcast, and rounding errors below 0
        count as 0.

    Returns
    -------
    tuple[FloatArray, FloatArray] : s, [..., n + 1], with s(0) = s(n) = 0, and the variance, [...].

    Raises
    ------
    ValueError
        If v_C = v_W = |d|^2 = 0: every score is 0, and so is every estimator.

    Examples
    --------
    >>> s, variance = optimal_scale(0.5, 4, 0.0, 0.0, 2.0)
    >>> s.round(3).tolist(), round(float(variance), 4)
    ([0.0, 1.524, 1.143, 1.524, 0.0], 0.0179)
    >>> optimal_scale(0.5, 4, 1.0, 1.0, 0.0)[0].round(3).tolist()
    [0.0, 1.333, 1.333, 1.333, 0.0]
    """
    p = require.numbers("p", p, low=0.0, high=1.0)
    certain = (p == 0) | (p == 1)
    if certain.any():
        raise ValueError(f"p: expected values in (0, 1), got {p[certain][0]}")
    n = require.count("n", n, 2)
    v_c, v_w, d2, p = require.broadcast(
        v_correct=_at_least_0("v_correct", v_correct, 1.0),
        v_wrong=_at_least_0("v_wrong", v_wrong, 1.0),
        distance_squared=_at_least_0("distance_squared", distance_squared, np.inf),
        p=p,
    )
    unit = np.maximum(np.maximum(v_c, v_w), d2)
    if (unit == 0).any():
        raise ValueError("v_correct, v_wrong, distance_squared: expected one above 0, got 0, 0 and 0")
    # In units of the largest one, nothing below can overflow, and D lies within a factor of n^2.
    v_c, v_w, d2 = ((x / unit)[..., None] for x in (v_c, v_w, d2))
    p = p[..., None]
    q = 1 - p
    k = np.arange(1, n, dtype=np.float64)
    r = k / n
    noise = ((1 - r) * v_c + r * v_w) / n
    signal = r * (1 - r) * d2
    total = noise + signal
    ways = log_binomial(n)[1:-1]
    # E[X/D] / (p q), with one factor p and one factor q taken out: s stays precise where p is tiny.
    mean = (path_probability(ways, k - 1, n - k - 1, p, q) * (r * (1 - r) / total)).sum(axis=-1, keepdims=True)
    s = np.zeros((*unit.shape, n + 1))
    s[..., 1:-1] = 1 / (total * mean)
    # 1 - |d|^2 E[X/D], as a sum of terms >= 0.
    lost = p**n + q**n + (path_probability(ways, k, n - k, p, q) * (noise / total)).sum(axis=-1, keepdims=True)
    return s, (p * q * lost / mean)[..., 0] * unit


def _at_least_0(name: str, value: ArrayLike, high: float) -> FloatArray:
    # 1 - sum of pi_C^2 of one answer may come out as -1e-16.
    return np.asarray(np.maximum(require.numbers(name, value, low=-ROUNDING, high=high + ROUNDING), 0.0))
