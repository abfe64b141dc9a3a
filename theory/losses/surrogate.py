"""Per-token policy losses of the methods that the paper compares, each from its original source.

Notation: A the advantage of a token (a constant for the gradient), log pi_theta and log pi_old its log-probabilities,
r = pi_theta / pi_old, H the entropy of pi_theta at the token, in nats. Losses are to be minimised. A loss is applied in
two steps, so that nothing depends on micro-batching: `select_tokens` over the scope in which tokens compete, without
gradient, then `policy_loss` on any part of it. `theory.losses.aggregation` turns the tokens' losses into one number.

All functions accept NumPy arrays and torch tensors and keep the dtype; on torch they are differentiable in log pi_theta
and H. Padding must hold finite numbers; log-probabilities and advantages there change nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from theory.base import require
from theory.base.arrays import Array, stop_gradient
from theory.losses.selection import CovarianceScope, clip_cov_tokens, covariance, fork_tokens, kl_cov_tokens
from theory.policy.softmax import TokenStatistics

LOG_RATIO_CLAMP = 20.0
"""Bound on |log r| in the clipped surrogate."""

LARGEST_CLIP = 1e9
"""Bound on clip ranges, above any ratio that the clamp lets through."""


@dataclass(frozen=True)
class ClippedSurrogate:
    """Configuration of `clipped_surrogate`; r stays in [1 - clip_low, 1 + clip_high], `dual_clip` None is none."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        _check_clip(self.clip_low, self.clip_high, self.dual_clip)


@dataclass(frozen=True)
class ClipCov:
    """Configuration of `clip_cov` and its selection: `ratio` of all tokens, drawn from the band of covariances."""

    ratio: float = 2e-4
    covariance_low: float = 1.0
    covariance_high: float = 5.0
    clip_low: float = 1.0
    clip_high: float = 1.0

    def __post_init__(self) -> None:
        require.in_range("ratio", self.ratio, 0.0, 1.0)
        require.in_range("covariance_low", self.covariance_low)
        require.in_range("covariance_high", self.covariance_high, self.covariance_low, open_low=True)
        _check_clip(self.clip_low, self.clip_high)


@dataclass(frozen=True)
class KlCov:
    """Configuration of `kl_cov` and its selection: `ratio` of all tokens (a fraction, not percent)."""

    ratio: float = 2e-3
    coefficient: float = 1.0

    def __post_init__(self) -> None:
        require.in_range("ratio", self.ratio, 0.0, 1.0)
        require.in_range("coefficient", self.coefficient, 0.0)


@dataclass(frozen=True)
class ForkTokens:
    """Configuration of `fork_tokens`: only the `ratio` of tokens with the highest entropy counts."""

    ratio: float = 0.2

    def __post_init__(self) -> None:
        require.in_range("ratio", self.ratio, 0.0, 1.0)


@dataclass(frozen=True)
class EntropyBonus:
    """Configuration of `entropy_bonus`."""

    coefficient: float = 1e-3

    def __post_init__(self) -> None:
        require.in_range("coefficient", self.coefficient, 0.0)


@dataclass(frozen=True)
class EntropyAdvantages:
    """Configuration of `entropy_advantages`."""

    alpha: float = 0.4
    kappa: float = 2.0

    def __post_init__(self) -> None:
        require.in_range("alpha", self.alpha, 0.0)
        require.in_range("kappa", self.kappa, 1.0, open_low=True)

    def shape(self, advantages: Array, stats: TokenStatistics) -> Array:
        """Return the shaped advantages (`entropy_advantages`).

        Parameters
        ----------
        advantages
            A, [..., T].
        stats
            Of the current policy, [..., T].

        Raises
        ------
        ValueError
            As `entropy_advantages`.

        Examples
        --------
        >>> import numpy as np
        >>> from theory.policy.softmax import token_statistics
        >>> stats = token_statistics(np.zeros((1, 8)), np.array([3]))
        >>> EntropyAdvantages().shape(np.array([1.0]), stats)
        array([1.5])
        """
        return entropy_advantages(advantages, stats.entropy, alpha=self.alpha, kappa=self.kappa)


