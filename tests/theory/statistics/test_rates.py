"""theory.statistics.rates: golden values, coverage, clusters, bad input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import binom

from tests.theory.fuzzing import any_float, call, float_arrays, fuzz
from tests.theory.made_logs import counts, groups, seeds
from theory.statistics import rates
from theory.statistics.intervals import Interval
from theory.statistics.rates import jeffreys_interval, ratio_intervals


class TestRatioIntervals:
    def test_point_and_zeros(self, rng):
        interval = ratio_intervals([[1.0, 0.0], [2.0, 0.0]], [[2.0, 0.0], [4.0, 0.0]], [0, 1], rng)
        assert [x.tolist() for x in interval] == [[0.5, 1.0]] * 3

    def test_rows_of_a_cluster_stay_together(self):
        """As one row per cluster, to the last bit; the order of rows is immaterial."""
        rng = np.random.default_rng(0)
        x, y, cluster = rng.random((60, 2)), 1 + rng.random((60, 2)), np.repeat(np.arange(12), 5)
        interval = ratio_intervals(x, y, cluster, np.random.default_rng(1), num_resamples=300)
        sums = [z.reshape(12, 5, 2).sum(axis=1) for z in (x, y)]
        again = ratio_intervals(*sums, np.arange(12), np.random.default_rng(1), num_resamples=300)
        for one, other in zip(interval, again, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)
        wide = interval.high - interval.low
        alone = ratio_intervals(x, y, np.arange(60), np.random.default_rng(1), num_resamples=300)
        assert np.all(wide > 0)
        assert np.all(np.abs(alone.high - alone.low - wide) > 0)

    @pytest.mark.parametrize("num_resamples", [1, 256, 257, 300])
    def test_draws_as_many_resamples_as_asked(self, num_resamples, monkeypatch):
        drawn, percentile = [], Interval.percentile

        def record(point, estimates, confidence):
            drawn.append(len(estimates))
            return percentile(point, estimates, confidence)

        monkeypatch.setattr(Interval, "percentile", record)
        ratio_intervals([[1.0], [2.0]], [[2.0], [1.0]], [0, 1], np.random.default_rng(0), num_resamples=num_resamples)
        assert drawn == [num_resamples]

    def test_coverage(self):
        """A ratio of means of correlated rows: 95 % intervals hold the truth in at least 90 % of 200 cases."""
        rng, hits = np.random.default_rng(5), 0
        for _ in range(200):
            own = rng.gamma(2.0, size=(80, 1))
            y = (own * rng.gamma(3.0, 1 / 3, size=(80, 4))).reshape(-1, 1)
            x = 0.8 * y * rng.gamma(4.0, 1 / 4, size=y.shape)
            low, high = ratio_intervals(x, y, np.repeat(np.arange(80), 4), rng, num_resamples=400)[1:]
            hits += bool(low[0] <= 0.8 <= high[0])
        assert 180 <= hits <= 199

    def test_more_clusters_than_are_resampled(self, monkeypatch):
        """Pooled, the interval is about as wide."""
        rng = np.random.default_rng(0)
        x, y = rng.random((3000, 1)), 1 + rng.random((3000, 1))
        one = ratio_intervals(x, y, np.arange(3000), np.random.default_rng(1), num_resamples=500)
        monkeypatch.setattr(rates, "MAX_CLUSTERS", 300)
        other = ratio_intervals(x, y, np.arange(3000), np.random.default_rng(1), num_resamples=500)
        assert one.point == pytest.approx(other.point)
        assert (other.high - other.low) / (one.high - one.low) == pytest.approx(1.0, abs=0.2)

    def test_pools_do_not_follow_the_numbers_of_the_clusters(self, monkeypatch):
        """Were cluster i and cluster i + 50 pooled, their opposite errors would cancel, and no width would be left."""
        monkeypatch.setattr(rates, "MAX_CLUSTERS", 50)
        error = np.random.default_rng(0).random(50)
        x = 1 + np.concatenate([error, -error])[:, None]
        interval = ratio_intervals(x, np.ones((100, 1)), np.arange(100), np.random.default_rng(1), num_resamples=500)
        # 100 independent errors of root mean square 0.58: a standard error of 0.058.
        assert 0.15 < interval.high[0] - interval.low[0] < 0.3

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"numerators": [1.0]}, r"numerators: expected shape \[G, R\]"),
            ({"denominators": [[1.0]]}, "denominators: expected the shape of numerators"),
            ({"denominators": [[1.0], [-2.0]]}, "denominators: expected a positive sum, got"),
            ({"clusters": [0]}, "clusters: expected one per row, 2, got 1"),
            ({"rng": 0}, "rng: expected a numpy.random.Generator, got int"),
            ({"confidence": 1.0}, r"confidence: expected a finite number in \(0.0, 1.0\), got 1.0"),
            ({"num_resamples": 0}, "num_resamples: expected an integer >= 1, got 0"),
        ],
    )
    def test_bad_input(self, change, message, rng):
        given = {"numerators": [[1.0], [2.0]], "denominators": [[1.0], [2.0]], "clusters": [0, 1], "rng": rng}
        with pytest.raises(ValueError, match=message):
            ratio_intervals(**{**given, **change})


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
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3)).flatmap(
        lambda shape: st.tuples(*[float_arrays(shape, st.one_of(st.floats(0, 1e300), any_float))] * 2)
    ),
    counts,
    st.one_of(st.floats(0.01, 0.99), any_float),
    seeds,
)
def test_fuzz_ratio_intervals(x, clusters, confidence, seed):
    for given_clusters in (clusters, list(range(len(x[0])))):
        call(ratio_intervals, *x, given_clusters, np.random.default_rng(seed), confidence, 5)


@fuzz
@given(st.one_of(groups(), groups(2**31)), st.one_of(st.floats(0.001, 0.999), any_float))
def test_fuzz_jeffreys_interval(x, confidence):
    ends = call(jeffreys_interval, x[0], x[1], confidence)
    if ends is not None:
        assert np.all((ends[0] >= 0) & (ends[0] <= ends[1]) & (ends[1] <= 1))
