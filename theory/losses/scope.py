"""The extremes of a training batch, which modulation compares its tokens with.

A batch is seldom seen at once: take `scope_of` every micro-batch and `Scope.merge` them over micro-batches and ranks.
Several batches side by side, such as those of many seeds, each get their own with `scope_of(..., axis=...)`.
"""

from __future__ import annotations

import dataclasses
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

    `Scope()` is that of no tokens; merged with any other it changes nothing, and under it all factors are 1. Fields are
    numbers; or, for several batches side by side, three arrays of one shape that broadcasts against the tokens.

    Parameters
    ----------
    entropy_min, entropy_max
        H_min and H_max, in nats.
    instability_max
        max Xi >= 0, in nats.

    Raises
    ------
    ValueError
        If a value is not finite (save in a scope of no tokens) or out of range, or entropy_min exceeds entropy_max.

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
            fields = dataclasses.asdict(self)
            xp = require.namespace(**fields)
            require.same_shape(**fields)
            empty = (self.entropy_min == math.inf) & (self.entropy_max == -math.inf) & (self.instability_max == 0)
            sound = (self.entropy_min >= -0.01) & (self.entropy_max >= self.entropy_min) & (self.instability_max >= 0)
            finite = xp.isfinite(self.entropy_max) & xp.isfinite(self.instability_max)
            if not bool(xp.all(empty | (sound & finite))):
                raise ValueError("scope: expected 0 <= entropy_min <= entropy_max and instability_max >= 0, got others")
            return
        if (self.entropy_min, self.entropy_max, self.instability_max) == (math.inf, -math.inf, 0.0):
            return
        low = require.in_range("entropy_min", self.entropy_min, -0.01)  # rounding, as in the check of statistics
        require.in_range("entropy_max", self.entropy_max, low)
        require.in_range("instability_max", self.instability_max, 0.0)

    @classmethod
    def merge(cls, scopes: Iterable[Scope]) -> Scope:
        """Return the scope of all tokens of some scopes: minimum of minima, maximum of maxima.

        Parameters
        ----------
        scopes
            Scopes of micro-batches or ranks, any number; all of numbers, or all of arrays of one shape.

        Returns
        -------
        Scope
            Theirs together; `Scope()` if there are none.

        Examples
        --------
        >>> Scope.merge([]) == Scope()
        True
        """
        parts = list(scopes)
        if parts and is_array(parts[0].entropy_min):
            xp = require.namespace(**{f"scopes[{i}]": part.entropy_min for i, part in enumerate(parts)})
            least, largest = xp.minimum, xp.maximum
        else:
            parts, least, largest = [cls(), *parts], min, max
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
    stats
        Token statistics, each [...].
    instability
        Xi >= 0 (11), [...], in nats.
    mask
        True at valid tokens, [...], boolean.
    axis
        Axes of one batch's tokens, where the other axes hold several batches; None means that all is one batch.

    Returns
    -------
    Scope
        H_min, H_max and max Xi: Python numbers, or with `axis` arrays in which those axes have length 1. `Scope()`, or
        its values, where no token is valid.

    Raises
    ------
    ValueError
        If shapes differ, `mask` is not boolean, or values are not finite or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from theory.policy import token_statistics
    >>> stats = token_statistics(np.log(np.array([[0.9, 0.1], [0.5, 0.5]])), np.array([0, 0]))
    >>> scope = scope_of(stats, np.array([0.2, 0.3]), np.array([True, False]))
    >>> round(scope.entropy_min, 4), round(scope.entropy_max, 4), scope.instability_max
    (0.3251, 0.3251, 0.2)
    """
    xp = require_statistics(stats)
    check_instability(xp, instability)
    require.boolean(xp, mask=mask)
    require.same_shape(entropy=stats.entropy, instability=instability, mask=mask)
    entropy, instability = stop_gradient(stats.entropy), stop_gradient(instability)
    if axis is not None:
        infinity = xp.full_like(entropy, xp.inf)
        return Scope(
            xp.min(xp.where(mask, entropy, infinity), axis=axis, keepdims=True),
            xp.max(xp.where(mask, entropy, -infinity), axis=axis, keepdims=True),
            xp.max(xp.where(mask, instability, xp.zeros_like(instability)), axis=axis, keepdims=True),
        )
    if not bool(xp.any(mask)):
        return Scope()
    return Scope(float(xp.min(entropy[mask])), float(xp.max(entropy[mask])), float(xp.max(instability[mask])))
