"""Expected first-order progress of a prompt whose success rate is only estimated.

To first order and for a unit learning rate, a group of n rollouts moves the objective f(J) of its prompt by
f'(J) E<g, grad J> = f'(p) E[c] p q |d|^2, in the notation of `theory.estimators.group_gradient`. The length of d is a
property of the answers; the other factors depend on p and n. Under a Beta law of p, such as a posterior, their mean has
a closed form.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike

from theory.base import require
from theory.base.arrays import FloatArray
from theory.estimators.group_gradient import ESTIMATORS, advantages_by_kind, log_binomial

OBJECTIVES = ("success", "log")
"""f(J) = J, the success rate, or f(J) = log J, which counts a hard prompt 1/p times as much."""

CENTRED = tuple(name for name in ESTIMATORS if name != "reinforce")
"""Estimators whose advantages sum to zero in a group: for them c = k A_C / n, which does not involve p."""


def posterior_progress(
    a: ArrayLike, b: ArrayLike, n_max: int, estimator: str = "grpo", objective: str = "success"
) -> FloatArray:
    """Return the expected progress of a group of each size under p ~ Beta(a, b), per unit of |d|^2.

    E[f'(p) p q E[c | p]] = sum_k C(n, k) c_k B(a + k + 1 - s, b + n - k + 1) / B(a, b), c_k = k A_C(k, n) / n, with
    s = 0 for `success` (f' = 1) and s = 1 for `log` (f' = 1/p). Ours; for a point mass at p it is
    f'(p) `theory.estimators.expected_progress`.

    Parameters
    ----------
    a, b : Parameters of the law of p, in [1e-300, 1e300], [N]. A posterior has a = k + a_0, b = G - k + b_0.
    n_max : Largest group size, at least 1.
    estimator, objective : One of `CENTRED` and one of `OBJECTIVES`.

    Returns
    -------
    FloatArray : [N, n_max + 1], >= 0; columns 0 and 1 are 0, since a group of one has no advantage.

    Examples
    --------
    >>> posterior_progress([1.0], [1.0], 4, "dr_grpo").round(4).tolist()
    [[0.0, 0.0, 0.0167, 0.0222, 0.025]]
    """
    a = require.vector("a", a, low=1e-300, high=1e300)
    b = require.vector("b", b, low=1e-300, high=1e300)
    require.same_shape(a=a, b=b)
    n_max = require.count("n_max", n_max, 1)
    require.one_of("estimator", estimator, CENTRED)
    require.one_of("objective", objective, OBJECTIVES)
    s = OBJECTIVES.index(objective)
    # B(a + x, b + y) / B(a, b) = (a)_x (b)_y / (a + b)_(x + y) with rising factorials, which do not cancel however
    # large a and b are: each needs one running sum of logarithms per prompt.
    log_a, log_b, log_ab = (_log_rising(x, n_max + 2) for x in (a, b, a + b))
    table = np.zeros((len(a), n_max + 1))
    for n, (log_ways, c) in enumerate(_outcomes(n_max, estimator), start=2):
        log_mean = log_a[:, 2 - s : n + 1 - s] + log_b[:, n:1:-1] - log_ab[:, [n + 2 - s]]
        table[:, n] = (np.exp(log_ways + log_mean) * c).sum(axis=1)
    return table


@functools.lru_cache(maxsize=64)
def _outcomes(n_max: int, estimator: str) -> tuple[tuple[FloatArray, FloatArray], ...]:
    """Return log C(n, k) and c_k for k = 1, ..., n - 1, of every group size n = 2, ..., n_max."""
    outcomes = []
    for n in range(2, n_max + 1):
        k = np.arange(1, n, dtype=np.float64)
        advantage, _ = advantages_by_kind(k, np.full_like(k, n), estimator)
        outcomes.append((log_binomial(n)[1:-1], k * advantage / n))
    return tuple(outcomes)


def _log_rising(x: FloatArray, most: int) -> FloatArray:
    """Return log x (x + 1) ... (x + m - 1) for m = 0, ..., most; [N, most + 1]."""
    logs = np.log(x[:, None] + np.arange(most))
    return np.concatenate([np.zeros((len(x), 1)), np.cumsum(logs, axis=1)], axis=1)