Loss: TypeAlias = ClippedSurrogate | ClipCov | KlCov


class TokenLoss(NamedTuple):
    """Losses of tokens; all fields share one shape [..., T].

    Attributes
    ----------
    values
        Loss of every token, 0 outside the mask.
    mask
        Boolean: the tokens that count in the denominator of the aggregation.
    clipped
        Boolean: the counted tokens that a clip keeps from contributing a gradient.
    """

    values: Array
    mask: Array
    clipped: Array


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
    log_prob, old_log_prob
        log pi_theta and log pi_old of the sampled tokens, floating, [..., T].
    advantages
        A, floating, [..., T].
    mask
        Tokens that count, boolean, [..., T].
    clip_low, clip_high
        Clip range, clip_low in [0, 1], clip_high in [0, 1e9].
    dual_clip
        Bound on the ratio of tokens with A < 0, > 1; None for none.

    Returns
    -------
    TokenLoss
        A token on the edge of the clip range still has its gradient; one with A = 0 has none and is not `clipped`.

    Raises
    ------
    ValueError
        If shapes differ, `mask` is not boolean, an array is not finite or near overflow, a log-probability is positive,
        or a clip is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> ratio, advantages = np.array([1.1, 2.0, 2.0]), np.array([1.0, 1.0, -1.0])
    >>> loss = clipped_surrogate(np.log(ratio / 4), np.log(np.full(3, 0.25)), advantages, np.full(3, True))
    >>> loss.values.round(2).tolist(), loss.clipped.tolist()
    ([-1.1, -1.2, 2.0], [False, True, False])
    """
    xp = _check_tokens(log_prob, old_log_prob, advantages, mask=mask)
    _check_clip(clip_low, clip_high, dual_clip)
    log_ratio = _log_ratio(xp, log_prob, old_log_prob, mask)
    ratio = _exp(xp, xp.clip(log_ratio, -LOG_RATIO_CLAMP, LOG_RATIO_CLAMP))
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
    log_prob, old_log_prob, advantages, mask
        As in `clipped_surrogate`.
    targeted
        The tokens taken out (`clip_cov_tokens`), boolean, [..., T].
    clip_low, clip_high
        Clip range, clip_low in [0, 1], clip_high >= 0.

    Returns
    -------
    TokenLoss
        `clipped` holds the tokens that the clip range stops and the tokens taken out.

    Raises
    ------
    ValueError
        As `clipped_surrogate`, or if r comes near overflow.

    Examples
    --------
    >>> import numpy as np
    >>> log_prob, every = np.log(np.array([0.5, 0.1])), np.array([True, True])
    >>> clip_cov(log_prob, log_prob, np.array([1.0, -1.0]), every, np.array([False, True])).values.tolist()
    [-1.0, 0.0]
    """
    xp = _check_tokens(log_prob, old_log_prob, advantages, mask=mask, targeted=targeted)
    _check_clip(clip_low, clip_high)
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
    log_prob, old_log_prob, advantages, mask
        As in `clipped_surrogate`.
    targeted
        The tokens penalised (`kl_cov_tokens`), boolean, [..., T].
    coefficient
        beta >= 0.

    Returns
    -------
    TokenLoss
        `clipped` is empty.

    Raises
    ------
    ValueError
        As `clipped_surrogate`, or if r comes near overflow, or `coefficient` is negative or near overflow.

    Examples
    --------
    >>> import numpy as np
    >>> new, old = np.log(np.array([0.2, 0.2])), np.log(np.array([0.1, 0.1]))
    >>> every = np.array([True, True])
    >>> kl_cov(new, old, np.array([1.0, 1.0]), every, np.array([False, True])).values.round(4).tolist()
    [-2.0, -1.3069]
    """
    xp = _check_tokens(log_prob, old_log_prob, advantages, mask=mask, targeted=targeted)
    require.in_range("coefficient", coefficient, 0.0, _limit(xp, log_prob))
    log_ratio = _log_ratio(xp, log_prob, old_log_prob, mask)
    values = -stop_gradient(advantages) * _exp(xp, log_ratio)
    values = values + xp.where(targeted, coefficient * xp.abs(log_ratio), 0.0)
    return _token_loss(xp, values, mask, xp.zeros_like(mask))


def entropy_bonus(entropy: Array, mask: Array, coefficient: float = 1e-3) -> Array:
    """Entropy regulariser (arXiv 1602.01783).

    l = -c H, a term of its own beside the policy loss, aggregated over its own mask; the gradient flows through H.

    Parameters
    ----------
    entropy
        H of pi_theta over the whole vocabulary, in nats, floating, [..., T].
    mask
        Valid tokens, boolean, [..., T].
    coefficient
        c >= 0, per nat.

    Returns
    -------
    Array
        -c H, [..., T], 0 outside the mask.

    Raises
    ------
    ValueError
        If shapes differ, `mask` is not boolean, `entropy` is not finite or negative, or `coefficient` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> entropy_bonus(np.array([2.0, 1.0]), np.array([True, False]), coefficient=0.5).tolist()
    [-1.0, 0.0]
    """
    xp = _check_entropy(entropy, mask=mask)
    require.boolean(xp, mask=mask)
    require.in_range("coefficient", coefficient, 0.0, _limit(xp, entropy))
    return xp.where(mask, -coefficient * entropy, 0.0)


def entropy_advantages(advantages: Array, entropy: Array, alpha: float = 0.4, kappa: float = 2.0) -> Array:
    """Entropy-based advantages (arXiv 2506.14758).

        A + psi,  psi = min( alpha stopgrad(H), |A| / kappa )

    psi >= 0 adds to a positive advantage and shrinks a negative one; it flips no sign and leaves A = 0 alone.

    Parameters
    ----------
    advantages
        A after any normalisation, floating, [..., T].
    entropy
        H of the current policy at every token, in nats, floating, [..., T].
    alpha
        Weight of the entropy, >= 0, per nat.
    kappa
        The bonus is at most the share 1 / kappa of |A|; kappa > 1.

    Returns
    -------
    Array
        Shaped advantages, [..., T]; not to be normalised again. An entropy that rounding took below 0 counts as 0.

    Raises
    ------
    ValueError
        If shapes differ, an array is not finite, `entropy` is negative, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> entropy_advantages(np.array([3.75, -0.25, -0.25]), np.array([1.0, 1.0, 0.1])).round(4).tolist()
    [4.15, -0.125, -0.21]
    """
    xp = _check_entropy(entropy, advantages=advantages)
    require.squarable(xp, advantages=advantages)
    require.in_range("alpha", alpha, 0.0, _limit(xp, entropy))
    require.in_range("kappa", kappa, 1.0, _limit(xp, advantages), open_low=True)
    bonus = alpha * xp.clip(stop_gradient(entropy), 0.0, None)
    return advantages + xp.minimum(bonus, xp.abs(advantages) / kappa)


def select_tokens(
    loss: Loss,
    log_prob: Array,
    old_log_prob: Array,
    advantages: Array,
    mask: Array,
    *,
    token_selection: ForkTokens | None = None,
    entropy: Array | None = None,
    uniforms: Array | None = None,
    scope: CovarianceScope | None = None,
) -> Selection:
    """Choose the tokens that a loss counts and singles out, over everything given.

    Call it once over the batch in which the tokens compete, and hand each part of the result to `policy_loss` with its
    rows: then micro-batching, packing and order change nothing. Called on one micro-batch it does what the authors'
    codes do.

    Parameters
    ----------
    loss
        Configuration of the loss.
    log_prob, old_log_prob, advantages, mask
        As in `clipped_surrogate`.
    token_selection
        Restrict the loss to forking tokens; the covariance is then taken over these.
    entropy
        H at every token, floating, [..., T]; needed with `token_selection`.
    uniforms
        Uniform random numbers in [0, 1], floating, [..., T]; needed by `ClipCov`.
    scope
        Means of the covariance, where a part must centre with the batch's; by default those of the counted tokens.

    Returns
    -------
    Selection
        Boolean masks of the shape of `mask`.

    Raises
    ------
    ValueError
        If `entropy` or `uniforms` is missing where it is needed, `loss` is no known configuration, or as
        `clipped_surrogate`.

    Examples
    --------
    >>> import numpy as np
    >>> log_prob = np.log(np.array([0.9, 0.5, 0.01]))
    >>> advantages, mask = np.array([1.0, 1.0, -1.0]), np.array([True, True, True])
    >>> select_tokens(KlCov(), log_prob, log_prob, advantages, mask).targeted.tolist()
    [False, False, True]
    """
    xp = _check_tokens(log_prob, old_log_prob, advantages, mask=mask)
    if token_selection is not None:
        if entropy is None:
            raise ValueError("entropy: expected an array for ForkTokens, got None")
        _check_entropy(entropy, mask=mask)
        mask = fork_tokens(entropy, mask, ratio=token_selection.ratio)
    if isinstance(loss, ClippedSurrogate):
        return Selection(mask, xp.zeros_like(mask))
    covariances = covariance(log_prob, advantages, mask, scope)
    if isinstance(loss, KlCov):
        return Selection(mask, kl_cov_tokens(covariances, mask, ratio=loss.ratio))
    if not isinstance(loss, ClipCov):
        raise ValueError(f"loss: expected ClippedSurrogate, ClipCov or KlCov, got {type(loss).__name__}")
    if uniforms is None:
        raise ValueError("uniforms: expected an array for ClipCov, got None")
    ratio = _exp(xp, _log_ratio(xp, log_prob, old_log_prob, mask))
    _, clipped = _clip(xp, ratio, advantages, loss.clip_low, loss.clip_high)
    band = {"low": loss.covariance_low, "high": loss.covariance_high}
    targeted = clip_cov_tokens(covariances, mask, uniforms, ratio=loss.ratio, excluded=clipped, **band)
    return Selection(mask, targeted)


def policy_loss(
    loss: Loss,
    log_prob: Array,
    old_log_prob: Array,
    advantages: Array,
    mask: Array,
    *,
    selection: Selection | None = None,
    token_selection: ForkTokens | None = None,
    entropy: Array | None = None,
    uniforms: Array | None = None,
    scope: CovarianceScope | None = None,
) -> TokenLoss:
    """Apply a configured loss.

    The loss is `clipped_surrogate`, `clip_cov` or `kl_cov` on the tokens of a `Selection`. Add an `entropy_bonus` as a
    term of its own.

    Parameters
    ----------
    loss
        Configuration of the loss.
    log_prob, old_log_prob, advantages, mask
        As in `clipped_surrogate`.
    selection
        These tokens' part of what `select_tokens` chose over a whole batch; by default it chooses over what is given
        here, with the remaining arguments.
    token_selection, entropy, uniforms, scope
        As in `select_tokens`; not used where `selection` is given.

    Returns
    -------
    TokenLoss
        Of the shape of `mask`; its mask is `selection.counted`.

    Raises
    ------
    ValueError
        As `select_tokens` and the loss itself, or if `selection` leaves the mask.

    Examples
    --------
    >>> import numpy as np
    >>> log_prob, advantages = np.log(np.array([0.9, 0.5, 0.1])), np.array([1.0, -1.0, -1.0])
    >>> entropy, mask = np.array([0.1, 0.6, 0.3]), np.array([True, True, True])
    >>> fork = ForkTokens(ratio=0.5)
    >>> policy_loss(
    ...     ClippedSurrogate(), log_prob, log_prob, advantages, mask, token_selection=fork, entropy=entropy
    ... ).values.tolist()
    [0.0, 1.0, 1.0]
    """
    tokens = (log_prob, old_log_prob, advantages)
    if selection is None:
        selection = select_tokens(
            loss, *tokens, mask, token_selection=token_selection, entropy=entropy, uniforms=uniforms, scope=scope
        )
    counted, targeted = selection
    xp = _check_tokens(*tokens, mask=mask, counted=counted, targeted=targeted)
    if bool(xp.any((counted | targeted) & ~mask)):
        raise ValueError("selection: expected tokens inside the mask, got tokens outside")
    if isinstance(loss, ClippedSurrogate):
        clips = {"clip_low": loss.clip_low, "clip_high": loss.clip_high}
        return clipped_surrogate(*tokens, counted, **clips, dual_clip=loss.dual_clip)
    if isinstance(loss, ClipCov):
        return clip_cov(*tokens, counted, targeted, clip_low=loss.clip_low, clip_high=loss.clip_high)
    if isinstance(loss, KlCov):
        return kl_cov(*tokens, counted, targeted, coefficient=loss.coefficient)
    raise ValueError(f"loss: expected ClippedSurrogate, ClipCov or KlCov, got {type(loss).__name__}")


def _check_clip(clip_low: float, clip_high: float, dual_clip: float | None = None) -> None:
    require.in_range("clip_low", clip_low, 0.0, 1.0)
    require.in_range("clip_high", clip_high, 0.0, LARGEST_CLIP)
    if dual_clip is not None:
        require.in_range("dual_clip", dual_clip, 1.0, LARGEST_CLIP, open_low=True)


def _check_tokens(log_prob: Array, old_log_prob: Array, advantages: Array, **masks: Array) -> Any:
    """Require arrays of one shape, fit for a loss; return their namespace. The first mask is that of valid tokens."""
    reals = {"log_prob": log_prob, "old_log_prob": old_log_prob, "advantages": advantages}
    xp = require.namespace(**reals, **masks)
    require.squarable(xp, **reals)
    require.boolean(xp, **masks)
    require.same_shape(**reals, **masks)
    padding = ~next(iter(masks.values()))
    for name in ("log_prob", "old_log_prob"):
        if not bool(xp.all((reals[name] <= 0.01) | padding)):
            raise ValueError(f"{name}: expected values <= 0, got values above")
    return xp


def _check_entropy(entropy: Array, **others: Array) -> Any:
    xp = require.namespace(entropy=entropy, **others)
    require.squarable(xp, entropy=entropy)
    require.same_shape(**others, entropy=entropy)
    if not bool(xp.all(entropy >= -0.01)):
        raise ValueError("entropy: expected values >= 0, got values below")
    return xp


def _limit(xp: Any, x: Array) -> float:
    """Return the largest coefficient whose product with a checked array is sure to stay finite."""
    largest: float = float(xp.finfo(x.dtype).max)
    return math.sqrt(largest) / 4


def _log_ratio(xp: Any, log_prob: Array, old_log_prob: Array, mask: Array) -> Array:
    return xp.where(mask, log_prob - stop_gradient(old_log_prob), 0.0)


def _exp(xp: Any, log_ratio: Array) -> Array:
    limit = math.log(float(xp.finfo(log_ratio.dtype).max)) / 2
    if not bool(xp.all(log_ratio <= limit)):
        raise ValueError(f"log_prob: expected at most old_log_prob + {limit:.3g}, got more: the ratio overflows")
    return xp.exp(log_ratio)


def _clip(xp: Any, ratio: Array, advantages: Array, clip_low: float, clip_high: float) -> tuple[Array, Array]:
    """Return the ratio that PPO's maximum picks, and where it is the clipped one, a constant."""
    clipped = ((advantages > 0) & (ratio > 1 + clip_high)) | ((advantages < 0) & (ratio < 1 - clip_low))
    return xp.where(clipped, stop_gradient(xp.clip(ratio, 1 - clip_low, 1 + clip_high)), ratio), clipped


def _token_loss(xp: Any, values: Array, mask: Array, clipped: Array) -> TokenLoss:
    return TokenLoss(xp.where(mask, values, 0.0), mask, clipped & mask)
