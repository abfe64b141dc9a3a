"""A configured loss, applied in two steps, so that nothing depends on micro-batching.

`select_tokens` runs over the scope in which tokens compete, without gradient; then `policy_loss` runs on any part of
it.
"""

from __future__ import annotations

from typing import TypeAlias

from theory.base.arrays import Array
from theory.losses.checks import check_entropy, check_tokens
from theory.losses.selection import (
    CovarianceScope,
    ForkTokens,
    Selection,
    clip_cov_tokens,
    covariance,
    fork_tokens,
    kl_cov_tokens,
)
from theory.losses.surrogate import ClipCov, ClippedSurrogate, KlCov, TokenLoss, clip_cov, clipped_surrogate, kl_cov

Loss: TypeAlias = ClippedSurrogate | ClipCov | KlCov


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
    xp = check_tokens(log_prob, old_log_prob, advantages, mask=mask)
    if token_selection is not None:
        if entropy is None:
            raise ValueError("entropy: expected an array for ForkTokens, got None")
        check_entropy(entropy, mask=mask)
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
    clips = {"clip_low": loss.clip_low, "clip_high": loss.clip_high}
    clipped = clip_cov(log_prob, old_log_prob, advantages, mask, xp.zeros_like(mask), **clips).clipped
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
    xp = check_tokens(*tokens, mask=mask, counted=counted, targeted=targeted)
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
