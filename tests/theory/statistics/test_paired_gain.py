"""Gains within seeds: the bootstrap that it is, by enumeration, and one seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from theory.statistics import interquartile_mean, paired_gain, stratified_bootstrap_interval


def test_is_the_bootstrap_of_the_differences(rng):
    values, reference = rng.normal(size=(2, 9, 3))
    gain = paired_gain(values, reference, 0.9)
    differences = (values - reference)[:, None]
    expected = stratified_bootstrap_interval(differences, interquartile_mean, np.random.default_rng(0), 0.9)
    for mine, theirs in zip(gain, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(gain.point, interquartile_mean(values - reference, axis=0))


def test_columns_do_not_see_each_other(rng):
    values = rng.normal(size=(8, 4))
    together = paired_gain(values)
    for column in range(4):
        alone = paired_gain(values[:, column])
        assert [float(x) for x in alone] == [float(x[column]) for x in together]


def test_what_seeds_share_cancels(rng):
    luck = rng.normal(size=20)
    gain = paired_gain(luck + 1.0, luck)
    np.testing.assert_allclose([float(x) for x in gain], 1.0, rtol=1e-12)


def test_one_seed_has_no_interval():
    gain = paired_gain([[3.0, 4.0]], [[1.0, 1.0]])
    assert gain.point.tolist() == [2.0, 3.0]
    assert np.isnan(gain.low).all()
    assert np.isnan(gain.high).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), r"values: expected shape \[num_seeds >= 1, ...\], got \(0,\)"),
        ((1.0,), r"values: expected shape \[num_seeds >= 1, ...\], got \(\)"),
        (([1.0, np.nan],), "values: expected finite values"),
        (([1.0, 2.0], [1.0]), "reference: expected the shape of values"),
        (([1.0, 2.0], [1.0, np.inf]), "reference: expected finite values"),
        (([1.0, 2.0], None, 1.0), "confidence: expected a finite number in"),
        (([1.0], None, 0.0), "confidence: expected a finite number"),
    ],
)
def test_names_a_bad_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired_gain(*arguments)


arrays = fuzzing.float_arrays(st.sampled_from([(), (0,), (2,), (4,), (3, 2)]), fuzzing.any_float)


@fuzzing.fuzz
@given(arrays, st.none() | arrays, st.just(0.95) | fuzzing.any_float)
def test_fuzz_paired_gain(values, reference, confidence):
    gain = fuzzing.call(paired_gain, values, reference, confidence)
    assert gain is None or np.all(gain.low <= gain.high)
