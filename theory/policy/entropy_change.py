"""How one sampled action changes the entropy of its softmax policy (DynaMO, Appendix A).

An update with coefficient xi (24) at learning rate eta moves the logits by dz = eta xi (e_a - pi). Since
dH/dz(v) = -pi(v) Lambda(v), the entropy changes to first order by -eta xi (pi(a) Lambda(a) - E_pi[pi Lambda]):
`first_order`. `exact` gives the change itself, `first_order_sequence` the proxy of the authors' public code.
"""

from __future__ import annotations

import array_api_compat
import numpy as np

from theory.base import require
from theory.base.arrays import Array, clip
from theory.policy.softmax import TokenStatistics, log_softmax, pi_lambda, require_statistics, token_statistics


def update_coefficient(advantage: Array, ratio: Array, clip_low: float = 0.2, clip_high: float = 0.2) -> Array:
    """Update coefficient of a token in the clipped surrogate (24).

    xi = 1[not clipped] r A, not clipped where (A > 0 and r <= 1 + clip_high) or (A < 0 and r >= 1 - clip_low).

    Parameters
    ----------
    advantage, ratio : A and the importance ratio r = pi(a) / pi_old(a) >= 0 (1 on-policy), each [...], floating; either
        may be one number.
    clip_low, clip_high : Clip range, clip_low in [0, 1], clip_high >= 0. DynaMO and GRPO use 0.2 and 0.2, Clip-Higher
        0.2 and 0.28.

    Returns
    -------
    Array : xi, [...]; 0 where the token is clipped or A = 0. A ratio at a bound is not clipped.

    Examples
    --------
    >>> update_coefficient(np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.1, 1.3, 0.9, 0.7])).tolist()
    [1.1, 0.0, -0.9, 0.0]
    """
    advantage, ratio = require.alike(advantage=advantage, ratio=ratio)
    xp = require.namespace(advantage=advantage, ratio=ratio)
    require.finite(xp, advantage=advantage, ratio=ratio)
    require.same_shape(advantage=advantage, ratio=ratio)
    clip_low = require.in_range("clip_low", clip_low, 0.0, 1.0)
    clip_high = require.in_range("clip_high", clip_high, 0.0)
    require.values("ratio", ratio, "values >= 0", lambda x: x >= 0)
    active = ((advantage > 0) & (ratio <= 1 + clip_high)) | ((advantage < 0) & (ratio >= 1 - clip_low))
    with np.errstate(over="ignore"):
        product = ratio * advantage
    coefficient = xp.where(active, product, xp.zeros_like(product))
    require.representable(xp, coefficient=coefficient)
    return coefficient


def first_order(stats: TokenStatistics, coefficient: Array, learning_rate: float = 1.0) -> Array:
    """Entropy change of one update to first order in the learning rate (Theorem 1, eq. 27 and 29).

    dH = -eta xi (pi(a) Lambda(a) - E_pi[pi Lambda]), the expectation exact over the vocabulary. Averaged over an
    unclipped on-policy group of one state, where sum_j A_j = 0, the expectation cancels (28).

    Parameters
    ----------
    stats, coefficient : Token statistics and update coefficient xi, each [...]; or one xi for all tokens.
    learning_rate : eta >= 0, the step on the logits.

    Returns
    -------
    Array : dH, [...], in nats. In floating point its error is a few rounding units of eta |xi|.

    Examples
    --------
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1], [0.9, 0.1]])), np.array([0, 1]))
    >>> first_order(stats, np.array([1.0, 1.0])).round(4).tolist()
    [-0.0396, 0.356]
    """
    return _change(stats, coefficient, stats.mean_pi_lambda, learning_rate)


