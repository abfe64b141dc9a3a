"""Means over runs and problems: closed forms, Student's interval where there is one part only, and strata."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from tests.theory import fuzzing
from theory.statistics import crossed, crossed_interval


def half_width(x, tail=0.025):
    """As in the docstring, with the three mean squares of the two-way layout written out in loops."""
    runs, problems = x.shape
    mean = x.mean()
    of_runs = sum((x[r].mean() - mean) ** 2 for r in range(runs)) / (runs - 1) / runs
    of_problems = sum((x[:, i].mean() - mean) ** 2 for i in range(problems)) / (problems - 1) / problems
    rest = sum((x[r, i] - x[r].mean() - x[:, i].mean() + mean) ** 2 for r in range(runs) for i in range(problems))
    rest /= (runs - 1) * (problems - 1) * runs * problems
    part = max(of_runs - (rest if runs > 2 else 0.0), 0.0)
    return np.sqrt(stats.t.isf(tail, problems - 1) ** 2 * of_problems + stats.t.isf(tail, runs - 1) ** 2 * part)


@pytest.mark.parametrize("shape", [(2, 30), (3, 30), (8, 4)])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_is_the_closed_form(shape, spread):
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape) + spread * rng.normal(size=(shape[0], 1))
    interval = crossed_interval([x])
    for stratum in (0, 1):  # one stratum is the mean of the strata, too
        assert interval.point[stratum] == pytest.approx(x.mean())
        assert interval.high[stratum] - interval.point[stratum] == pytest.approx(half_width(x), rel=1e-10)
        assert interval.point[stratum] - interval.low[stratum] == pytest.approx(half_width(x), rel=1e-10)


def test_the_mean_squares_are_unbiased():
    """Over 20,000 layouts, within 5 standard errors: what runs and the remainder add to the mean's variance."""
    rng = np.random.default_rng(0)
    runs, problems, num = 3, 5, 20_000
    x = rng.normal(size=(runs, problems, num)) + 2 * rng.normal(size=(runs, 1, num)) + rng.normal(size=(problems, num))
    rest = crossed._of_remainder(x)
    of_runs = x.mean(axis=1).var(axis=0, ddof=1) / runs - rest
    for got, exact in ((rest, 1 / 15), (of_runs, 4 / 3)):
        assert abs(got.mean() - exact) < 5 * got.std() / np.sqrt(num)


def test_one_run_has_students_interval_over_problems():
    x = np.random.default_rng(0).normal(size=(1, 40))
    interval = crossed_interval([x], 0.9)
    expected = stats.ttest_1samp(x[0], 0).confidence_interval(0.9)
    assert (interval.low[0], interval.high[0]) == pytest.approx((expected.low, expected.high), rel=1e-10)


def test_runs_that_differ_alone_have_students_interval_over_runs():
    effect = np.array([0.1, 0.2, 0.6])
    interval = crossed_interval([effect[:, None] + np.zeros((3, 9))])
    expected = stats.ttest_1samp(effect, 0).confidence_interval()
    assert (interval.low[0], interval.high[0]) == pytest.approx((expected.low, expected.high), rel=1e-10)


def test_the_mean_of_strata_keeps_runs_together():
    """Strata that differ by run alone: the mean's interval is as wide as theirs, since a run is good at everything."""
    effect = np.array([[0.0], [1.0], [5.0], [9.0]])
    interval = crossed_interval([effect + np.zeros((4, p)) for p in (7, 3)])
    np.testing.assert_allclose(interval.low, interval.low[0])
    np.testing.assert_allclose(interval.high, interval.high[0])
    np.testing.assert_allclose(interval.point, 3.75)
    assert interval.high[0] - interval.low[0] > 4


@pytest.mark.parametrize("num_runs", [1, 3])
def test_strata_draw_their_problems_independently(num_runs):
    """Two strata without effects of runs: their mean has half the variance, also where they hold the same scores."""
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 60)), num_runs, axis=0)
    interval = crossed_interval([x, x])
    first, second, mean = interval.high - interval.low
    assert first == second
    assert mean == pytest.approx(first / np.sqrt(2), rel=1e-10)


