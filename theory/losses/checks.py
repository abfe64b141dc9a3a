"""Checks of what several files of this chapter take: tokens, entropies, instabilities, clip ranges and results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import array_api_compat

from theory.base import require
from theory.base.arrays import Array

LARGEST_CLIP = 1e9
"""Bound on clip ranges, above any ratio that the losses let through."""


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


def check_clip(clip_low: float, clip_high: float, dual_clip: float | None = None) -> None:
    """Require a clip range, and a dual clip above 1 or None."""
    require.in_range("clip_low", clip_low, 0.0, 1.0)
    require.in_range("clip_high", clip_high, 0.0, LARGEST_CLIP)
    if dual_clip is not None:
        require.in_range("dual_clip", dual_clip, 1.0, LARGEST_CLIP, open_low=True)


def check_part(part: object, method: str, like: Array, **results: Any) -> None:
    """Require that a loss or shaping of somebody's own returned arrays like another one; finite, if floating."""
    for name, x in results.items():
        label = f"{type(part).__name__}.{method}: {name}"
        xp = require.namespace(**{label: x, "tokens": like})
        require.same_shape(**{"tokens": like, label: x})
        if x.dtype != like.dtype:
            raise ValueError(f"{label}: expected dtype {like.dtype}, got {x.dtype}")
        if xp.isdtype(x.dtype, "real floating"):
            require.finite(xp, **{label: x})


@contextmanager
def unchanged(part: object, **arrays: Array) -> Iterator[None]:
    """Require that a loss or shaping of somebody's own leaves its arguments alone; torch counts changes, NumPy not."""
    before = {name: _version(x) for name, x in arrays.items()}
    yield
    for name, x in arrays.items():
        if _version(x) != before[name]:
            raise ValueError(f"{type(part).__name__}: expected {name} as it was, got it changed in place")


def _version(x: Array) -> int | None:
    return x._version if array_api_compat.is_torch_array(x) and not x.is_inference() else None
