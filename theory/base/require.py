"""Arguments in, `ValueError` out: every public function of `theory` checks its arguments with these.

Each message names the argument, what was expected and what came. Nothing is repaired. `xp` is the array namespace
of the inputs (NumPy or torch, through `array_api_compat`).

Types and shapes are checked always: that is free. Values of arrays are checked at the door, which is any call from
outside. A training step has computed or checked its inputs itself. It calls `theory` `with trusted():`, where no value
is looked at. On a GPU, each look would stop the program until the device has caught up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import array_api_compat
import numpy as np

from theory.base.arrays import Array, BoolArray, FloatArray, IntArray, is_array

MAX_COUNT = 2**31 - 1
"""Largest number of rollouts, in all and of a group: every sum of counts stays exact in int64 and float64."""

_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=False)


@contextmanager
def trusted() -> Iterator[None]:
    """Within, the values of arrays are taken as checked; in this thread only. Shapes and types are checked as ever.

    Examples
    --------
    >>> with trusted():
    ...     values("ratio", np.array([-1.0]), "values >= 0", lambda x: x >= 0)
    """
    before = _TRUSTED.set(True)
    try:
        yield
    finally:
        _TRUSTED.reset(before)


def values(name: str, x: Array, expected: str, valid: Callable[[Array], Array]) -> None:
    """Require a condition of every value of an array, unless values are `trusted`.

    Examples
    --------
    >>> values("ratio", np.array([1.0, -1.0]), "values >= 0", lambda x: x >= 0)
    Traceback (most recent call last):
    ValueError: ratio: expected values >= 0, got -1.0
    """
    if _TRUSTED.get():
        return
    holds = valid(x)
    if not bool(holds.all()):
        raise ValueError(f"{name}: expected {expected}, got {x[~holds][0].item()}")


def namespace(**arrays: Array) -> Any:
    """Return the one array namespace of the named arrays; mixing NumPy and torch is an error."""
    for name, x in arrays.items():
        if not array_api_compat.is_array_api_obj(x):
            raise ValueError(f"{name}: expected an array, got {type(x).__name__}")
    try:
        return array_api_compat.array_namespace(*arrays.values())
    except TypeError as error:
        kinds = ", ".join(f"{name}: {type(x).__module__}" for name, x in arrays.items())
        raise ValueError(f"{', '.join(arrays)}: expected one array library, got {kinds}") from error


def alike(**values: Any) -> tuple[Any, ...]:
    """Return arrays as they are, and a number as an array of that value, of the dtype and shape of the others.

    An array [] of one value is repeated too. Numbers alone become arrays of NumPy.

    Examples
    --------
    >>> alike(coefficient=1.5, log_prob=np.array([-1.0, -2.0]))
    (array([1.5, 1.5]), array([-1., -2.]))
    """
    arrays = [x for x in values.values() if is_array(x)]
    arrays = arrays or [np.asarray(x) for x in values.values() if isinstance(x, np.floating)] or [np.zeros(())]
    largest = max(arrays, key=lambda x: x.ndim)
    xp = namespace(arrays=largest)
    floating = xp.isdtype(largest.dtype, "real floating")

    def array(name: str, x: Any) -> Any:
        if is_array(x):
            own = array_api_compat.is_torch_array(x) == array_api_compat.is_torch_array(largest)
            return xp.broadcast_to(x, largest.shape) if x.ndim == 0 and own else x
        number = isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)
        if not number or not floating:
            return x
        most = float(xp.finfo(largest.dtype).max)
        value, device = in_range(name, x, -most, most), array_api_compat.device(largest)
        return xp.full(largest.shape, value, dtype=largest.dtype, device=device)

    return tuple(array(name, x) for name, x in values.items())


def finite(xp: Any, **arrays: Array) -> None:
    """Require real floating arrays without NaN or infinity."""
    for name, x in arrays.items():
        if not xp.isdtype(x.dtype, "real floating"):
            raise ValueError(f"{name}: expected a floating dtype, got {x.dtype}")
        # NaN compares as false. In torch this is several times as fast as isfinite.
        if not _TRUSTED.get() and not bool(xp.all(xp.abs(x) <= xp.finfo(x.dtype).max)):
            raise ValueError(f"{name}: expected finite values, got NaN or infinity")


def integer(xp: Any, **arrays: Array) -> None:
    """Require integer arrays."""
    for name, x in arrays.items():
        if not xp.isdtype(x.dtype, "integral"):
            raise ValueError(f"{name}: expected an integer dtype, got {x.dtype}")


def boolean(xp: Any, **arrays: Array) -> None:
    """Require boolean arrays."""
    for name, x in arrays.items():
        if not xp.isdtype(x.dtype, "bool"):
            raise ValueError(f"{name}: expected a boolean dtype, got {x.dtype}")


def same_shape(**arrays: Array) -> None:
    """Require one shape; broadcasting by accident is an error."""
    (first, reference), *rest = arrays.items()
    for name, x in rest:
        if tuple(x.shape) != tuple(reference.shape):
            raise ValueError(f"{name}: expected the shape of {first} {tuple(reference.shape)}, got {tuple(x.shape)}")


def in_range(
    name: str,
    value: float,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Require a finite scalar in [low, high], without the ends that are open."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name}: expected a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond float64
        number = np.inf
    outside = number < low or number > high or (open_low and number == low) or (open_high and number == high)
    if outside or not np.isfinite(number):
        ends = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
        raise ValueError(f"{name}: expected a finite number in {ends}, got {value!r}")
    return number


def count(name: str, value: int, minimum: int = 0, maximum: int | None = None) -> int:
    """Require an integer scalar from `minimum` to `maximum`; None is no limit."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name}: expected an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {value}")
    if maximum is not None and value > maximum:
        raise ValueError(f"{name}: expected at most {maximum}, got {value}")
    return int(value)


