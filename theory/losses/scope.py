"""The extremes of a training batch, which modulation compares its tokens with.

A batch is seldom seen at once: take `scope_of` every micro-batch and `Scope.merge` them over micro-batches and ranks.
Several batches side by side, such as those of many seeds, each get their own with `scope_of(..., axis=...)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from theory.base import require
from theory.base.arrays import Array, is_array, stop_gradient
from theory.losses.checks import check_instability
from theory.policy import TokenStatistics, require_statistics


@dataclass(frozen=True)
class Scope:
    """Extremes over the valid tokens of a batch, to which the factors refer.

    `Scope()` is that of no tokens; merged with any other it changes nothing, and under it all factors are 1.

    Parameters
    ----------
    entropy_min, entropy_max : H_min and H_max, in nats.
    instability_max : max Xi >= 0, in nats. All three are numbers, or arrays of one shape: [] for one batch (what
        `scope_of` returns, since a number of a GPU must be waited for); for several batches, one that broadcasts
        against their tokens.

    Examples
    --------
    >>> Scope.merge([Scope(0.1, 0.5, 2.0), Scope(0.2, 0.9, 1.0), Scope()])
    Scope(entropy_min=0.1, entropy_max=0.9, instability_max=2.0)
    """

    entropy_min: float | Array = math.inf
    entropy_max: float | Array = -math.inf
    instability_max: float | Array = 0.0

    def __post_init__(self) -> None:
        if is_array(self.entropy_min):
            fields = vars(self)
            xp = require.namespace(**fields)
            require.same_shape(**fields)
            empty = (self.entropy_min == math.inf) & (self.entropy_max == -math.inf) & (self.instability_max == 0)
            sound = (self.entropy_max >= self.entropy_min) & (self.instability_max >= 0)
            finite = xp.isfinite(self.entropy_max) & xp.isfinite(self.instability_max)
            expected = "0 <= entropy_min <= entropy_max and instability_max >= 0, finite"
            require.values("scope", self.entropy_min, expected, lambda low: empty | (sound & finite & (low >= -0.01)))
        elif (self.entropy_min, self.entropy_max, self.instability_max) != (math.inf, -math.inf, 0.0):
            low = require.in_range("entropy_min", self.entropy_min, -0.01)  # rounding, as in the check of statistics
            require.in_range("entropy_max", self.entropy_max, low)
            require.in_range("instability_max", self.instability_max, 0.0)

    @classmethod
    def merge(cls, scopes: Iterable[Scope]) -> Scope:
        """Return the scope of all tokens of some scopes: minimum of minima, maximum of maxima.

        Parameters
        ----------
        scopes : Scopes of micro-batches or ranks, any number: all of numbers, or all of arrays of one shape. `Scope()`
            fits either.

        Returns
        -------
        Scope : Theirs together; `Scope()` if there are none.

        Examples
        --------
        >>> Scope.merge([]) == Scope()
        True
        """
        parts = [part for part in scopes if is_array(part.entropy_min) or part != cls()] or [cls()]
        least, largest = min, max
        if any(is_array(part.entropy_min) for part in parts):
            xp = require.namespace(**{f"scopes[{i}]": part.entropy_min for i, part in enumerate(parts)})
            least, largest = xp.minimum, xp.maximum
        return cls(
            reduce(least, (part.entropy_min for part in parts)),
            reduce(largest, (part.entropy_max for part in parts)),
            reduce(largest, (part.instability_max for part in parts)),
        )


def scope_of(
    stats: TokenStatistics, instability: Array, mask: Array, *, axis: int | tuple[int, ...] | None = None
) -> Scope:
    """Return the extremes over the valid tokens of what is given: a batch, or a part of one for `Scope.merge`.

    Parameters
    ----------
    stats : Token statistics, each [...].
    instability : Xi >= 0 (11), [...], in nats.
    mask : True at valid tokens, [...], boolean.
    axis : Axes of one batch's tokens, where the other axes hold several batches; None means that all is one batch.

    Returns
    -------
    Scope : H_min, H_max and max Xi: arrays [], or with `axis` arrays in which those axes have length 1. Where no token
        is valid they are those of `Scope()`; where there is no token at all, `Scope()`.

    Examples
    --------
    >>> import numpy as np
    >>> from theory.policy import token_statistics
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1], [0.5, 0.5]])), np.array([0, 0]))
    >>> scope = scope_of(stats, np.array([0.2, 0.3]), np.array([True, False]))
    >>> [round(float(x), 4) for x in (scope.entropy_min, scope.entropy_max, scope.instability_max)]
    [0.3251, 0.3251, 0.2]
    """
    xp = require_statistics(stats)
    require.namespace(entropy=stats.entropy, instability=instability, mask=mask)
    check_instability(xp, instability)
    require.boolean(xp, mask=mask)
    require.same_shape(entropy=stats.entropy, instability=instability, mask=mask)
    entropy, instability = stop_gradient(stats.entropy), stop_gradient(instability)
    if 0 in mask.shape:
        return Scope()
    infinity, keep = xp.full_like(entropy, xp.inf), axis is not None
    return Scope(
        xp.min(xp.where(mask, entropy, infinity), axis=axis, keepdims=keep),
        xp.max(xp.where(mask, entropy, -infinity), axis=axis, keepdims=keep),
        xp.max(xp.where(mask, instability, xp.zeros_like(instability)), axis=axis, keepdims=keep),
    )
