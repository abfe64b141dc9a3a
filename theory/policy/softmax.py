"""One softmax policy: token statistics, and the norm of the score (DynaMO, Appendices A and B).

A policy over V tokens has logits z and log-probabilities log pi = z - logsumexp(z). The score of token a is
s(a) = grad_z log pi(a) = e_a - pi. Everything the method needs of a token follows from four numbers, `TokenStatistics`,
which take one pass over its logits. Logarithms are natural, entropies in nats.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from theory.base import require
from theory.base.arrays import Array, clip


class TokenStatistics(NamedTuple):
    """Sufficient statistics of sampled tokens under their softmax policy; all fields share one shape [...].

    Attributes
    ----------
    log_prob : log pi(a) of the sampled token a, in (-inf, 0].
    entropy : H = -sum_v pi(v) log pi(v), in [0, log V].
    collision : C = sum_v pi(v)^2 (32), from 1/V (uniform) to 1 (deterministic).
    mean_pi_lambda : M = E_pi[pi Lambda] = sum_v pi(v)^2 Lambda(v) = sum_v pi(v)^2 log pi(v) + C H, with Lambda of Def.
        2.
    """

    log_prob: Array
    entropy: Array
    collision: Array
    mean_pi_lambda: Array


def log_softmax(logits: Array) -> Array:
    """Log-probabilities of a softmax policy.

    log pi(v) = z_v - max z - log sum_u exp(z_u - max z).

    Parameters
    ----------
    logits : Finite logits, [..., V], V >= 1, floating.

    Returns
    -------
    Array : log pi, [..., V]; finite for every finite input: where pi underflows, log pi does not.

    Examples
    --------
    >>> import numpy as np
    >>> log_softmax(np.array([0.0, 0.0])).round(4).tolist()
    [-0.6931, -0.6931]
    >>> log_softmax(np.array([1e4, -1e4])).tolist()
    [0.0, -20000.0]
    """
    xp = require.namespace(logits=logits)
    require.finite(xp, logits=logits)
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits: expected shape [..., V] with V >= 1, got {tuple(logits.shape)}")
    # Halving keeps z - max z from overflowing; the floor keeps 0 * log 0 at 0, since pi underflows long before it.
    half_gap = logits / 2 - xp.max(logits, axis=-1, keepdims=True) / 2
    gap = 2 * clip(half_gap, xp.finfo(logits.dtype).min / 4, None)
    return gap - xp.log(xp.sum(xp.exp(gap), axis=-1, keepdims=True))


def centred_log_prob(logits: Array) -> Array:
    """Centred log-probability of every token (Def. 2, eq. 17).

    Lambda(v) = log pi(v) + H, so that sum_v pi(v) Lambda(v) = 0. Arguments as in `log_softmax`.

    Returns
    -------
    Array : Lambda, [..., V], in nats.

    Examples
    --------
    >>> import numpy as np
    >>> centred_log_prob(np.log(np.array([0.9, 0.1]))).round(4).tolist()
    [0.2197, -1.9775]
    """
    log_pi = log_softmax(logits)
    xp = require.namespace(logits=logits)
    return log_pi - xp.sum(xp.exp(log_pi) * log_pi, axis=-1, keepdims=True)


def token_statistics(logits: Array, actions: Array) -> TokenStatistics:
    """Return log pi(a), H, C and E_pi[pi Lambda] of sampled tokens, in one pass over the logits.

    H = -sum pi log pi; C = sum pi^2; M = sum pi^2 log pi + C H (Def. 2, 16, 32).

    Parameters
    ----------
    logits, actions : Finite logits, [..., V], floating, and sampled token ids in [0, V), [...], integer; the one token
        of logits [V] may be a number.

    Returns
    -------
    TokenStatistics : Four arrays of the shape of `actions` and the dtype of `logits`. With V = 1 they are 0, 0, 1, 0.

    Examples
    --------
    >>> import numpy as np
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1]])), np.array([0]))
    >>> [round(float(x[0]), 4) for x in stats]
    [-0.1054, 0.3251, 0.82, 0.1582]
    """
    log_pi = log_softmax(logits)
    xp = require.namespace(logits=logits)
    if logits.ndim == 1 and isinstance(actions, (int, np.integer)) and not isinstance(actions, bool):
        action = require.count("actions", int(actions), 0, logits.shape[-1] - 1)
        actions = xp.asarray(action, dtype=xp.int64, device=array_api_compat.device(logits))
    require.namespace(logits=logits, actions=actions)
    require.integer(xp, actions=actions)
    if tuple(actions.shape) != tuple(logits.shape[:-1]):
        raise ValueError(
            f"actions: expected shape {tuple(logits.shape[:-1])} (that of logits without its last axis), "
            f"got {tuple(actions.shape)}"
        )
    num_tokens = logits.shape[-1]
    require.values("actions", actions, f"ids in [0, {num_tokens})", lambda x: (x >= 0) & (x < num_tokens))
    pi = xp.exp(log_pi)
    entropy = -xp.sum(pi * log_pi, axis=-1)
    collision = xp.sum(pi * pi, axis=-1)
    mean_pi_lambda = xp.sum(pi * pi * log_pi, axis=-1) + collision * entropy
    log_prob = xp.take_along_axis(log_pi, xp.expand_dims(xp.astype(actions, xp.int64), axis=-1), axis=-1)[..., 0]
    return TokenStatistics(log_prob, entropy, collision, mean_pi_lambda)


def require_statistics(stats: TokenStatistics) -> Any:
    """Require token statistics of one shape with log pi(a) <= 0, H >= 0 and 0 <= C <= 1, each to a hundredth.

    Parameters
    ----------
    stats : Token statistics, each [...]; those of low precision may be off by their rounding.

    Returns
    -------
    Any : Their array namespace, NumPy's or torch's.

    Examples
    --------
    >>> import numpy as np
    >>> require_statistics(TokenStatistics(*np.array([[0.5], [0.0], [1.0], [0.0]])))
    Traceback (most recent call last):
    ValueError: log_prob: expected values <= 0, got 0.5
    """
    fields = stats._asdict()
    xp = require.namespace(**fields)
    require.finite(xp, **fields)
    require.same_shape(**fields)
    require.values("log_prob", stats.log_prob, "values <= 0", lambda x: x <= 0.01)
    require.values("entropy", stats.entropy, "values >= 0", lambda x: x >= -0.01)
    require.values("collision", stats.collision, "values in [0, 1]", lambda x: (x >= -0.01) & (x <= 1.01))
    return xp


def pi_lambda(stats: TokenStatistics) -> Array:
    """Concentration times centred log-probability of the sampled token, the factor of eq. 10 and 27.

    pi(a) Lambda(a) = exp(log pi(a)) (log pi(a) + H). Arguments as in `require_statistics`.

    Returns
    -------
    Array : [...], in nats; minus the derivative of H in the logit of a (eq. 19-23).

    Examples
    --------
    >>> import numpy as np
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1]])), np.array([0]))
    >>> round(float(pi_lambda(stats)[0]), 4)
    0.1978
    """
    xp = require_statistics(stats)
    return xp.exp(stats.log_prob) * (stats.log_prob + stats.entropy)


def score_norm_squared(stats: TokenStatistics) -> Array:
    """Squared norm of the score of the sampled token (31).

    |s(a)|^2 = |e_a - pi|^2 = 1 - 2 pi(a) + C. Arguments as in `require_statistics`.

    Returns
    -------
    Array : [...], in [0, 2]; a rounding error below zero is returned as 0.

    Examples
    --------
    >>> import numpy as np
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1]])), np.array([0]))
    >>> round(float(score_norm_squared(stats)[0]), 4)
    0.02
    """
    xp = require_statistics(stats)
    return clip(1 - 2 * xp.exp(stats.log_prob) + stats.collision, 0, None)


def expected_score_norm_squared(stats: TokenStatistics) -> Array:
    """Mean squared norm of the score over the policy's own tokens (32).

    E_pi |s|^2 = 1 - C. Arguments as in `require_statistics`.

    Returns
    -------
    Array : [...], from 0 (deterministic) to 1 - 1/V (uniform).

    Examples
    --------
    >>> import numpy as np
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1]])), np.array([0]))
    >>> round(float(expected_score_norm_squared(stats)[0]), 4)
    0.18
    """
    require_statistics(stats)
    return clip(1 - stats.collision, 0, None)


def score_norm_bound(stats: TokenStatistics) -> Array:
    """Entropy bound on the mean squared norm of the score (33).

    E_pi |s|^2 = 1 - C <= 1 - e^-H, with equality where pi is uniform on its support.
    Arguments as in `require_statistics`.

    Returns
    -------
    Array : 1 - e^-H, [...], in [0, 1 - 1/V].

    Examples
    --------
    >>> import numpy as np
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1]])), np.array([0]))
    >>> round(float(score_norm_bound(stats)[0]), 4)
    0.2775
    """
    xp = require_statistics(stats)
    return -xp.expm1(-stats.entropy)
