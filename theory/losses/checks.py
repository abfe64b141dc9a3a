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
    padding = ~next(iter(masks.values()))
    for name in ("log_prob", "old_log_prob"):
        if not bool(xp.all((reals[name] <= 0.01) | padding)):
            raise ValueError(f"{name}: expected values <= 0, got values above")
    return xp


def check_entropy(entropy: Array, **others: Array) -> Any:
    """Require H >= 0, of the shape of the others; return the namespace."""
    xp = require.namespace(entropy=entropy, **others)
    require.squarable(xp, entropy=entropy)
    require.same_shape(**others, entropy=entropy)
    if not bool(xp.all(entropy >= -0.01)):
        raise ValueError("entropy: expected values >= 0, got values below")
    return xp


def check_instability(xp: Any, instability: Array) -> None:
    """Require Xi >= 0."""
    require.finite(xp, instability=instability)
    if not bool(xp.all(instability >= 0)):
        raise ValueError("instability: expected values >= 0, got values below")


def largest_coefficient(xp: Any, x: Array) -> float:
    """Return the largest coefficient whose product with a checked array is sure to stay finite."""
    largest: float = float(xp.finfo(x.dtype).max)
    return math.sqrt(largest) / 4