def first_order_sequence(stats: TokenStatistics, coefficient: Array, mask: Array, learning_rate: float = 1.0) -> Array:
    """Entropy change with the mean over the response in place of E_pi[pi Lambda], as in the authors' public code.

    dH_t = -eta xi_t (pi(a_t) Lambda(a_t) - mean_u pi(a_u) Lambda(a_u)), u over the valid tokens of the response.

    Parameters
    ----------
    stats, coefficient, learning_rate : As in `first_order`, the arrays [..., T].
    mask : True at valid tokens, [..., T], boolean. Values outside must be finite and have no effect.

    Returns
    -------
    Array : dH, [..., T], in nats; 0 outside the mask. A response of one token has dH = 0, whatever its policy.

    Examples
    --------
    >>> stats = token_statistics(np.log(np.array([[[0.9, 0.1], [0.5, 0.5]]])), np.array([[0, 0]]))
    >>> first_order_sequence(stats, np.ones((1, 2)), np.array([[True, True]])).round(4).tolist()
    [[-0.0989, 0.0989]]
    """
    xp = require.namespace(log_prob=stats.log_prob, mask=mask)
    require.boolean(xp, mask=mask)
    require.same_shape(log_prob=stats.log_prob, mask=mask)
    if mask.ndim < 1:
        raise ValueError("mask: expected shape [..., T], got ()")
    with np.errstate(over="ignore", invalid="ignore"):
        value = pi_lambda(stats)
        num_valid = xp.astype(clip(xp.sum(mask, axis=-1, keepdims=True, dtype=xp.int64), 1, None), value.dtype)
        mean = xp.sum(xp.where(mask, value, xp.zeros_like(value)), axis=-1, keepdims=True) / num_valid
    change = _change(stats, coefficient, mean, learning_rate)
    return xp.where(mask, change, xp.zeros_like(change))


def exact(logits: Array, actions: Array, coefficient: Array, learning_rate: float = 1.0) -> Array:
    """Entropy change of one update of the logits, exactly.

    dH = H(softmax(z + dz)) - H(softmax(z)), dz = eta xi (e_a - pi). With pi' the new policy this is
    -sum_v (pi'(v) - pi(v)) Lambda(v) - KL(pi' | pi), without a difference of entropies. This form, from
    log pi' - log pi without cancellation, serves |eta xi| <= 1. Larger steps take the difference of entropies.
    Arguments as in `token_statistics` and `first_order`.

    Returns
    -------
    Array : dH, [...], in nats. The error is a few rounding units of min(1, eta |xi|) log V, so it falls with the step:
        in float64 a change of 1e-12 from eta = 1e-12 keeps about 14 digits, where a difference of entropies keeps 4.

    Examples
    --------
    >>> logits = np.log(np.array([[0.9, 0.1]]))
    >>> exact(logits, np.array([1]), np.array([1.0]), learning_rate=0.01).round(6).tolist()
    [0.003571]
    """
    xp = require.namespace(logits=logits)
    stats = token_statistics(logits, actions)
    step = _step(stats, coefficient, learning_rate)[..., None]
    log_pi = log_softmax(logits)
    pi = xp.exp(log_pi)
    device = array_api_compat.device(logits)
    tokens, actions = xp.arange(logits.shape[-1], device=device), xp.asarray(actions, device=device)
    score = xp.astype(tokens == actions[..., None], logits.dtype) - pi

    change = clip(step, -1, 1) * score
    log_ratio = change - xp.log1p(xp.sum(pi * xp.expm1(change), axis=-1, keepdims=True))  # log pi' - log pi
    difference = pi * xp.expm1(log_ratio)
    kl = xp.sum(pi * xp.exp(log_ratio) * log_ratio - difference, axis=-1)
    near = -xp.sum(difference * (log_pi + stats.entropy[..., None]), axis=-1) - kl

    with np.errstate(over="ignore"):
        new_logits = log_pi + step * score
    require.representable(xp, coefficient=new_logits)
    far = token_statistics(new_logits, actions).entropy - stats.entropy
    return xp.where(xp.abs(step[..., 0]) <= 1, near, far)


def _step(stats: TokenStatistics, coefficient: Array, learning_rate: float) -> Array:
    """Return eta xi, checked against the statistics' shape."""
    coefficient, _ = require.alike(coefficient=coefficient, log_prob=stats.log_prob)
    xp = require.namespace(log_prob=stats.log_prob, coefficient=coefficient)
    require.finite(xp, coefficient=coefficient)
    require.same_shape(log_prob=stats.log_prob, coefficient=coefficient)
    with np.errstate(over="ignore"):
        step = require.in_range("learning_rate", learning_rate, 0.0) * coefficient
    require.representable(xp, coefficient=step)
    return step


def _change(stats: TokenStatistics, coefficient: Array, mean: Array, learning_rate: float) -> Array:
    """Return -eta xi (pi(a) Lambda(a) - mean)."""
    xp = require_statistics(stats)
    step = _step(stats, coefficient, learning_rate)
    with np.errstate(over="ignore", invalid="ignore"):
        change = -step * (pi_lambda(stats) - mean)
    require.representable(xp, coefficient=change)
    return change
