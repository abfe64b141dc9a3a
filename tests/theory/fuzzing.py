"""Fuzzing of public functions: no exception but ValueError, and no NaN out of finite input.

There are 25 examples of each in `make check`, 100 in `make test` and 2,000 in `make test-long`.

`tests/theory/test_public.py` checks that every public function `f` of `theory.m` has a `test_fuzz_f` in
`tests/theory/test_m.py` (and every public method `C.f` a `test_fuzz_C_f`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.extra import numpy as hnp

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))

MOST_DAMAGED = 500

DAMAGED = min(EXAMPLES, MOST_DAMAGED)
"""Damaged files for each reader, each of which takes longer than an example."""

fuzz = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
"""Decorate a `@given` test with this."""


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function`; a ValueError must carry a message and gives None; a result must hold no NaN or infinity."""
    try:
        result = function(*args, **kwargs)
    except ValueError as error:
        assert ":" in str(error), f"a ValueError should read 'argument: expected ..., got ...', not {error}"
        return None
    for leaf in leaves(result):
        assert np.all(np.isfinite(leaf)), f"not finite: {result}"
    return result


def leaves(result: Any) -> Iterator[np.ndarray]:
    if isinstance(result, torch.Tensor):
        result = result.detach().numpy()
    if isinstance(result, (np.ndarray, np.generic, int, float)):
        array = np.asarray(result)
        if array.dtype.kind in "fiu":
            yield array
    elif isinstance(result, dict):
        for value in result.values():
            yield from leaves(value)
    elif isinstance(result, (tuple, list)):
        for value in result:
            yield from leaves(value)
    elif is_dataclass(result):
        for field in fields(result):
            yield from leaves(getattr(result, field.name))


any_float = st.floats(allow_nan=True, allow_infinity=True)
finite_float = st.floats(-1e6, 1e6)


def float_arrays(shape: Any, elements: st.SearchStrategy[float] = finite_float) -> st.SearchStrategy[np.ndarray]:
    """float64 arrays of a shape (a tuple or a strategy of shapes)."""
    return hnp.arrays(np.float64, shape, elements=elements)
