"""Per-token policy losses of the methods that the paper compares, each from its original source.

Notation: A the advantage of a token (a constant for the gradient), log pi_theta and log pi_old its log-probabilities,
r = pi_theta / pi_old. Losses are to be minimised. Here are the formulas. `theory.losses.configured` has them as parts
of a method, and `theory.losses.aggregation` turns the tokens' losses into one number.

All functions accept NumPy arrays and torch tensors and keep the dtype; on torch they are differentiable in
log pi_theta. Padding must hold finite numbers; log-probabilities and advantages there change nothing.
"""

from __future__ import annotations

import math
from typing import Any

from theory.base import require
from theory.base.arrays import Array, clip, stop_gradient
from theory.losses.checks import check_clip, check_tokens, largest_coefficient
from theory.losses.protocol import TokenLoss

LOG_RATIO_CLAMP = 20.0
"""Bound on |log r| in the clipped surrogate."""


def clipped_surrogate(
    log_prob: Array,
    old_log_prob: Array,
    advantages: Array,
    mask: Array,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> TokenLoss:
    """Clipped policy loss of GRPO (arXiv 2402.03300; asymmetric 2503.14476; dual clip 1912.09729).

        l = max( -A r, -A clip(r, 1 - clip_low, 1 + clip_high) ),  and for A < 0 at most -A dual_clip,

    with log r = clamp(log pi_theta - log pi_old, -20, 20).

    Parameters
    ----------
    log_prob, old_log_prob : log pi_theta and log pi_old of the sampled tokens, floating, [..., T].
    advantages : A, floating, [..., T].
    mask : Tokens that count, boolean, [..., T].
    clip_low, clip_high : Clip range, clip_low in [0, 1], clip_high in [0, 1e9].
    dual_clip : Bound on the ratio of tokens with A < 0, > 1; None for none.

    Returns
    -------
    TokenLoss : A token on the edge of the clip range still has its gradient; one with A = 0 has none and is not
        `clipped`.

    Examples
    --------
    >>> import numpy as np
    >>> ratio, advantages = np.array([1.1, 2.0, 2.0]), np.array([1.0, 1.0, -1.0])
    >>> loss = clipped_surrogate(np.log(ratio / 4), np.log(np.full(3, 0.25)), advantages, np.full(3, True))
    >>> loss.values.round(2).tolist(), loss.clipped.tolist()
    ([-1.1, -1.2, 2.0], [False, True, False])
    """
    xp = check_tokens(log_prob, old_log_prob, advantages, mask=mask)
    check_clip(clip_low, clip_high, dual_clip)
    log_ratio = _log_ratio(xp, log_prob, old_log_prob, mask)
    ratio = _exp(xp, clip(log_ratio, -LOG_RATIO_CLAMP, LOG_RATIO_CLAMP))
    clipped_ratio, clipped = _clip(xp, ratio, advantages, clip_low, clip_high)
    if dual_clip is not None:
        too_high = (advantages < 0) & (ratio > dual_clip)
        clipped_ratio = xp.where(too_high, dual_clip, clipped_ratio)
        clipped = clipped | too_high
    clipped = clipped | ((xp.abs(log_ratio) > LOG_RATIO_CLAMP) & (advantages != 0))
    return _token_loss(xp, -stop_gradient(advantages) * clipped_ratio, mask, clipped)


def clip_cov(
    log_prob: Array,
    old_log_prob: Array,
    advantages: Array,
    mask: Array,
    targeted: Array,
    *,
    clip_low: float = 1.0,
    clip_high: float = 1.0,
) -> TokenLoss:
    """Clip-Cov: tokens singled out for their covariance are taken out of the update (arXiv 2505.22617).

        l = max( -A r, -A clip(r, 1 - clip_low, 1 + clip_high) ) * 1[not targeted]

    The tokens taken out stay in the denominator. The clip only stops extreme tokens; r has no clamp.

    Parameters
    ----------
    log_prob, old_log_prob, advantages, mask : As in `clipped_surrogate`.
    targeted : The tokens taken out (`clip_cov_tokens`), boolean, [..., T].
    clip_low, clip_high : Clip range, clip_low in [0, 1], clip_high >= 0.

    Returns
    -------
    TokenLoss : `clipped` holds the tokens that the clip range stops and the tokens taken out.

    Examples
    --------
    >>> import numpy as np
    >>> log_prob, every = np.log(np.array([0.5, 0.1])), np.array([True, True])
    >>> clip_cov(log_prob, log_prob, np.array([1.0, -1.0]), every, np.array([False, True])).values.tolist()
    [-1.0, 0.0]
    """
    xp = check_tokens(log_prob, old_log_prob, advantages, mask=mask, targeted=targeted)
    check_clip(clip_low, clip_high)
    ratio = _exp(xp, _log_ratio(xp, log_prob, old_log_prob, mask))
    ratio, clipped = _clip(xp, ratio, advantages, clip_low, clip_high)
    values = -stop_gradient(advantages) * ratio
    return _token_loss(xp, xp.where(targeted, 0.0, values), mask, clipped | targeted)


def kl_cov(
    log_prob: Array,
    old_log_prob: Array,
    advantages: Array,
    mask: Array,
    targeted: Array,
    *,
    coefficient: float = 1.0,
) -> TokenLoss:
    """KL-Cov: tokens singled out for their covariance pay for leaving the old policy (arXiv 2505.22617).

        l = -A r + beta |log pi_theta - log pi_old| * 1[targeted]

    There is no clip of any kind. On-policy (r = 1) the penalty and its gradient are 0.

    Parameters
    ----------
    log_prob, old_log_prob, advantages, mask : As in `clipped_surrogate`.
    targeted : The tokens penalised (`kl_cov_tokens`), boolean, [..., T].
    coefficient : beta >= 0.

    Returns
    -------
    TokenLoss : `clipped` is empty.

    Examples
    --------
    >>> import numpy as np
    >>> new, old = np.log(np.array([0.2, 0.2])), np.log(np.array([0.1, 0.1]))
    >>> every = np.array([True, True])
    >>> kl_cov(new, old, np.array([1.0, 1.0]), every, np.array([False, True])).values.round(4).tolist()
    [-2.0, -1.3069]
    """
    xp = check_tokens(log_prob, old_log_prob, advantages, mask=mask, targeted=targeted)
    require.in_range("coefficient", coefficient, 0.0, largest_coefficient(xp, log_prob))
    log_ratio = _log_ratio(xp, log_prob, old_log_prob, mask)
    values = -stop_gradient(advantages) * _exp(xp, log_ratio)
    values = values + xp.where(targeted, coefficient * xp.abs(log_ratio), 0.0)
    return _token_loss(xp, values, mask, xp.zeros_like(mask))


def _log_ratio(xp: Any, log_prob: Array, old_log_prob: Array, mask: Array) -> Array:
    return xp.where(mask, log_prob - stop_gradient(old_log_prob), 0.0)


def _exp(xp: Any, log_ratio: Array) -> Array:
    limit = math.log(float(xp.finfo(log_ratio.dtype).max)) / 2
    require.values("log_prob", log_ratio, f"at most old_log_prob + {limit:.3g}", lambda x: x <= limit)
    return xp.exp(log_ratio)


def _clip(xp: Any, ratio: Array, advantages: Array, clip_low: float, clip_high: float) -> tuple[Array, Array]:
    """Return the ratio that PPO's maximum picks, and where it is the clipped one, a constant."""
    clipped = ((advantages > 0) & (ratio > 1 + clip_high)) | ((advantages < 0) & (ratio < 1 - clip_low))
    return xp.where(clipped, stop_gradient(clip(ratio, 1 - clip_low, 1 + clip_high)), ratio), clipped


def _token_loss(xp: Any, values: Array, mask: Array, clipped: Array) -> TokenLoss:
    return TokenLoss(xp.where(mask, values, 0.0), mask, clipped & mask)
