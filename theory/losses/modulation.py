"""Gradient-aware modulation of advantages: compensation and stabilisation (DynaMO, 4.3).

A_final = A * beta_comp * beta_stab (14). Compensation raises positive advantages of confident tokens (8, 9),
stabilisation lowers the advantages of tokens whose update would change the entropy most (11-13). Both factors are
constants for the gradient.

The factors compare each token with the extremes of the training batch, its `Scope`. A batch is seldom seen at once:
take `scope_of` every micro-batch, `Scope.merge` them over micro-batches and ranks, and hand the result to `modulate`;
factors then do not depend on micro-batching, packing, order or padding. Where the scope comes from another policy, such
as the one that generated the rollouts, tokens may lie outside; they count as the nearest extreme, so that the factors
keep their ranges: 1 <= beta_comp <= 1 + alpha_comp and 1 - alpha_stab <= beta_stab <= 1.

All functions accept NumPy arrays and torch tensors and keep the dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import array_api_compat
import numpy as np

from theory.base import require
from theory.base.arrays import Array, clip, is_array, stop_gradient
from theory.losses.checks import check_instability
from theory.losses.protocol import Shaped, Shaping
from theory.losses.scope import Scope, scope_of
from theory.policy import TokenStatistics, first_order, first_order_sequence

ROUNDING = 16
"""Machine epsilons that count as rounding. The factors are relative to the extremes of the batch; where these differ by
rounding only, as for tokens of one policy or of uniform policies, that must not fill the range of the factors."""


@dataclass(frozen=True)
class Modulation(Shaping):
    """Strength and shape of the modulation.

    Parameters
    ----------
    alpha : Unified strength, in [0, 1]; 0 leaves advantages as they are, to the bit.
    sharpness : gamma > 0, steepness of the stabilisation (13).
    threshold : tau in [0, 1]: share of the largest instability at which half of the stabilisation sets in (13).
    alpha_comp : Strength of the compensation alone, >= 0; None means alpha. The public code's mu_max is 1 + alpha_comp.
    alpha_stab : Strength of the stabilisation alone, in [0, 1]; None means alpha. The code's lambda_min is 1 -
        alpha_stab.
    mean : E_pi[pi Lambda] in the instability: "vocabulary" is exact, "sequence" the public code's mean over the
        response, for which each row [T] must be one response.

    Examples
    --------
    >>> Modulation(alpha_stab=0.0).compensation_strength  # compensation only
    0.4
    """

    compares: ClassVar[bool] = True

    alpha: float = 0.4
    sharpness: float = 50.0
    threshold: float = 0.9
    alpha_comp: float | None = None
    alpha_stab: float | None = None
    mean: Literal["vocabulary", "sequence"] = "vocabulary"

    def __post_init__(self) -> None:
        require.in_range("alpha", self.alpha, 0.0, 1.0)
        require.in_range("sharpness", self.sharpness, 0.0, open_low=True)
        require.in_range("threshold", self.threshold, 0.0, 1.0)
        if self.alpha_comp is not None:
            require.in_range("alpha_comp", self.alpha_comp, 0.0)
        if self.alpha_stab is not None:
            require.in_range("alpha_stab", self.alpha_stab, 0.0, 1.0)
        require.one_of("mean", self.mean, ("vocabulary", "sequence"))

    @property
    def compensation_strength(self) -> float:
        """`alpha_comp`, or `alpha` where it is None."""
        return self.alpha if self.alpha_comp is None else self.alpha_comp

    @property
    def stabilization_strength(self) -> float:
        """`alpha_stab`, or `alpha` where it is None."""
        return self.alpha if self.alpha_stab is None else self.alpha_stab

    def scope(
        self, stats: TokenStatistics, coefficient: Array, mask: Array, *, axis: int | tuple[int, ...] | None = None
    ) -> Scope:
        """Return the extremes of entropy and instability (`scope_of`)."""
        return scope_of(stats, instability(stats, coefficient, mask, self.mean), mask, axis=axis)

    def shape(self, advantages: Array, stats: TokenStatistics) -> Array:
        """Return the advantages of one batch, all of whose tokens are valid and on-policy (`modulate`)."""
        xp = require.namespace(advantages=advantages)
        return modulate(advantages, stats, xp.ones_like(advantages, dtype=xp.bool), self).advantages

    def apply(
        self,
        advantages: Array,
        stats: TokenStatistics,
        mask: Array,
        *,
        coefficient: Array | None = None,
        scope: Scope | None = None,
    ) -> Shaped:
        """Return modulated advantages and both factors (`modulate`)."""
        advantages, *factors = modulate(advantages, stats, mask, self, coefficient=coefficient, scope=scope)
        return Shaped(advantages, dict(zip(Modulated._fields[1:], factors, strict=True)))


RELEASED_SCRIPT = Modulation(alpha_comp=0.2, alpha_stab=0.4, threshold=0.99, mean="sequence")
"""Setting of the authors' training script: mu_max = 1.2, lambda_min = 0.6, gamma = 50, tau = 0.99."""


