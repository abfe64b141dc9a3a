"""Which tokens a policy loss counts or singles out: forking tokens and tokens of high covariance.

A choice of "the top K tokens" depends on the tokens it is made over. The public codes make it inside one micro-batch on
one GPU, so that packing decides: of 8192 tokens at a ratio of 2e-4, one micro-batch takes 1 and eight take 8; and where
a micro-batch holds a single response, whose advantage is constant, every covariance is 0. Here the scope is the
caller's: each function chooses over everything it is given and returns a boolean mask. Call it once over the
(mini-)batch and let the mask travel with the tokens; then packing, order and padding change nothing (ties apart, which
go to the lower index). Nothing here carries a gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import array_api_compat

from theory.base import require
from theory.base.arrays import Array, stop_gradient


@dataclass(frozen=True)
class ForkTokens:
    """Configuration of `fork_tokens`: only the `ratio` of tokens with the highest entropy counts."""

    ratio: float = 0.2

    def __post_init__(self) -> None:
        require.in_range("ratio", self.ratio, 0.0, 1.0)


class Selection(NamedTuple):
    """Choice of tokens made over a whole scope; both fields are boolean, [..., T].

    Attributes
    ----------
    counted
        The tokens that count in the loss: the mask, or its forking tokens.
    targeted
        The counted tokens that Clip-Cov takes out and KL-Cov penalises; empty for the clipped surrogate.
    """

    counted: Array
    targeted: Array


@dataclass(frozen=True)
class CovarianceScope:
    """Means over the tokens that a covariance is taken over; scopes of parts merge into the scope of the whole.

    Attributes
    ----------
    advantage_mean
        Mean advantage over the valid tokens; 0 without tokens.
    log_prob_mean
        Mean log pi_theta of the sampled tokens over the valid tokens, in nats; 0 without tokens.
    num_tokens
        Number of valid tokens.
    """

    advantage_mean: float
    log_prob_mean: float
    num_tokens: int

    def __post_init__(self) -> None:
        require.in_range("advantage_mean", self.advantage_mean)
        require.in_range("log_prob_mean", self.log_prob_mean)
        require.count("num_tokens", self.num_tokens)

    @classmethod
    def of(cls, log_prob: Array, advantages: Array, mask: Array) -> CovarianceScope:
        """Return the scope of the tokens given.

        Sums run in float64 whatever the dtype, so that merged parts agree with the whole.

        Parameters
        ----------
        log_prob
            log pi_theta of the sampled tokens, floating, [..., T].
        advantages
            A, floating, [..., T].
        mask
            Valid tokens, boolean, [..., T].

        Raises
        ------
        ValueError
            If shapes differ, `mask` is not boolean, or an array is not finite or near overflow.

        Examples
        --------
        >>> import numpy as np
        >>> CovarianceScope.of(np.array([-1.0, -3.0, -9.0]), np.array([1.0, 0.0, 5.0]), np.array([True, True, False]))
        CovarianceScope(advantage_mean=0.5, log_prob_mean=-2.0, num_tokens=2)
        """
        xp = _check(mask, log_prob=log_prob, advantages=advantages)
        num_tokens = _num_tokens(xp, mask)
        advantage_mean, log_prob_mean = (
            float(xp.sum(xp.where(mask, stop_gradient(x), 0.0), dtype=xp.float64)) / max(num_tokens, 1)
            for x in (advantages, log_prob)
        )
        return cls(advantage_mean, log_prob_mean, num_tokens)

    def merge(self, other: CovarianceScope) -> CovarianceScope:
        """Return the scope of both parts together.

        Parameters
        ----------
        other
            The scope of other tokens: another micro-batch or rank.

        Raises
        ------
        ValueError
            If `other` is not a `CovarianceScope`.

        Examples
        --------
        >>> CovarianceScope(1.0, -2.0, 3).merge(CovarianceScope(5.0, -6.0, 1))
        CovarianceScope(advantage_mean=2.0, log_prob_mean=-3.0, num_tokens=4)
        """
        if not isinstance(other, CovarianceScope):
            raise ValueError(f"other: expected a CovarianceScope, got {type(other).__name__}")
        num_tokens = self.num_tokens + other.num_tokens
        share = self.num_tokens / max(num_tokens, 1)
        rest = other.num_tokens / max(num_tokens, 1)
        return CovarianceScope(
            share * self.advantage_mean + rest * other.advantage_mean,
            share * self.log_prob_mean + rest * other.log_prob_mean,
            num_tokens,
        )


def covariance(log_prob: Array, advantages: Array, mask: Array, scope: CovarianceScope | None = None) -> Array:
    """Contribution of every token to the covariance of advantage and log-probability (arXiv 2505.22617).

    Cov_t = (A_t - mean A) (log pi_theta(y_t) - mean log pi_theta), divided by nothing; the means run over `scope`.

    Parameters
    ----------
    log_prob
        log pi_theta of the sampled tokens, floating, [..., T].
    advantages
        A, floating, [..., T].
    mask
        Valid tokens, boolean, [..., T].
    scope
        The means to centre with; by default those of the valid tokens given. Give the batch's for a part of it: over a
        single response GRPO's advantage is constant and every covariance is 0.

    Returns
    -------
    Array
        Cov_t, [..., T], without gradient, 0 outside the mask.

    Raises
    ------
    ValueError
        If shapes differ, `mask` is not boolean, or an array or the scope is not finite or near overflow.

    Examples
    --------
    >>> import numpy as np
    >>> covariance(np.array([-1.0, -3.0]), np.array([2.0, -2.0]), np.array([True, True])).tolist()
    [2.0, 2.0]
    """
    xp = _check(mask, log_prob=log_prob, advantages=advantages)
    if scope is None:
        scope = CovarianceScope.of(log_prob, advantages, mask)
    limit = float(min(xp.finfo(x.dtype).max for x in (log_prob, advantages))) ** 0.5 / 4
    require.in_range("scope.advantage_mean", scope.advantage_mean, -limit, limit)
    require.in_range("scope.log_prob_mean", scope.log_prob_mean, -limit, limit)
    product = (stop_gradient(advantages) - scope.advantage_mean) * (stop_gradient(log_prob) - scope.log_prob_mean)
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
    covariances
        `covariance` of every token, floating, [..., T].
    mask
        Valid tokens, boolean, [..., T].
    uniforms
        Independent uniform random numbers in [0, 1], floating, [..., T].
    ratio
        Fraction (not percent) of all valid tokens to take, in [0, 1].
    low, high
        The band of covariances, both ends excluded, low < high.
    excluded
        Tokens that are no candidates, boolean, [..., T]: those the PPO clip already stops. They count in N.

    Returns
    -------
    Array
        Boolean, [..., T]; ties among the uniforms go to the lower index; empty without candidates.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, `uniforms` leaves [0, 1], or a number is out of range.

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
    if not bool(xp.all((uniforms >= 0) & (uniforms <= 1))):
        raise ValueError("uniforms: expected values in [0, 1], got values outside")
    candidates = mask & (covariances > low) & (covariances < high)
    if excluded is not None:
        require.namespace(covariances=covariances, excluded=excluded)
        require.boolean(xp, excluded=excluded)
        require.same_shape(covariances=covariances, excluded=excluded)
        candidates = candidates & ~excluded
    quota = max(math.floor(_share(ratio, _num_tokens(xp, mask))), 1)
    return _largest(xp, -uniforms, candidates, quota)


def kl_cov_tokens(covariances: Array, mask: Array, *, ratio: float = 2e-3) -> Array:
    """Tokens that KL-Cov penalises (arXiv 2505.22617).

    The K = max(floor(ratio N), 1) valid tokens of largest signed covariance, for N valid tokens.

    Parameters
    ----------
    covariances
        `covariance` of every token, floating, [..., T].
    mask
        Valid tokens, boolean, [..., T].
    ratio
        Fraction of the valid tokens, in [0, 1]. The authors' first code takes percent: its 0.2 is 2e-3 here.

    Returns
    -------
    Array
        Boolean, [..., T]; ties go to the lower index; empty without valid tokens.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, or `ratio` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> kl_cov_tokens(np.array([0.5, -9.0, 2.0]), np.array([True, True, True])).tolist()
    [False, False, True]
    """
    xp = _check(mask, covariances=covariances)
    require.in_range("ratio", ratio, 0.0, 1.0)
    return _largest(xp, covariances, mask, max(math.floor(_share(ratio, _num_tokens(xp, mask))), 1))


def fork_tokens(entropy: Array, mask: Array, *, ratio: float = 0.2) -> Array:
    """Forking tokens: those of the highest entropy (arXiv 2506.01939, eq. 6).

    The K = max(ceil(ratio N), 1) valid tokens of largest H, for N valid tokens. The loss counts these tokens only, in
    its denominator too.

    Parameters
    ----------
    entropy
        H of the current policy at every token, in nats, floating, [..., T].
    mask
        Valid tokens, boolean, [..., T].
    ratio
        Fraction of the valid tokens, in [0, 1]; 1 keeps all.

    Returns
    -------
    Array
        Boolean, [..., T]; ties go to the lower index; empty without valid tokens.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, or `ratio` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> fork_tokens(np.array([0.1, 0.7, 0.0, 0.3, 9.9]), np.array([True, True, True, True, False]), ratio=0.5).tolist()
    [False, True, False, True, False]
    """
    xp = _check(mask, entropy=entropy)
    require.in_range("ratio", ratio, 0.0, 1.0)
    return _largest(xp, entropy, mask, max(math.ceil(_share(ratio, _num_tokens(xp, mask))), 1))


def _check(mask: Array, **arrays: Array) -> Any:
    xp = require.namespace(**arrays, mask=mask)
    require.squarable(xp, **arrays)
    require.boolean(xp, mask=mask)
    require.same_shape(**arrays, mask=mask)
    return xp


def _num_tokens(xp: Any, mask: Array) -> int:
    return int(xp.sum(xp.astype(mask, xp.int64)))


def _share(ratio: float, num_tokens: int) -> Fraction:
    """Return ratio * num_tokens with the ratio as it is written: 0.07 of 100 is 7; in floats, more."""
    return Fraction(repr(float(ratio))) * num_tokens


def _largest(xp: Any, scores: Array, eligible: Array, count: int) -> Array:
    """Mark the `count` eligible tokens (or all, if fewer) of the largest scores; ties go to the lower index."""
    flat = xp.reshape(xp.where(eligible, stop_gradient(scores), -xp.inf), (-1,))
    order = xp.argsort(flat, descending=True, stable=True)
    chosen = xp.zeros(flat.shape[0], dtype=xp.bool, device=array_api_compat.device(flat))
    chosen[order[:count]] = True
    return xp.reshape(chosen, scores.shape) & eligible
