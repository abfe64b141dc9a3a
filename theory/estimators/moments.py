"""Exact moments of the gradient of a group of fixed size: mean, covariance, error and implied weight.

The number of correct rollouts is k ~ Binomial(n, p); notation, derivation and conventions are those of
`theory.estimators.group_gradient`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.base import require
from theory.base.arrays import FloatArray
from theory.estimators.group_gradient import (
    ESTIMATORS,
    Coefficients,
    Moments,
    advantages_by_kind,
    answer_variance,
    coefficients,
    condition,
    log_binomial,
)


def group_advantages(num_correct: ArrayLike, num_rollouts: ArrayLike, estimator: str) -> tuple[FloatArray, FloatArray]:
    """Advantages that a group gives to its correct and to its wrong rollouts, for rewards in {0, 1}.

    reinforce: R; rloo: n (R - k/n) / (n-1); dr_grpo: R - k/n; grpo: (R - k/n) / sqrt(k (n-k) / n^2);
    grpo_sample: (R - k/n) / sqrt(k (n-k) / (n (n-1))); maxrl (2602.02710): (R - k/n) / (k/n).

    Parameters
    ----------
    num_correct, num_rollouts, estimator : k in [0, n] and n >= 1, integers, [...], which broadcast; one of
        `ESTIMATORS`.

    Returns
    -------
    tuple[FloatArray, FloatArray] : A_C and A_W, [...]; 0 for a kind that the group lacks.

    Examples
    --------
    >>> [a.tolist() for a in group_advantages([0, 1, 4], 4, "maxrl")]
    [[0.0, 3.0, 0.0], [0.0, -1.0, 0.0]]
    """
    require.one_of("estimator", estimator, ESTIMATORS)
    n = require.integers("num_rollouts", num_rollouts, minimum=1)
    k = require.integers("num_correct", num_correct)
    k, n = require.broadcast(num_correct=k, num_rollouts=n)
    require.at_most(num_correct=k, num_rollouts=n)
    return advantages_by_kind(k.astype(np.float64), n.astype(np.float64), estimator)


def group_coefficients(p: ArrayLike, n: ArrayLike, estimator: str = "grpo") -> Coefficients:
    """Scalar core of the moments of groups of fixed size, which does not depend on the answers.

    Sums over k ~ Binomial(n, p); see `Coefficients`.

    Parameters
    ----------
    p, n : Success probability in [0, 1] and group size >= 1 (integers), [...]; both broadcast, so that `p[:, None]` and
        `np.arange(1, 25)` give a table.
    estimator : One of `ESTIMATORS`.

    Returns
    -------
    Coefficients : Five arrays [...]. Time and memory are O(n) per element.

    Examples
    --------
    >>> round(float(group_coefficients(0.5, 4, "dr_grpo").weight), 4)
    0.75
    >>> group_coefficients(0.5, [1, 2, 24]).weight.round(2).tolist()
    [0.0, 1.0, 1.96]
    """
    p = require.numbers("p", p, low=0.0, high=1.0)
    return _fixed_coefficients(p, 1 - p, n, estimator)


def implied_weight(p: ArrayLike, n: ArrayLike, estimator: str = "grpo") -> FloatArray:
    """Weight w(p, n) that the estimator gives to a prompt's own gradient: E[g] = w grad J.

    reinforce, rloo (n >= 2): 1; dr_grpo: (n-1)/n; maxrl: (1 - q^(n-1)) / p, which makes E[g] the gradient of
    -sum_{j < n} q^j / j, the truncated log-likelihood (2602.02710); grpo: tends to 1 / sqrt(p q). If group sizes
    differ between prompts, so do the weights. Arguments as in `group_coefficients`.

    Returns
    -------
    FloatArray : w, [...]; at p = 0 and p = 1 its finite limit.

    Examples
    --------
    >>> implied_weight([0.0, 0.05, 0.5], 4).round(2).tolist()
    [1.73, 1.71, 1.62]
    """
    return group_coefficients(p, n, estimator).weight


def gradient_moments(probs: ArrayLike, correct: ArrayLike, n: ArrayLike, estimator: str = "grpo") -> Moments:
    """Exact moments of the gradient of a group of fixed size.

    E[g] = w grad J; Cov[g] = E[k A_C^2] / n^2 Sigma_C + E[(n-k) A_W^2] / n^2 Sigma_W + Var(c) d d^T.

    Parameters
    ----------
    probs, correct : Probabilities pi of the answers, and which of them are correct (booleans), both [..., K]. pi sums
        to one within 1e-6; the sum is divided out.
    n : Group size >= 1, integers that broadcast with [...].
    estimator : One of `ESTIMATORS`.

    Returns
    -------
    Moments : At p = 0 and p = 1 grad J, the mean and (except for `reinforce` at p = 1) the covariance are 0.

    Examples
    --------
    >>> moments = gradient_moments([0.5, 0.5], [True, False], 16, "rloo")
    >>> moments.mean.round(4).tolist(), round(float(moments.variance), 5)
    ([0.25, -0.25], 0.00104)
    """
    policy = condition(probs, correct)
    return Moments(policy, _fixed_coefficients(policy.p, policy.q, n, estimator))


def expected_progress(probs: ArrayLike, correct: ArrayLike, n_max: int, estimator: str = "grpo") -> FloatArray:
    """Return the expected first-order improvement of J by a group of each size, as a table for oracle allocation.

    E<g, grad J> = w(p, n) |grad J|^2, for a unit learning rate. It is flat in n for an unbiased estimator: more
    rollouts then only lower the variance.

    Parameters
    ----------
    probs, correct, estimator : As in `gradient_moments`.
    n_max : Largest group size, at least 1.

    Returns
    -------
    FloatArray : [..., n_max + 1]; column n is for a group of n, column 0 is 0.

    Examples
    --------
    >>> expected_progress([0.5, 0.5], [True, False], 4, "dr_grpo").round(4).tolist()
    [0.0, 0.0, 0.0625, 0.0833, 0.0938]
    """
    sizes = np.arange(1, require.count("n_max", n_max, 1) + 1)
    policy = condition(probs, correct)
    weight = _fixed_coefficients(policy.p[..., None], policy.q[..., None], sizes, estimator).weight
    progress = weight * policy.gradient_squared[..., None]
    return np.concatenate([np.zeros((*progress.shape[:-1], 1)), progress], axis=-1)


def single_rollout_variance(probs: ArrayLike, correct: ArrayLike, baseline: ArrayLike | None = None) -> FloatArray:
    """Trace variance of one rollout's (R - b) s(a): the sigma^2 that the allocation theorem needs.

    p (1-b)^2 v_C + q b^2 v_W + p q (q - b)^2 |d|^2, with v = 1 - |pi_C|^2 or 1 - |pi_W|^2. The mean of n rollouts has
    variance sigma^2 / n. For b = p it is p q only where answers are many and diffuse (v near 1, |d| near 0).

    Parameters
    ----------
    probs, correct : As in `gradient_moments`.
    baseline : b in [-1e100, 1e100], broadcasts with [...]; None means the exact p.

    Returns
    -------
    FloatArray : sigma^2, [...].

    Examples
    --------
    >>> single_rollout_variance([[0.5, 0.5], [0.9, 0.1]], [[True, False]] * 2).round(4).tolist()
    [0.0, 0.1152]
    """
    policy = condition(probs, correct)
    p, q = policy.p, policy.q
    # With b = p, 1 - b is q, also where q is tiny.
    b, miss = p, q
    if baseline is not None:
        _, b = require.broadcast(p=p, baseline=require.numbers("baseline", baseline, low=-1e100, high=1e100))
        miss = 1 - b
    return np.asarray(
        p * miss**2 * answer_variance(policy.correct)
        + q * b**2 * answer_variance(policy.wrong)
        + p * q * (q - b) ** 2 * policy.distance_squared
    )


def _fixed_coefficients(p: FloatArray, q: FloatArray, n: ArrayLike, estimator: str) -> Coefficients:
    require.one_of("estimator", estimator, ESTIMATORS)
    sizes = require.integers("n", n, minimum=1)
    p, sizes = require.broadcast(p=p, n=sizes)
    q = np.broadcast_to(q, p.shape)
    fields = np.empty((len(Coefficients._fields), *p.shape))
    for size in np.unique(sizes):
        rows = sizes == size
        k = np.arange(size + 1.0)
        fields[:, rows] = coefficients(p[rows], q[rows], np.full_like(k, size), k, log_binomial(size), estimator)
    return Coefficients(*fields)
