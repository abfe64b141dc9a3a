"""Checks of what several files of this chapter take: tokens, entropies and instabilities."""

from __future__ import annotations

import math
from typing import Any

from theory.base import require
from theory.base.arrays import Array


def check_tokens(log_prob: Array, old_log_prob: Array, advantages: Array, **masks: Array) -> Any:
    """Require arrays of one shape, fit for a loss; return their namespace. The first mask is that of valid tokens."""
    reals = {"log_prob": log_prob, "old_log_prob": old_log_prob, "advantages": advantages}
    xp = require.namespace(**reals, **masks)
    require.squarable(xp, **reals)
    require.boolean(xp, **masks)
    require.same_shape(**reals, **masks)
    mask = next(iter(masks.values()))
    for name in ("log_prob", "old_log_prob"):
        require.values(name, reals[name], "values <= 0", lambda x: (x <= 0.01) | ~mask)
    return xp


def check_entropy(entropy: Array, **others: Array) -> Any:
    """Require H >= 0, of the shape of the others; return the namespace."""
    xp = require.namespace(entropy=entropy, **others)
    require.squarable(xp, entropy=entropy)
    require.same_shape(**others, entropy=entropy)
    require.values("entropy", entropy, "values >= 0", lambda x: x >= -0.01)
    return xp


def check_instability(xp: Any, instability: Array) -> None:
    """Require Xi >= 0."""
    require.finite(xp, instability=instability)
    require.values("instability", instability, "values >= 0", lambda x: x >= 0)


def largest_coefficient(xp: Any, x: Array) -> float:
    """Return the largest coefficient whose product with a checked array is sure to stay finite."""
    largest: float = float(xp.finfo(x.dtype).max)
    return math.sqrt(largest) / 4
