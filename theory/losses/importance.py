"""Importance weights of tokens that another policy sampled than the one that the trainer computes.

The sampler computes in another precision and with other kernels than the trainer: its log pi_rollout of a token is not
quite the trainer's log pi_old. The weights correct for that. `theory.losses.policy_loss` says where they enter a loss.
"""

from __future__ import annotations

from typing import Literal

from theory.base import require
from theory.base.arrays import Array, clip, stop_gradient
from theory.losses.checks import LARGEST_CLIP
from theory.losses.surrogate import LOG_RATIO_CLAMP


def importance_weights(
    old_log_prob: Array,
    rollout_log_prob: Array,
    mask: Array,
    *,
    level: Literal["token", "sequence"] = "token",
    cap: float = 2.0,
) -> Array:
    """Return the truncated importance weight of every token (Ionides 2008, J. Comput. Graph. Stat. 17, 295).

        token:     w_t = min( pi_old(y_t) / pi_rollout(y_t), cap )
        sequence:  w_t = min( prod_s pi_old(y_s) / pi_rollout(y_s), cap ), over the valid tokens s of the sequence

    The log of the ratio, or of the product, is clamped to [-20, 20]. Weights of tokens have less variance and a bias:
    they leave out how often the trainer's policy meets the token's context.

    Parameters
    ----------
    old_log_prob, rollout_log_prob : log pi_old and log pi_rollout of the sampled tokens, floating, [..., T]; one row is
        one sequence.
    mask : Valid tokens, boolean, [..., T].
    level : Of what the ratio is.
    cap : Largest weight, in (0, 1e9].

    Returns
    -------
    Array : w in [0, cap], [..., T], a constant for the gradient; 0 outside the mask.

    Examples
    --------
    >>> import numpy as np
    >>> old, rollout = np.log(np.array([[0.9, 0.2]])), np.log(np.array([[0.3, 0.4]]))
    >>> [importance_weights(old, rollout, old < 0, level=x).round(6).tolist() for x in ("token", "sequence")]
    [[[2.0, 0.5]], [[1.5, 1.5]]]
    """
    reals = {"old_log_prob": old_log_prob, "rollout_log_prob": rollout_log_prob}
    xp = require.namespace(**reals, mask=mask)
    require.squarable(xp, **reals)
    require.boolean(xp, mask=mask)
    require.same_shape(**reals, mask=mask)
    for name, x in reals.items():
        require.values(name, x, "values <= 0", lambda x: (x <= 0.01) | ~mask)
    require.one_of("level", level, ("token", "sequence"))
    cap = require.in_range("cap", cap, 0.0, LARGEST_CLIP, open_low=True)
    if mask.ndim < 1:
        raise ValueError(f"mask: expected shape [..., T], got {tuple(mask.shape)}")
    log_ratio = xp.where(mask, stop_gradient(old_log_prob) - stop_gradient(rollout_log_prob), 0.0)
    if level == "sequence":
        log_ratio = xp.zeros_like(log_ratio) + xp.sum(log_ratio, axis=-1)[..., None]
    ratio = xp.exp(clip(log_ratio, -LOG_RATIO_CLAMP, LOG_RATIO_CLAMP))
    return xp.where(mask, clip(ratio, None, cap), 0.0)
