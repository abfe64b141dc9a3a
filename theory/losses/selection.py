"""Which tokens a policy loss counts or singles out: forking tokens and tokens of high covariance.

A choice of "the top K tokens" depends on the tokens it is made over. The public codes make it inside one micro-batch on
one GPU, so that packing decides: of 8192 tokens at a ratio of 2e-4, one micro-batch takes 1 and eight take 8; and where
a micro-batch holds a single response, whose advantage is constant, every covariance is 0. Here the scope is the
caller's: each function chooses over everything it is given and returns a boolean mask. Call it once over the
(mini-)batch and let the mask travel with the tokens; then packing, order and padding change nothing (ties apart, which
go to the lower index). Nothing here carries a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import array_api_compat

from theory.base import require
from theory.base.arrays import Array, clip, stop_gradient


@dataclass(frozen=True)
class ForkTokens:
    """Configuration of `fork_tokens`: only the `ratio` of tokens with the highest entropy counts."""

    ratio: float = 0.2

    def __post_init__(self) -> None:
        require.in_range("ratio", self.ratio, 0.0, 1.0)


def covariance(log_prob: Array, advantages: Array, mask: Array) -> Array:
    """Contribution of every token to the covariance of advantage and log-probability (arXiv 2505.22617).

    Cov_t = (A_t - mean A) (log pi_theta(y_t) - mean log pi_theta), divided by nothing. The means are those of the
    valid tokens, taken in float64. Over a single response GRPO's advantage is constant, and every covariance is 0.

    Parameters
    ----------
    log_prob : log pi_theta of the sampled tokens, floating, [..., T].
    advantages : A, floating, [..., T].
    mask : Valid tokens, boolean, [..., T].

    Returns
    -------
    Array : Cov_t, [..., T], without gradient, 0 outside the mask.

    Examples
    --------
    >>> import numpy as np
    >>> covariance(np.array([-1.0, -3.0]), np.array([2.0, -2.0]), np.array([True, True])).tolist()
    [2.0, 2.0]
    """
    xp = _check(mask, log_prob=log_prob, advantages=advantages)
    num_tokens = xp.astype(clip(_num_tokens(xp, mask), 1), xp.float64)

    def centred(x: Array) -> Array:
        mean = xp.sum(xp.where(mask, x, 0.0), dtype=xp.float64) / num_tokens
        return x - xp.astype(mean, x.dtype)

    product = centred(stop_gradient(advantages)) * centred(stop_gradient(log_prob))
    return xp.where(mask, product, 0.0)


def clip_cov_tokens(
    covariances: Array,
    mask: Array,
    uniforms: Array,
    *,
    ratio: float = 2e-4,
    low: float = 1.0,
    high: float = 5.0,
    excluded: Array | None = None,
) -> Array:
    """Tokens that Clip-Cov takes out of the update (arXiv 2505.22617).

    Of the candidates C = {t : low < Cov_t < high, t not excluded}, min(K, |C|) tokens drawn uniformly without
    replacement, K = max(floor(ratio N), 1) for N valid tokens. The draw is an argument: the smallest uniforms win.

    Parameters
    ----------
    covariances : `covariance` of every token, floating, [..., T].
    mask : Valid tokens, boolean, [..., T].
    uniforms : Independent uniform random numbers in [0, 1], floating, [..., T].
    ratio : Fraction (not percent) of all valid tokens to take, in [0, 1].
    low, high : The band of covariances, both ends excluded, low < high.
    excluded : Tokens that are no candidates, boolean, [..., T]: those the PPO clip already stops. They count in N.

    Returns
    -------
    Array : Boolean, [..., T]; ties among the uniforms go to the lower index; empty without candidates.

    Examples
    --------
    >>> import numpy as np
    >>> covariances = np.array([0.5, 1.0, 2.0, 3.0, 5.0])
    >>> clip_cov_tokens(covariances, covariances > 0, np.array([0.0, 0.0, 0.9, 0.8, 0.0])).tolist()
    [False, False, False, True, False]
    """
    xp = _check(mask, covariances=covariances, uniforms=uniforms)
    require.in_range("ratio", ratio, 0.0, 1.0)
    require.in_range("low", low)
    require.in_range("high", high, low, open_low=True)
    require.values("uniforms", uniforms, "values in [0, 1]", lambda x: (x >= 0) & (x <= 1))
    candidates = mask & (covariances > low) & (covariances < high)
    if excluded is not None:
        require.namespace(covariances=covariances, excluded=excluded)
        require.boolean(xp, excluded=excluded)
        require.same_shape(covariances=covariances, excluded=excluded)
        candidates = candidates & ~excluded
    return _largest(xp, -uniforms, candidates, _floor_share(ratio, _num_tokens(xp, mask)))


def kl_cov_tokens(covariances: Array, mask: Array, *, ratio: float = 2e-3) -> Array:
    """Tokens that KL-Cov penalises (arXiv 2505.22617).

    The K = max(floor(ratio N), 1) valid tokens of largest signed covariance, for N valid tokens.

    Parameters
    ----------
    covariances : `covariance` of every token, floating, [..., T].
    mask : Valid tokens, boolean, [..., T].
    ratio : Fraction of the valid tokens, in [0, 1]. The authors' first code takes percent: its 0.2 is 2e-3 here.

    Returns
    -------
    Array : Boolean, [..., T]; ties go to the lower index; empty without valid tokens.

    Examples
    --------
    >>> import numpy as np
    >>> kl_cov_tokens(np.array([0.5, -9.0, 2.0]), np.array([True, True, True])).tolist()
    [False, False, True]
    """
    xp = _check(mask, covariances=covariances)
    require.in_range("ratio", ratio, 0.0, 1.0)
    return _largest(xp, covariances, mask, _floor_share(ratio, _num_tokens(xp, mask)))


def fork_tokens(entropy: Array, mask: Array, *, ratio: float = 0.2) -> Array:
    """Forking tokens: those of the highest entropy (arXiv 2506.01939, eq. 6).

    The K = max(ceil(ratio N), 1) valid tokens of largest H, for N valid tokens. The loss counts these tokens only, in
    its denominator too.

    Parameters
    ----------
    entropy : H of the current policy at every token, in nats, floating, [..., T].
    mask : Valid tokens, boolean, [..., T].
    ratio : Fraction of the valid tokens, in [0, 1]; 1 keeps all.

    Returns
    -------
    Array : Boolean, [..., T]; ties go to the lower index; empty without valid tokens.

    Examples
    --------
    >>> import numpy as np
    >>> fork_tokens(np.array([0.1, 0.7, 0.0, 0.3, 9.9]), np.array([True, True, True, True, False]), ratio=0.5).tolist()
    [False, True, False, True, False]
    """
    xp = _check(mask, entropy=entropy)
    require.in_range("ratio", ratio, 0.0, 1.0)
    return _largest(xp, entropy, mask, -_floor_share(ratio, -_num_tokens(xp, mask)))


def _check(mask: Array, **arrays: Array) -> Any:
    xp = require.namespace(**arrays, mask=mask)
    require.squarable(xp, **arrays)
    require.boolean(xp, mask=mask)
    require.same_shape(**arrays, mask=mask)
    return xp


def _num_tokens(xp: Any, mask: Array) -> Array:
    return xp.sum(xp.astype(mask, xp.int64))


def _floor_share(ratio: float, num_tokens: Array) -> Array:
    """Return floor(ratio * num_tokens) with the ratio as it is written: 0.07 of 100 is 7; in floats, more.

    In whole numbers of 64 bits, exact for ratios of up to nine digits and up to 2^31 tokens.
    """
    exact = Fraction(repr(float(ratio))).limit_denominator(2**31)
    return num_tokens * exact.numerator // exact.denominator


def _largest(xp: Any, scores: Array, eligible: Array, count: Array) -> Array:
    """Mark the `count`, at least one, eligible tokens of largest score, or all if fewer; ties: the lower index."""
    flat = xp.reshape(xp.where(eligible, stop_gradient(scores), -xp.inf), (-1,))
    device = array_api_compat.device(flat)
    order = xp.argsort(flat, descending=True, stable=True)
    chosen = xp.zeros(flat.shape[0], dtype=xp.bool, device=device)
    chosen[order] = xp.arange(flat.shape[0], device=device) < clip(count, 1)
    return xp.reshape(chosen, scores.shape) & eligible
