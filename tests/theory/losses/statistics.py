"""Token statistics for the tests of modulation and of its scope."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.theory import fuzzing
from theory.losses import Scope
from theory.policy import TokenStatistics, token_statistics


def batch(rng, rows=6, length=5, num_tokens=7):
    """Return float64 NumPy statistics, advantages and a mask with ragged lengths, one of them 0."""
    stats = token_statistics(rng.normal(size=(rows, length, num_tokens)) * 2, rng.integers(7, size=(rows, length)))
    advantages = np.repeat(rng.normal(size=(rows, 1)), length, axis=1)
    mask = np.arange(length) < rng.integers(1, length + 1, size=(rows, 1))
    mask[0] = False
    return stats, advantages, mask


def put(backend, stats):
    return TokenStatistics(*(backend(x) for x in stats))


STATS = token_statistics(np.zeros((2, 3)), np.array([0, 1]))
ONES, VALID = np.ones(2), np.ones(2, dtype=bool)
floats = st.floats(0, 1) | fuzzing.any_float
scopes = st.just(Scope()) | st.tuples(st.floats(0, 1e3), st.floats(0, 1e308), st.floats(0, 1e308)).map(
    lambda x: Scope(x[0], x[0] + x[1] / 2, x[2])
)


def arrays(num):
    """Return a strategy of `num` float arrays [n], n from 0 to 3, in one array [num, n]."""
    return fuzzing.float_arrays(st.tuples(st.just(num), st.integers(0, 3)), floats)


def statistics_of(values):
    """Statistics from the first four of at least four arrays; two of them are moved into range."""
    return TokenStatistics(-values[0], values[1], np.clip(np.nan_to_num(values[2]), 0, 1), values[3])


masks = hnp.arrays(np.bool_, 3)
