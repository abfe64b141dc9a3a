"""The crossed bootstrap against closed forms, plain loops, and its promised coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from theory.statistics import crossed_bootstrap_interval, intervals


def test_resampled_means_are_those_of_copied_rows(monkeypatch):
    """Weights against indexing: repeat the drawn runs and problems and take the mean; in blocks as at once."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 2))
    runs, problems = intervals._weights(rng, 3, 40), intervals._weights(rng, 5, 40)
    means = intervals._resampled_means(x, runs, problems)
    for got, run, problem in zip(means, runs, problems, strict=True):
        copied = x.repeat(np.rint(3 * run).astype(int), axis=0).repeat(np.rint(5 * problem).astype(int), axis=1)
        assert copied.shape == x.shape
        np.testing.assert_allclose(got, copied.mean(axis=(0, 1)), rtol=1e-12)
    monkeypatch.setattr(intervals, "MAX_BLOCK", 25)
    np.testing.assert_array_equal(intervals._resampled_means(x, runs, problems), means)


def closed_variance(x):
    """Variance of the resampled mean: E[W_r W_s] = 1 - 1/R + [r = s] for both kinds of weights."""
    num_runs, num_problems = x.shape
    runs = 1 - 1 / num_runs + np.eye(num_runs)
    problems = 1 - 1 / num_problems + np.eye(num_problems)
    return np.einsum("ri,rs,ij,sj->", x, runs, problems, x) / x.size**2 - x.mean() ** 2


@pytest.mark.parametrize("shape", [(1, 60), (3, 30), (8, 4)])
def test_variance_of_the_resamples(shape):
    """Closed form, within 5 standard errors of 40,000 resamples; with one run it is the plain bootstrap's."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape) + rng.normal(size=(shape[0], 1))
    runs, problems = (intervals._weights(rng, size, 40_000) for size in shape)
    means = intervals._resampled_means(x, runs, problems)
    exact = closed_variance(x)
    squares = (means - x.mean()) ** 2
    assert abs(squares.mean() - exact) < 5 * squares.std() / 200
    if shape[0] == 1:
        assert exact == pytest.approx(x.var() / x.size, rel=1e-12)


def test_the_mean_of_strata_keeps_runs_together():
    """Strata that differ by run alone: the mean's interval is as wide as theirs, since a run is good at everything."""
    effect = np.array([[0.0], [1.0], [5.0], [9.0]])
    interval = crossed_bootstrap_interval([effect + np.zeros((4, p)) for p in (7, 3)], np.random.default_rng(0))
    np.testing.assert_allclose(interval.low, interval.low[0])
    np.testing.assert_allclose(interval.high, interval.high[0])
    np.testing.assert_allclose(interval.point, 3.75)
    assert interval.high[0] - interval.low[0] > 4


def test_strata_draw_their_problems_independently():
    """Two strata of one run: their mean has half the variance of each, also where they hold the same scores."""
    x = np.random.default_rng(0).normal(size=(1, 60))
    interval = crossed_bootstrap_interval([x, x], np.random.default_rng(1))
    first, second, mean = interval.high - interval.low
    assert first == pytest.approx(second, rel=0.1)
    assert mean == pytest.approx(first / np.sqrt(2), rel=0.1)


def test_coverage():
    """200 populations of problems, one run of Bernoulli scores: 95 % intervals hold the truth in 90 to 99 % of them.

    4 standard errors of the count are 6 points; percentile intervals are known to be a little short.
    """
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        p = rng.beta(1, 2, size=80)
        scores = rng.binomial(16, p)[None] / 16
        interval = crossed_bootstrap_interval([scores], rng, num_resamples=400)
        held += bool(interval.low[0] <= 1 / 3 <= interval.high[0])
    assert 0.89 <= held / 200 <= 1.0


def test_same_state_same_interval():
    x = np.random.default_rng(0).random((2, 9, 3))
    first, second = (crossed_bootstrap_interval([x], np.random.default_rng(5)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strata": []}, "strata: expected at least one array"),
        ({"strata": np.zeros((2, 2, 2))}, "strata: expected at least one array in a list, got ndarray"),
        ({"strata": [np.zeros(3)]}, r"strata\[0\]: expected shape \[num_runs, num_problems, ...\], got \(3,\)"),
        ({"strata": [np.zeros((0, 3))]}, r"strata\[0\]: expected shape"),
        ({"strata": [np.zeros((2, 3)), np.zeros((3, 3))]}, r"strata\[1\]: expected the runs and further axes"),
        ({"strata": [[[np.nan, 1.0]]]}, r"strata\[0\]: expected finite values"),
        ({"rng": 3}, "rng: expected a numpy.random.Generator, got int"),
        ({"confidence": 1.0}, "confidence: expected a finite number in"),
        ({"num_resamples": 0}, "num_resamples: expected an integer >= 1"),
    ],
)
def test_names_a_bad_argument(change, message):
    arguments = {"strata": [np.zeros((2, 3))], "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=message):
        crossed_bootstrap_interval(**{**arguments, **change})


arrays = fuzzing.float_arrays(
    st.sampled_from([(), (1,), (0, 2), (1, 1), (2, 1), (3, 2), (2, 2, 3)]), st.floats(-1e300, 1e300) | fuzzing.any_float
)


@fuzzing.fuzz
@given(st.lists(arrays, max_size=2), st.just(0.95) | fuzzing.any_float, st.integers(-1, 5))
def test_fuzz_crossed_bootstrap_interval(strata, confidence, num_resamples):
    got = fuzzing.call(crossed_bootstrap_interval, strata, np.random.default_rng(0), confidence, num_resamples)
    assert got is None or np.all(got.low <= got.high)
