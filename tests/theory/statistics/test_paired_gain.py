"""Gains within seeds: the bootstrap or Student's interval, by the number of seeds; the p-value; their names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from tests.theory import fuzzing
from theory.statistics import (
    interquartile_mean,
    interval_method,
    paired_gain,
    paired_p_value,
    stratified_bootstrap_interval,
)


@pytest.mark.parametrize("num_seeds", [8, 9])
def test_is_the_bootstrap_of_the_differences(num_seeds, rng):
    values, reference = rng.normal(size=(2, num_seeds, 3))
    gain = paired_gain(values, reference, 0.9)
    differences = (values - reference)[:, None]
    expected = stratified_bootstrap_interval(differences, interquartile_mean, np.random.default_rng(0), 0.9)
    for mine, theirs in zip(gain, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(gain.point, interquartile_mean(values - reference, axis=0))


@pytest.mark.parametrize("num_seeds", range(2, 8))
def test_is_students_below_eight_seeds(num_seeds, rng):
    values, reference = rng.normal(size=(2, num_seeds, 3))
    gain = paired_gain(values, reference, 0.9)
    differences = values - reference
    expected = stats.ttest_rel(values, reference).confidence_interval(0.9)
    np.testing.assert_allclose(gain.point, differences.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(gain.low, expected.low, rtol=1e-10)
    np.testing.assert_allclose(gain.high, expected.high, rtol=1e-10)


def test_students_interval_of_tables():
    """Seeds 0.1, 0.2, 0.6: mean 0.3, standard error 0.15275, t(0.975, 2) = 4.3027 (tables)."""
    gain = paired_gain([0.1, 0.2, 0.6])
    assert [float(x) for x in gain] == pytest.approx([0.3, 0.3 - 0.65724, 0.3 + 0.65724], abs=2e-5)


def test_the_method_has_a_name_for_every_number_of_seeds(rng):
    """The name turns where the interval does."""
    assert interval_method(1) == "one seed, no interval"
    for num_seeds in range(2, 33):
        values = rng.normal(size=num_seeds)
        point, mean = float(paired_gain(values).point), float(values.mean())
        name = interval_method(num_seeds)
        assert name.startswith("mean with Student's t" if num_seeds < 8 else "interquartile mean with percentile boot")
        assert (point == pytest.approx(mean, rel=1e-12)) == (num_seeds < 8)
    with pytest.raises(ValueError, match="num_seeds: expected an integer >= 1, got 0"):
        interval_method(0)


@pytest.mark.parametrize("num_seeds", [3, 8, 32])
def test_p_value_is_scipys(num_seeds, rng):
    values, reference = rng.normal(size=(2, num_seeds, 4))
    np.testing.assert_allclose(paired_p_value(values, reference), stats.ttest_rel(values, reference).pvalue, rtol=1e-10)
    np.testing.assert_allclose(paired_p_value(values), stats.ttest_1samp(values, 0).pvalue, rtol=1e-10)


def test_p_value_of_equal_differences():
    """They have the p-value of the sign test: three equal ones out of three are nothing, eight of eight are a lot."""
    for num_seeds in (3, 6, 8):
        sign_test = stats.binomtest(num_seeds, num_seeds).pvalue
        assert paired_p_value([[0.0, 0.5, -1e300]] * num_seeds).tolist() == [1.0, sign_test, sign_test]
    assert paired_p_value([1e300, -1e300, 0.0]) == 1.0


def test_rounding_is_no_difference(rng):
    """(.1 + .2) - .3 is 5.6e-17, in all seeds alike; beside .3 it is nothing, and .1 is as large as it was."""
    assert paired_p_value([0.1 + 0.2] * 8, [0.3] * 8) == 1.0
    assert paired_p_value([0.1 + 0.2 + 0.1] * 8, [0.3] * 8) == 2.0**-7
    luck = rng.random(8)
    assert paired_p_value((luck + 0.1) + 0.2, luck + 0.3) == 1.0
    assert paired_p_value((luck + 0.1) + 0.3, luck + 0.3) == 2.0**-7  # equal but for rounding
    tiny = 1e-20 * (1 + rng.random(8))
    assert paired_p_value(tiny) == pytest.approx(stats.ttest_1samp(tiny, 0).pvalue, rel=1e-10)


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_too_few_seeds_have_no_p_value(num_seeds):
    assert np.isnan(paired_p_value(np.ones((num_seeds, 2)))).tolist() == [True, True]


@pytest.mark.parametrize("num_seeds", [4, 8])
def test_columns_do_not_see_each_other(num_seeds, rng):
    values = rng.normal(size=(num_seeds, 4)) * [1.0, 1e6, 1e-6, 1.0]
    together = paired_gain(values)
    for column in range(4):
        alone = paired_gain(values[:, column])
        assert [float(x) for x in alone] == [float(x[column]) for x in together]
        assert paired_p_value(values)[column] == pytest.approx(float(paired_p_value(values[:, column])), rel=1e-12)


@pytest.mark.parametrize("num_seeds", [5, 20])
def test_what_seeds_share_cancels(num_seeds, rng):
    luck = rng.normal(size=num_seeds)
    gain = paired_gain(luck + 1.0, luck)
    np.testing.assert_allclose([float(x) for x in gain], 1.0, rtol=1e-12)


def test_one_seed_has_no_interval():
    gain = paired_gain([[3.0, 4.0]], [[1.0, 1.0]])
    assert gain.point.tolist() == [2.0, 3.0]
    assert np.isnan(gain.low).all()
    assert np.isnan(gain.high).all()


def test_wide_intervals_of_large_numbers_stay_in_range():
    gain = paired_gain([1e300, -1e300], confidence=1 - 1e-16)
    assert (gain.low, gain.high) == (-np.finfo(np.float64).max, np.finfo(np.float64).max)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), r"values: expected shape \[num_seeds >= 1, ...\], got \(0,\)"),
        ((1.0,), r"values: expected shape \[num_seeds >= 1, ...\], got \(\)"),
        (([1.0, np.nan],), "values: expected finite values"),
        (([1.0, 2.0], [1.0]), "reference: expected the shape of values"),
        (([1.0, 2.0], [1.0, np.inf]), "reference: expected finite values"),
        *((([1e300] * num, [-1e300] * num), "values - reference: expected finite values") for num in (3, 8)),
        (([1.0, 2.0], None, 1.0), "confidence: expected a finite number in"),
        (([1.0], None, 0.0), "confidence: expected a finite number"),
    ],
)
def test_names_a_bad_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired_gain(*arguments)
    if len(arguments) < 3:
        with pytest.raises(ValueError, match=message):
            paired_p_value(*arguments)


arrays = fuzzing.float_arrays(st.sampled_from([(), (0,), (2,), (4,), (3, 2), (8,)]), fuzzing.any_float)


@fuzzing.fuzz
@given(arrays, st.none() | arrays, st.just(0.95) | fuzzing.any_float)
def test_fuzz_paired_gain(values, reference, confidence):
    gain = fuzzing.call(paired_gain, values, reference, confidence)
    assert gain is None or np.all(gain.low <= gain.high)


@fuzzing.fuzz
@given(fuzzing.float_arrays(st.sampled_from([(), (0,), (3,), (4, 2), (9,)]), fuzzing.any_float), st.none() | arrays)
def test_fuzz_paired_p_value(values, reference):
    p = fuzzing.call(paired_p_value, values, reference)
    assert p is None or np.all((p >= 0) & (p <= 1))


@fuzzing.fuzz
@given(st.integers(-2, 100) | fuzzing.any_float)
def test_fuzz_interval_method(num_seeds):
    assert fuzzing.call(interval_method, num_seeds) is None or num_seeds >= 1
