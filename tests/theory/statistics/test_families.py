"""Families of comparisons: Holm's correction against its definition, signs, and differences called level."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from theory.base.tables import Estimate
from theory.statistics import MARGIN, holm, in_family, is_level


def test_worked_by_hand():
    """Four p-values: 4 x .005, 3 x .01, then 2 x .03 = .06, which the last one, .04, cannot fall below."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02], rtol=1e-12)
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])
    np.testing.assert_allclose(holm([[0.02], [0.03]]), [[0.04], [0.04]])
    assert holm([]).shape == (0,)


def test_is_bonferroni_closed(rng):
    """Closed testing: the largest Bonferroni p-value of all subfamilies with a comparison is its adjusted value."""
    for size in range(1, 7):
        p = rng.uniform(size=size) ** 3
        closed = [
            max(
                min(1.0, len(subset) * min(p[list(subset)]))
                for length in range(1, size + 1)
                for subset in combinations(range(size), length)
                if i in subset
            )
            for i in range(size)
        ]
        np.testing.assert_allclose(holm(p), closed, rtol=1e-12)


def test_undecided_comparisons_do_not_count():
    np.testing.assert_allclose(holm([0.02, math.nan, 0.03]), [0.04, math.nan, 0.04])
    assert np.isnan(holm([math.nan])).all()


def test_a_family_takes_signs_away():
    """Alone each of two is ahead at .03; together both are undecided. Values and intervals stay."""
    alone = [Estimate(0.1, 0.01, 0.2, 0.03), Estimate(-0.1, -0.2, -0.01, 0.03), Estimate(0.5)]
    assert [gain.sign for gain in alone] == [1, -1, 0]
    together = in_family(alone)
    assert [gain.sign for gain in together] == [0, 0, 0]
    assert [gain[:2] for gain in together[:2]] == [gain[:2] for gain in alone[:2]]
    assert [gain.sign for gain in in_family([alone[0], alone[2]])] == [1, 0]
    assert in_family([]) == []


@pytest.mark.parametrize(
    ("low", "high", "level"),
    [
        (-MARGIN, MARGIN, True),
        (-0.001, 0.0021, False),
        (-0.0021, 0.001, False),
        (0.0005, 0.001, True),
        (math.nan, math.nan, False),
    ],
)
def test_level_is_the_whole_interval(low, high, level):
    assert is_level(Estimate(0.0, low, high)) == level
    assert is_level(Estimate(0.0, 10 * low, 10 * high), margin=10 * MARGIN) == level


@pytest.mark.parametrize(
    ("p_values", "message"),
    [
        ([0.1, 1.5], "p_values: expected finite values"),
        ([-0.1], "p_values: expected finite"),
        (["a"], "p_values: exp"),
    ],
)
def test_names_a_bad_argument(p_values, message):
    with pytest.raises(ValueError, match=message):
        holm(p_values)
    with pytest.raises(ValueError, match="margin: expected"):
        is_level(Estimate(0.0), margin=-1.0)


@fuzzing.fuzz
@given(fuzzing.float_arrays(st.sampled_from([(), (0,), (1,), (5,), (2, 3)]), st.floats(0, 1) | fuzzing.any_float))
def test_fuzz_holm(p_values):
    try:
        adjusted = holm(p_values)
    except ValueError as error:
        assert str(error).startswith("p_values: ")
        return
    known = ~np.isnan(p_values)
    assert np.array_equal(np.isnan(adjusted), ~known)
    assert np.all((adjusted[known] >= p_values[known]) & (adjusted[known] <= 1))


@fuzzing.fuzz
@given(st.lists(st.builds(Estimate, *[fuzzing.any_float] * 3, st.floats(0, 1) | fuzzing.any_float), max_size=4))
def test_fuzz_in_family(estimates):
    try:
        family = in_family(estimates)
    except ValueError as error:
        assert str(error).startswith("p_values: ")
        return
    for before, after in zip(estimates, family, strict=True):
        assert after.sign in (0, before.sign)


@fuzzing.fuzz
@given(st.builds(Estimate, *[fuzzing.any_float] * 4), fuzzing.any_float)
def test_fuzz_is_level(gain, margin):
    if fuzzing.call(is_level, gain, margin):
        assert max(abs(gain.low), abs(gain.high)) <= margin
