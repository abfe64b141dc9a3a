"""The policy losses as parts of a method, and how a loss is applied in two steps, so that packing changes nothing.

`select_tokens` runs over all tokens that compete, without gradient. Then `policy_loss` runs on any part of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from theory.base import require
from theory.base.arrays import Array, stop_gradient
from theory.losses.checks import check_clip, check_entropy, check_part, check_tokens, unchanged
from theory.losses.protocol import Loss, Selection, TokenLoss
from theory.losses.selection import ForkTokens, clip_cov_tokens, covariance, fork_tokens, kl_cov_tokens
from theory.losses.surrogate import clip_cov, clipped_surrogate, kl_cov


@dataclass(frozen=True)
class ClippedSurrogate(Loss):
    """Configuration of `clipped_surrogate`; r stays in [1 - clip_low, 1 + clip_high], `dual_clip` None is none."""

    standard: ClassVar[bool] = True

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        check_clip(self.clip_low, self.clip_high, self.dual_clip)

    @property
    def clip_range(self) -> tuple[float, float]:
        """(clip_low, clip_high)."""
        return self.clip_low, self.clip_high

    def values(self, log_prob: Array, old_log_prob: Array, advantages: Array, selection: Selection) -> TokenLoss:
        """Return `clipped_surrogate` of the counted tokens."""
        clips = {"clip_low": self.clip_low, "clip_high": self.clip_high}
        counted = selection.counted
        return clipped_surrogate(log_prob, old_log_prob, advantages, counted, **clips, dual_clip=self.dual_clip)


@dataclass(frozen=True)
class ClipCov(Loss):
    """Configuration of `clip_cov` and its selection: `ratio` of all tokens, drawn from the band of covariances."""

    singles_out: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    ratio: float = 2e-4
    covariance_low: float = 1.0
    covariance_high: float = 5.0
    clip_low: float = 1.0
    clip_high: float = 1.0

    def __post_init__(self) -> None:
        require.in_range("ratio", self.ratio, 0.0, 1.0)
        require.in_range("covariance_low", self.covariance_low)
        require.in_range("covariance_high", self.covariance_high, self.covariance_low, open_low=True)
        check_clip(self.clip_low, self.clip_high)

    @property
    def clip_range(self) -> tuple[float, float]:
        """(clip_low, clip_high)."""
        return self.clip_low, self.clip_high

    def select(
        self, log_prob: Array, old_log_prob: Array, advantages: Array, mask: Array, uniforms: Array | None = None
    ) -> Array:
        """Return `clip_cov_tokens`, of the tokens that the clip does not stop anyway."""
        if uniforms is None:
            raise ValueError("uniforms: expected an array for ClipCov, got None")
        clipped = self.values(log_prob, old_log_prob, advantages, Selection(mask, mask & False)).clipped
        covariances = covariance(log_prob, advantages, mask)
        band = {"low": self.covariance_low, "high": self.covariance_high}
        return clip_cov_tokens(covariances, mask, uniforms, ratio=self.ratio, excluded=clipped, **band)

    def values(self, log_prob: Array, old_log_prob: Array, advantages: Array, selection: Selection) -> TokenLoss:
        """Return `clip_cov`."""
        clips = {"clip_low": self.clip_low, "clip_high": self.clip_high}
        return clip_cov(log_prob, old_log_prob, advantages, *selection, **clips)


@dataclass(frozen=True)
class KlCov(Loss):
    """Configuration of `kl_cov` and its selection: `ratio` of all tokens (a fraction, not percent)."""

    singles_out: ClassVar[bool] = True

    ratio: float = 2e-3
    coefficient: float = 1.0

    def __post_init__(self) -> None:
        require.in_range("ratio", self.ratio, 0.0, 1.0)
        require.in_range("coefficient", self.coefficient, 0.0)

    def select(
        self, log_prob: Array, old_log_prob: Array, advantages: Array, mask: Array, uniforms: Array | None = None
    ) -> Array:
        """Return `kl_cov_tokens`."""
        return kl_cov_tokens(covariance(log_prob, advantages, mask), mask, ratio=self.ratio)

    def values(self, log_prob: Array, old_log_prob: Array, advantages: Array, selection: Selection) -> TokenLoss:
        """Return `kl_cov`."""
        return kl_cov(log_prob, old_log_prob, advantages, *selection, coefficient=self.coefficient)


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
) -> Selection:
    """Choose the tokens that a loss counts and singles out, over everything given.

    Call it once over the batch in which the tokens compete, and hand each part of the result to `policy_loss` with its
    rows: then micro-batching, packing and order change nothing. Called on one micro-batch it does what the authors'
    codes do.

    Parameters
    ----------
    loss : `ClippedSurrogate`, `ClipCov`, `KlCov` or one of your own.
    log_prob, old_log_prob, advantages, mask : As in `clipped_surrogate`.
    token_selection : Restrict the loss to forking tokens; the covariance is then taken over these.
    entropy : H at every token, floating, [..., T]; needed with `token_selection`.
    uniforms : Uniform random numbers in [0, 1], floating, [..., T]; needed by `ClipCov`.

    Returns
    -------
    Selection : Boolean masks of the shape of `mask`.

    Examples
    --------
    >>> import numpy as np
    >>> log_prob = np.log(np.array([0.9, 0.5, 0.01]))
    >>> advantages, mask = np.array([1.0, 1.0, -1.0]), np.array([True, True, True])
    >>> select_tokens(KlCov(), log_prob, log_prob, advantages, mask).targeted.tolist()
    [False, False, True]
    """
    _require_loss(loss)
    check_tokens(log_prob, old_log_prob, advantages, mask=mask)
    if token_selection is not None:
        if entropy is None:
            raise ValueError("entropy: expected an array for ForkTokens, got None")
        check_entropy(entropy, mask=mask)
        mask = fork_tokens(entropy, mask, ratio=token_selection.ratio)
    with unchanged(loss, log_prob=log_prob, old_log_prob=old_log_prob, advantages=advantages, mask=mask):
        targeted = loss.select(log_prob, old_log_prob, advantages, mask, uniforms)
    check_part(loss, "select", mask, targeted=targeted)
    require.values(f"{type(loss).__name__}.select: targeted", targeted, "tokens that count", lambda x: mask | ~x)
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
    importance: Array | None = None,
) -> TokenLoss:
    """Apply a configured loss.

    The loss is `clipped_surrogate`, `clip_cov` or `kl_cov` on the tokens of a `Selection`. Add an `entropy_bonus` as a
    term of its own.

    Importance weights multiply the whole loss of a token, a penalty of KL-Cov included. They change the expectation and
    nothing else: advantages, their modulation, clips and selections are those without weights, and a token of weight 0
    still counts in the denominator of a mean.

    Parameters
    ----------
    loss : `ClippedSurrogate`, `ClipCov`, `KlCov` or one of your own.
    log_prob, old_log_prob, advantages, mask : As in `clipped_surrogate`.
    selection : These tokens' part of what `select_tokens` chose over a whole batch; by default it chooses over what is
        given here, with the remaining arguments.
    token_selection, entropy, uniforms : As in `select_tokens`; not used where `selection` is given.
    importance : Weights of tokens that another policy sampled (`importance_weights`), floating, >= 0, [..., T];
        constants for the gradient. None is 1.

    Returns
    -------
    TokenLoss : Of the shape of `mask`; its mask is `selection.counted`.

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
    _require_loss(loss)
    tokens = (log_prob, old_log_prob, advantages)
    if selection is None:
        selection = select_tokens(
            loss, *tokens, mask, token_selection=token_selection, entropy=entropy, uniforms=uniforms
        )
    counted, targeted = selection
    xp = check_tokens(*tokens, mask=mask, counted=counted, targeted=targeted)
    require.values("selection", counted | targeted, "tokens inside the mask", lambda x: mask | ~x)
    with unchanged(loss, advantages=advantages, counted=counted, targeted=targeted):
        result = loss.values(*tokens, selection)
    if not isinstance(result, TokenLoss):
        raise ValueError(f"{type(loss).__name__}.values: expected a TokenLoss, got {type(result).__name__}")
    check_part(loss, "values", log_prob, values=result.values)
    check_part(loss, "values", mask, mask=result.mask, clipped=result.clipped)
    require.values(f"{type(loss).__name__}.values: mask", result.mask ^ counted, "the counted tokens", lambda x: ~x)
    values = xp.where(counted, result.values, 0.0)
    if importance is not None:
        values = _weighted(xp, values, importance)
    return TokenLoss(values, counted, result.clipped & counted)


def _weighted(xp: Any, values: Array, importance: Array) -> Array:
    require.namespace(values=values, importance=importance)
    require.squarable(xp, importance=importance)
    require.same_shape(values=values, importance=importance)
    require.values("importance", importance, "values >= 0", lambda x: x >= 0)
    with np.errstate(over="ignore"):
        weighted = stop_gradient(importance) * values
    require.representable(xp, importance=weighted)
    return weighted


def _require_loss(loss: Loss) -> None:
    if not isinstance(loss, Loss):
        raise ValueError(f"loss: expected a Loss, got {type(loss).__name__}")
