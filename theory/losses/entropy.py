"""Two baselines that act on the entropy of tokens: a bonus beside the policy loss, and shaped advantages.

H is the entropy of pi_theta at a token, in nats. Both functions accept NumPy arrays and torch tensors and keep the
dtype. Padding must hold finite numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from theory.base import require
from theory.base.arrays import Array, clip, stop_gradient
from theory.losses.checks import check_entropy, largest_coefficient
from theory.losses.protocol import Shaping
from theory.policy import TokenStatistics


@dataclass(frozen=True)
class EntropyBonus:
    """Configuration of `entropy_bonus`."""

    coefficient: float = 1e-3

    def __post_init__(self) -> None:
        require.in_range("coefficient", self.coefficient, 0.0)


@dataclass(frozen=True)
class EntropyAdvantages(Shaping):
    """Configuration of `entropy_advantages`."""

    alpha: float = 0.4
    kappa: float = 2.0

    def __post_init__(self) -> None:
        require.in_range("alpha", self.alpha, 0.0)
        require.in_range("kappa", self.kappa, 1.0, open_low=True)

    def shape(self, advantages: Array, stats: TokenStatistics) -> Array:
        """Return A + psi (`entropy_advantages`)."""
        return entropy_advantages(advantages, stats.entropy, alpha=self.alpha, kappa=self.kappa)


def entropy_bonus(entropy: Array, mask: Array, coefficient: float = 1e-3) -> Array:
    """Entropy regulariser (arXiv 1602.01783).

    l = -c H, a term of its own beside the policy loss, aggregated over its own mask; the gradient flows through H.

    Parameters
    ----------
    entropy : H of pi_theta over the whole vocabulary, in nats, floating, [..., T].
    mask : Valid tokens, boolean, [..., T].
    coefficient : c >= 0, per nat.

    Returns
    -------
    Array : -c H, [..., T], 0 outside the mask.

    Examples
    --------
    >>> import numpy as np
    >>> entropy_bonus(np.array([2.0, 1.0]), np.array([True, False]), coefficient=0.5).tolist()
    [-1.0, 0.0]
    """
    xp = check_entropy(entropy, mask=mask)
    require.boolean(xp, mask=mask)
    require.in_range("coefficient", coefficient, 0.0, largest_coefficient(xp, entropy))
    return xp.where(mask, -coefficient * entropy, 0.0)


def entropy_advantages(advantages: Array, entropy: Array, alpha: float = 0.4, kappa: float = 2.0) -> Array:
    """Entropy-based advantages (arXiv 2506.14758).

        A + psi,  psi = min( alpha stopgrad(H), |A| / kappa )

    psi >= 0 adds to a positive advantage and shrinks a negative one; it flips no sign and leaves A = 0 alone.

    Parameters
    ----------
    advantages : A after any normalisation, floating, [..., T].
    entropy : H of the current policy at every token, in nats, floating, [..., T].
    alpha : Weight of the entropy, >= 0, per nat.
    kappa : The bonus is at most the share 1 / kappa of |A|; kappa > 1.

    Returns
    -------
    Array : Shaped advantages, [..., T]; not to be normalised again. An entropy that rounding took below 0 counts as 0.

    Examples
    --------
    >>> import numpy as np
    >>> entropy_advantages(np.array([3.75, -0.25, -0.25]), np.array([1.0, 1.0, 0.1])).round(4).tolist()
    [4.15, -0.125, -0.21]
    """
    advantages, entropy = require.alike(advantages=advantages, entropy=entropy)
    xp = check_entropy(entropy, advantages=advantages)
    require.squarable(xp, advantages=advantages)
    require.in_range("alpha", alpha, 0.0, largest_coefficient(xp, entropy))
    require.in_range("kappa", kappa, 1.0, largest_coefficient(xp, advantages), open_low=True)
    bonus = alpha * clip(stop_gradient(entropy), 0.0, None)
    return advantages + xp.minimum(bonus, xp.abs(advantages) / kappa)