class Modulated(NamedTuple):
    """Modulated advantages, and the two factors that made them; each [..., T].

    Attributes
    ----------
    advantages : A * beta_comp * beta_stab.
    compensation : beta_comp, in [1, 1 + alpha_comp]; 1 outside the mask.
    stabilization : beta_stab, in [1 - alpha_stab, 1]; 1 outside the mask.
    """

    advantages: Array
    compensation: Array
    stabilization: Array


def instability(
    stats: TokenStatistics, coefficient: Array, mask: Array, mean: Literal["vocabulary", "sequence"] = "vocabulary"
) -> Array:
    """Instability indicator of each token, the size of the entropy change that its update causes (11).

    Xi = |xi (pi(a) Lambda(a) - E_pi[pi Lambda])|, that is |dH| to first order with learning rate 1.

    Parameters
    ----------
    stats : Token statistics, each [..., T].
    coefficient : Update coefficient xi (24), [..., T]; the advantage where the policy is the one that sampled.
    mask : True at valid tokens, [..., T], boolean. Values outside must be finite and have no effect.
    mean : "vocabulary": the exact expectation. "sequence": the public code's mean over the response's valid tokens.

    Returns
    -------
    Array : Xi >= 0, [..., T], in nats; 0 outside the mask and where it is within rounding, `ROUNDING` machine epsilons
        of |xi|; a constant for the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from theory.policy import token_statistics
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1], [0.9, 0.1]])), np.array([0, 1]))
    >>> instability(stats, np.array([1.0, 1.0]), np.array([True, True])).round(4).tolist()
    [0.0396, 0.356]
    """
    coefficient, _ = require.alike(coefficient=coefficient, log_prob=stats.log_prob)
    xp = require.namespace(coefficient=coefficient, mask=mask)
    require.boolean(xp, mask=mask)
    require.same_shape(coefficient=coefficient, mask=mask)
    require.one_of("mean", mean, ("vocabulary", "sequence"))
    stats = TokenStatistics(*(stop_gradient(x) for x in stats))
    coefficient = stop_gradient(coefficient)
    if mean == "sequence":
        change = xp.abs(first_order_sequence(stats, coefficient, mask))
    else:
        change = xp.abs(first_order(stats, coefficient))
    rounding = ROUNDING * xp.finfo(change.dtype).eps * xp.abs(coefficient)
    return xp.where(mask & (change > rounding), change, xp.zeros_like(change))


def compensation(entropy: Array, advantages: Array, alpha: float, scope: Scope) -> Array:
    """Gradient compensation factor: more weight to confident tokens of good responses (8, 9).

    beta_comp = 1 + alpha (H_max - H) / (H_max - H_min) where A > 0, else 1.

    Parameters
    ----------
    entropy : H, [...], in nats.
    advantages : A, [...]; only the sign matters.
    alpha : alpha_comp >= 0.
    scope : H_min and H_max of the batch; entropies outside are taken as the nearer of the two.

    Returns
    -------
    Array : beta_comp, [...], in [1, 1 + alpha], a constant for the gradient; 1 where H_max = H_min, up to `ROUNDING`
        machine epsilons of max(1, H_max).

    Examples
    --------
    >>> import numpy as np
    >>> entropy, advantages = np.array([0.0, 0.5, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, -1.0])
    >>> compensation(entropy, advantages, 0.4, Scope(0.0, 1.0)).tolist()
    [1.4, 1.2, 1.0, 1.0]
    """
    entropy, advantages = require.alike(entropy=entropy, advantages=advantages)
    xp = require.namespace(entropy=entropy, advantages=advantages)
    require.finite(xp, entropy=entropy, advantages=advantages)
    require.same_shape(entropy=entropy, advantages=advantages)
    alpha = require.in_range("alpha", alpha, 0.0)
    position, apart = _position(xp, stop_gradient(entropy), scope.entropy_min, scope.entropy_max, relative=ROUNDING)
    with np.errstate(over="ignore", invalid="ignore"):
        factor = 1 + alpha * (1 - position)
    require.representable(xp, alpha=factor)
    return xp.where(apart & (advantages > 0), factor, xp.ones_like(factor))


