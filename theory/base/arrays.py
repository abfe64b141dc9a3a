"""Types of arrays, and the few operations on them that NumPy, torch and the array API standard lack."""

from __future__ import annotations

import math
from typing import Any

import array_api_compat
import numpy as np

Array = Any
"""A NumPy array or a torch tensor; the namespace is taken from the argument."""

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


def is_array(x: Any) -> bool:
    """Return whether `x` is an array or a tensor; NumPy's scalars are numbers."""
    return array_api_compat.is_array_api_obj(x) and not isinstance(x, np.generic)


def stop_gradient(x: Array) -> Array:
    """Return `x` as a constant for differentiation (`detach` on torch, itself on NumPy)."""
    return x.detach() if array_api_compat.is_torch_array(x) else x


def clip(x: Array, low: Any = None, high: Any = None) -> Array:
    """Return `x` between bounds, dtype kept; that of `array_api_compat` indexes by booleans."""
    return x.clamp(low, high) if array_api_compat.is_torch_array(x) else np.clip(x, low, high)


def group_index(xp: Any, keys: Array) -> Array:
    """Return the number of each key [N] among the different keys in sorted order, from 0.

    On torch no shape depends on the keys, unlike with `unique`, so that a GPU need not be waited for.
    """
    if not array_api_compat.is_torch_array(keys):
        return np.unique(keys, return_inverse=True)[1]
    order = xp.argsort(keys, stable=True)
    ranked = keys[order]
    new = xp.zeros_like(order)
    new[1:] = xp.astype(ranked[1:] != ranked[:-1], new.dtype)
    return xp.zeros_like(order).scatter(0, order, new.cumsum(0))


def segment_sum(xp: Any, values: Array, segments: Array, num_segments: int) -> Array:
    """Sum `values` [N] within `segments` (ids [N] in [0, num_segments)); returns [num_segments], dtype kept."""
    if array_api_compat.is_torch_array(values):
        return xp.zeros(num_segments, dtype=values.dtype, device=values.device).index_add(0, segments, values)
    return np.bincount(segments, weights=values, minlength=num_segments).astype(values.dtype)


def distinct(*columns: IntArray) -> tuple[tuple[IntArray, ...], IntArray]:
    """Return the different rows of some columns, and which of these each row is: a log has few different groups."""
    spans = [int(x.max()) + 1 for x in columns]
    if math.prod(spans) > 2**22:
        rows, where = np.unique(np.stack(columns), axis=1, return_inverse=True)
        return tuple(rows), where.reshape(-1)
    code = np.ravel_multi_index(columns, spans)
    seen = np.bincount(code, minlength=math.prod(spans)) > 0
    return np.unravel_index(np.flatnonzero(seen), spans), (np.cumsum(seen) - 1)[code]
