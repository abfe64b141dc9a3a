"""Made problems that the tests of shares and of optima draw, and what every count must satisfy."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.theory import fuzzing

numbers = st.floats(0, 1.7e308) | st.sampled_from([0.0, 1.0, 2.0, 5.5]) | fuzzing.any_float
vectors = st.lists(numbers, max_size=4).map(np.array)
nonnegative = st.lists(st.floats(0, 1.7e308), min_size=1, max_size=4).map(np.array)
budgets = st.integers(-1, 60) | st.sampled_from([2**31 - 1, 2**31, 2**70, 1.5, True])
bounds = (
    st.integers(-1, 5)
    | st.integers(0, 2**70)
    | st.lists(st.integers(0, 12), max_size=6).map(lambda x: np.array(x, dtype=np.int64))
)
count_vectors = st.lists(st.integers(0, 30) | numbers, min_size=1, max_size=4).map(np.array)


@st.composite
def feasible(draw):
    """Bounds, a budget that they can meet, and integer weights: real shares differ by rounding or by much more."""
    num = draw(st.integers(1, 8))
    vector = lambda high: np.array(draw(st.lists(st.integers(0, high), min_size=num, max_size=num)))  # noqa: E731
    weights, low = vector(50).astype(np.float64), vector(5)
    high = low + vector(20)
    return weights, draw(st.integers(int(low.sum()), int(high.sum()))), low, high


def check_counts(counts, budget):
    if counts is not None:
        assert counts.dtype == np.int64
        assert counts.sum() == budget
        assert np.all(counts >= 0)