def generator(name: str, value: Any) -> None:
    """Require a random generator of NumPy."""
    if not isinstance(value, np.random.Generator):
        raise ValueError(f"{name}: expected a numpy.random.Generator, got {type(value).__name__}")


def resampling(rng: Any, confidence: float, num_resamples: int) -> float:
    """Require what a bootstrap needs; returns the confidence, a number in (0, 1)."""
    generator("rng", rng)
    count("num_resamples", num_resamples, 1)
    return in_range("confidence", confidence, 0.0, 1.0, open_low=True, open_high=True)


def one_of(name: str, value: Hashable, choices: Collection[Any]) -> None:
    """Require one of some choices."""
    if not isinstance(value, Hashable) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, got {value!r}")


def vector(name: str, value: Any, *, low: float = -np.inf, high: float = np.inf) -> FloatArray:
    """Require a non-empty 1-D sequence of finite numbers in [low, high]; return it as float64."""
    x = numbers(name, value, low=low, high=high)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"{name}: expected a non-empty 1-D array, got shape {x.shape}")
    return x


def numbers(name: str, value: Any, *, low: float = -np.inf, high: float = np.inf) -> FloatArray:
    """Require finite numbers in [low, high], of any shape; return them as float64."""
    x = _asarray(name, value, "numbers", "iuf").astype(np.float64)
    largest = float(np.finfo(np.float64).max)  # NaN compares as false, and infinity is beyond
    valid = (x >= max(low, -largest)) & (x <= min(high, largest))
    if not valid.all():
        index = int(np.argmin(valid))
        raise ValueError(f"{name}: expected finite values in [{low}, {high}], got {x.flat[index]} at index {index}")
    return x


def integers(name: str, value: Any, *, minimum: int = 0, maximum: int | None = None) -> IntArray:
    """Require integers from `minimum` to `maximum`, of any shape; return them as int64. None is no limit."""
    x = _asarray(name, value, "integers", "iu")
    bad = (x < minimum) | (x > np.iinfo(np.int64).max)
    if bad.any():
        raise ValueError(f"{name}: expected integers >= {minimum} of at most 64 bits, got {x[bad][0]}")
    if maximum is not None and (x > maximum).any():
        raise ValueError(f"{name}: expected at most {maximum}, got {x.max()}")
    return x.astype(np.int64)


def integer_vector(name: str, value: Any, *, minimum: int = 0, maximum: int | None = None) -> IntArray:
    """Require a non-empty 1-D array of integers from `minimum` to `maximum`; return it as int64."""
    x = integers(name, value, minimum=minimum, maximum=maximum)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"{name}: expected a non-empty 1-D array, got shape {x.shape}")
    return x


def groups(successes: Any, attempts: Any, minimum: int = 0) -> tuple[IntArray, IntArray]:
    """Require k of n for each of several groups, 0 <= k <= n, n from `minimum` to `MAX_COUNT`; return them as int64."""
    n = integer_vector("attempts", attempts, minimum=minimum, maximum=MAX_COUNT)
    k = integer_vector("successes", successes)
    same_shape(successes=k, attempts=n)
    at_most(successes=k, attempts=n)
    return k, n


def at_most(**arrays: np.ndarray[Any, Any]) -> None:
    """Require the entries of a first array to be at most those of a second one of its shape."""
    (name, x), (limit, most) = arrays.items()
    if (x > most).any():
        index = int(np.argmax(x > most))
        raise ValueError(f"{name}: expected at most {limit}, got {x.flat[index]} > {most.flat[index]} at index {index}")


def booleans(name: str, value: Any) -> BoolArray:
    """Require booleans, of any shape."""
    return _asarray(name, value, "booleans", "b")


def broadcast(**arrays: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """Require NumPy arrays that broadcast; return them at their common shape, read-only."""
    try:
        return tuple(np.broadcast_arrays(*arrays.values()))
    except ValueError as error:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise ValueError(f"{', '.join(arrays)}: expected shapes that broadcast, got {shapes}") from error


def _asarray(name: str, value: Any, wanted: str, kinds: str) -> np.ndarray[Any, Any]:
    try:
        x = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: expected an array, got {type(value).__name__}") from error
    if x.dtype.kind not in kinds:
        raise ValueError(f"{name}: expected {wanted}, got dtype {x.dtype}")
    return x


def representable(xp: Any, **results: Array) -> None:
    """Require results without infinity or NaN: finite arguments whose result overflows the dtype are an error."""
    for name, x in results.items():
        if not _TRUSTED.get() and not bool(xp.all(xp.isfinite(x))):
            raise ValueError(f"{name}: expected a result that {x.dtype} can hold, got an overflow")


def squarable(xp: Any, **arrays: Array) -> None:
    """Require finite floating arrays so far from overflow that products of their differences stay finite."""
    finite(xp, **arrays)
    for name, x in arrays.items():
        limit = xp.finfo(x.dtype).max ** 0.5 / 4
        if not _TRUSTED.get() and not bool(xp.all(xp.abs(x) <= limit)):
            raise ValueError(f"{name}: expected magnitudes of at most {limit:.3g}, got larger")