def test_shares_have_their_interval_on_the_scale_of_the_logit():
    """Each end is of the scores and one more problem, which has the score of that end."""
    x = np.random.default_rng(0).random((3, 20))
    shares = crossed_interval([x], shares=True)
    np.testing.assert_allclose(shares.point, x.mean(), rtol=1e-14)
    for score, end in ((0.0, "low"), (1.0, "high")):
        plain = crossed_interval([np.c_[x, np.full(3, score)]])
        p, mine, other = plain.point, getattr(shares, end), getattr(plain, end)
        np.testing.assert_allclose(np.log(mine / (1 - mine)) - np.log(p / (1 - p)), (other - p) / (p * (1 - p)))


@pytest.mark.parametrize("num_runs", [1, 3])
@pytest.mark.parametrize("problems", [5, 30, 500])
def test_shares_that_are_all_equal_are_no_point(num_runs, problems):
    """All of n right leaves shares down to .025^(1/n) possible (Clopper and Pearson), whatever the law in [0, 1]."""
    exact = 0.025 ** (1 / problems)
    ones = crossed_interval([np.ones((num_runs, problems))], shares=True)
    assert ones.low[0] < exact
    assert (ones.point[0], ones.high[0]) == (1.0, 1.0)
    zeros = crossed_interval([np.zeros((num_runs, problems))], shares=True)
    assert (zeros.low[0], zeros.point[0]) == (0.0, 0.0)
    assert zeros.high[0] == pytest.approx(1 - ones.low[0], rel=1e-12)


def test_shares_of_one_problem_have_no_interval():
    assert np.isnan(crossed_interval([np.ones((2, 1))], shares=True).low).all()
    with pytest.raises(ValueError, match=r"strata\[0\]: expected finite values in \[0.0, 1.0\], got 1.5"):
        crossed_interval([[[1.5, 0.0]]], shares=True)


def test_one_problem_has_no_interval():
    interval = crossed_interval([np.zeros((3, 1)), np.zeros((3, 2))])
    assert np.isnan(interval.low).tolist() == [True, False, True]
    assert np.isnan(interval.high).tolist() == [True, False, True]


def test_further_axes_are_carried_along():
    x = np.random.default_rng(0).random((3, 9, 2)) * [1.0, 2.0]
    together = crossed_interval([x, x[:, :5]])
    for axis in (0, 1):
        alone = crossed_interval([x[..., axis], x[:, :5, axis]])
        for one, all_of in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, all_of[:, axis], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strata": []}, "strata: expected at least one array"),
        ({"strata": np.zeros((2, 2, 2))}, "strata: expected at least one array in a list, got ndarray"),
        ({"strata": [np.zeros(3)]}, r"strata\[0\]: expected shape \[num_runs, num_problems, ...\], got \(3,\)"),
        ({"strata": [np.zeros((0, 3))]}, r"strata\[0\]: expected shape"),
        ({"strata": [np.zeros((2, 3)), np.zeros((3, 3))]}, r"strata\[1\]: expected the runs and further axes"),
        ({"strata": [[[np.nan, 1.0]]]}, r"strata\[0\]: expected finite values"),
        ({"confidence": 1.0}, "confidence: expected a finite number in"),
    ],
)
def test_names_a_bad_argument(change, message):
    arguments = {"strata": [np.zeros((2, 3))]}
    with pytest.raises(ValueError, match=message):
        crossed_interval(**{**arguments, **change})


arrays = fuzzing.float_arrays(
    st.sampled_from([(), (1,), (0, 2), (1, 2), (2, 2), (3, 2), (2, 2, 3)]), st.floats(-1e300, 1e300) | fuzzing.any_float
)


@fuzzing.fuzz
@given(st.lists(arrays, max_size=2), st.just(0.95) | fuzzing.any_float, st.booleans())
def test_fuzz_crossed_interval(strata, confidence, shares):
    if shares:
        strata = [np.abs(x) / 1e300 for x in strata]
    got = fuzzing.call(crossed_interval, strata, confidence, shares)
    assert got is None or np.all(got.low <= got.high)
