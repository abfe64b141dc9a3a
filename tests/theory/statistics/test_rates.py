"""theory.statistics.rates: golden values, coverage, bad input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import binom

from tests.theory.fuzzing import any_float, call, fuzz
from tests.theory.made_logs import groups
from theory.statistics.rates import jeffreys_interval


class TestJeffreysInterval:
    def test_golden(self):
        """mpmath, 30 digits: the root t of betainc(k + 1/2, n - k + 1/2, 0, t, regularized=True) - 0.025 or 0.975."""
        low, high = jeffreys_interval([1, 8, 3, 0], [4, 16, 100, 16])
        lows = [0.0284708950871468, 0.272234747118479, 0.00852028310740358, 0.0]
        highs = [0.716248320436587, 0.727765252881521, 0.0778875694264026, 0.143184137931445]
        np.testing.assert_allclose(low, lows, rtol=1e-12)
        np.testing.assert_allclose(high, highs, rtol=1e-12)

    def test_mean_coverage(self):
        """Averaged over p the interval holds p in 95 % of the cases, to one per cent, as a Bayesian interval does."""
        p = np.linspace(0.02, 0.98, 193)
        for n in (8, 16, 64):
            k = np.arange(n + 1)
            low, high = jeffreys_interval(k, np.full(n + 1, n))
            held = (low <= p[:, None]) & (p[:, None] <= high)
            assert (binom.pmf(k, n, p[:, None]) * held).sum(axis=1).mean() == pytest.approx(0.95, abs=0.012)

    def test_is_symmetric_and_ordered(self):
        k = np.arange(13)
        low, high = jeffreys_interval(k, np.full(13, 12), 0.8)
        np.testing.assert_allclose(low, 1 - high[::-1], atol=1e-12)
        assert all(a < b for a, b in pairwise(low))


@fuzz
@given(st.one_of(groups(), groups(2**31)), st.one_of(st.floats(0.001, 0.999), any_float))
def test_fuzz_jeffreys_interval(x, confidence):
    ends = call(jeffreys_interval, x[0], x[1], confidence)
    if ends is not None:
        assert np.all((ends[0] >= 0) & (ends[0] <= ends[1]) & (ends[1] <= 1))