def stabilization(instability: Array, alpha: float, sharpness: float, threshold: float, scope: Scope) -> Array:
    """Stabilisation factor: less weight to tokens that would change the entropy most (12, 13).

    beta_stab = (1 - alpha) + alpha sigmoid(-gamma (Xi / max Xi - tau)) = 1 - alpha sigmoid(gamma (Xi / max Xi - tau)).

    Parameters
    ----------
    instability : Xi >= 0, [...], in nats.
    alpha : alpha_stab in [0, 1].
    sharpness : gamma > 0.
    threshold : tau in [0, 1].
    scope : max Xi of the batch; values above are taken as max Xi.

    Returns
    -------
    Array : beta_stab, [...], in [1 - alpha, 1], a constant for the gradient; 1 where max Xi = 0.

    Examples
    --------
    >>> import numpy as np
    >>> stabilization(np.array([0.0, 1.8, 2.0]), 0.4, 50.0, 0.9, Scope(0.0, 1.0, 2.0)).round(4).tolist()
    [1.0, 0.8, 0.6027]
    """
    (instability,) = require.alike(instability=instability)
    xp = require.namespace(instability=instability)
    check_instability(xp, instability)
    alpha = require.in_range("alpha", alpha, 0.0, 1.0)
    sharpness = require.in_range("sharpness", sharpness, 0.0, open_low=True)
    threshold = require.in_range("threshold", threshold, 0.0, 1.0)
    position, apart = _position(xp, stop_gradient(instability), 0.0, scope.instability_max)
    with np.errstate(over="ignore", invalid="ignore"):
        x = sharpness * (position - threshold)
    require.representable(xp, sharpness=x)
    decay = xp.exp(-xp.abs(x))  # never above 1, so that nothing overflows
    factor = 1 - alpha * xp.where(x >= 0, xp.ones_like(decay), decay) / (1 + decay)
    return xp.where(apart, factor, xp.ones_like(factor))


def modulate(
    advantages: Array,
    stats: TokenStatistics,
    mask: Array,
    modulation: Modulation,
    *,
    coefficient: Array | None = None,
    scope: Scope | None = None,
) -> Modulated:
    """Modulate token advantages (14).

    A_final = A * beta_comp * beta_stab.

    Parameters
    ----------
    advantages : A, [..., T].
    stats : Token statistics under the current policy, each [..., T].
    mask : True at valid tokens, [..., T], boolean. Values outside must be finite and have no effect.
    modulation : Strengths, sharpness, threshold and mean.
    coefficient : Update coefficient xi (24), [..., T]; None is on-policy, xi = A.
    scope : Extremes of the training batch. None takes those of what is given, which is right only if that is the batch.

    Returns
    -------
    Modulated : Advantages and both factors. Outside the mask the factors are 1 and advantages unchanged. No sign
        changes, and gradients see the factors as constants.

    Examples
    --------
    >>> import numpy as np
    >>> from theory.policy import token_statistics
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1], [0.5, 0.5], [0.9, 0.1]])), np.array([0, 0, 1]))
    >>> result = modulate(np.array([1.0, 1.0, -1.0]), stats, np.array([True, True, True]), Modulation())
    >>> result.compensation.round(3).tolist(), result.stabilization.round(3).tolist()
    ([1.4, 1.0, 1.0], [1.0, 1.0, 0.603])
    """
    xp = require.namespace(advantages=advantages, mask=mask, log_prob=stats.log_prob)
    require.finite(xp, advantages=advantages)
    require.same_shape(advantages=advantages, mask=mask, log_prob=stats.log_prob)
    xi = advantages if coefficient is None else coefficient
    indicator = instability(stats, xi, mask, modulation.mean)
    if scope is None:
        scope = scope_of(stats, indicator, mask)
    comp = compensation(stats.entropy, advantages, modulation.compensation_strength, scope)
    stab = stabilization(
        indicator, modulation.stabilization_strength, modulation.sharpness, modulation.threshold, scope
    )
    comp = xp.where(mask, comp, xp.ones_like(comp))
    stab = xp.where(mask, stab, xp.ones_like(stab))
    with np.errstate(over="ignore"):
        modulated = advantages * comp * stab
    require.representable(xp, advantages=modulated)
    return Modulated(modulated, comp, stab)


def _position(xp: Any, x: Array, low: Any, high: Any, relative: float = 0.0) -> tuple[Array, Array]:
    """Return (x - low) / (high - low) clipped to [0, 1], and where the two are apart: high exceeds low beyond rounding.

    Rounding is `relative` machine epsilons of max(1, high), and that of low and high to the dtype of x.
    """
    device = array_api_compat.device(x)
    with np.errstate(over="ignore"):
        start, end = (xp.asarray(value, dtype=x.dtype, device=device) for value in (low, high))
    largest = clip(high, 1.0, None) if is_array(high) else max(1.0, high)
    rounding = relative * float(xp.finfo(x.dtype).eps) * largest
    apart = xp.asarray(high - low > rounding, device=device)
    end = xp.where(apart, end, xp.ones_like(end))
    require.representable(xp, scope=end)
    apart = apart & (start < end)
    start, end = xp.where(apart, start, xp.zeros_like(start)), xp.where(apart, end, xp.ones_like(end))
    return (clip(x, start, end) - start) / (end - start), apart
