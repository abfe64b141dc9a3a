"""theory.statistics.passk: every k-subset, unbiasedness by an exact sum, and how far the plug-in value is off."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tests.theory import fuzzing
from theory.statistics.passk import exact_pass_at_k, pass_at_k


def test_every_subset_is_counted():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                hits = [min(subset) < c for subset in combinations(range(n), k)]
                np.testing.assert_allclose(pass_at_k(n, c, k), np.mean(hits), rtol=1e-14)


# The integers are exact, so these are too: float(1 - Fraction(comb(n - c, k), comb(n, k)))
@pytest.mark.parametrize(
    ("n", "c", "k"),
    [(32, 1, 32), (64, 1, 32), (256, 8, 32), (1024, 3, 700), (1024, 900, 2), (20_000, 2, 1), (20_000, 30, 3000)],
)
def test_exact_integer_arithmetic(n, c, k):
    expected = float(1 - Fraction(comb(n - c, k), comb(n, k)))
    np.testing.assert_allclose(pass_at_k(n, c, k), expected, rtol=1e-13)


def test_unbiased_by_an_exact_sum():
    n, p = 12, np.array([0.0, 1e-6, 0.2, 0.7, 1.0])
    c = np.arange(n + 1)
    binomial = np.array([comb(n, x) for x in c]) * p[:, None] ** c * (1 - p[:, None]) ** (n - c)
    for k in range(1, n + 1):
        np.testing.assert_allclose(binomial @ pass_at_k(n, c, k), exact_pass_at_k(p, k), rtol=1e-12, atol=1e-16)


def test_the_plug_in_value_is_biased_downwards():
    """Bootstrapped best-of-k has the expectation 1 - (1 - c/n)^k, which no number of resamples mends."""
    n, c = np.array([32, 64, 256]), np.array([1, 1, 8])
    np.testing.assert_allclose(pass_at_k(n, c, 32), [1.0, 0.5, 0.662], atol=5e-4)
    np.testing.assert_allclose(exact_pass_at_k(c / n, 32), [0.638, 0.396, 0.638], atol=5e-4)


def test_pass_at_one_is_the_mean_and_certainty_is_one():
    c = np.arange(11)
    np.testing.assert_allclose(pass_at_k(10, c, 1), c / 10, rtol=1e-14)
    np.testing.assert_array_equal(pass_at_k(10, c, 10), c > 0)
    assert pass_at_k(10, 8, 3) == 1.0
    assert 1 - pass_at_k(10, 7, 3) == pytest.approx(1 / 120)


def test_large_counts_keep_their_relative_precision():
    n = 10**5
    np.testing.assert_allclose(pass_at_k(n, [1, 2, 0], 1), [1e-5, 2e-5, 0.0], rtol=1e-15)
    np.testing.assert_allclose(pass_at_k(n, 1, 40_000), 0.4, rtol=1e-15)
    assert pass_at_k(n, 40_000, 40_000) == 1.0
    # (1 - p)^k rounds 1 - p first: 1e-20 would be lost.
    np.testing.assert_allclose(exact_pass_at_k([1e-20, 1e-9], [7, 1000]), [7e-20, 9.999995005e-7], rtol=1e-12)


@fuzzing.fuzz
@given(st.integers(2, 60), st.data())
def test_monotone(n, data):
    """More correct samples and more tries never hurt; c and k play the same part."""
    c, k = data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, n - 1))
    value = pass_at_k(n, c, k)
    assert value <= pass_at_k(n, c + 1, k) + 1e-15
    assert value <= pass_at_k(n, c, k + 1) + 1e-15
    if c:
        np.testing.assert_allclose(value, pass_at_k(n, k, c), rtol=1e-13)


def test_shapes():
    got = pass_at_k(np.array([[8], [4]]), np.array([0, 1, 4]), 2)
    assert got.shape == (2, 3)
    assert got.dtype == np.float64
    assert pass_at_k(np.zeros(0, int), np.zeros(0, int), 1).shape == (0,)
    assert exact_pass_at_k(np.full((2, 1), 0.5), [1, 2, 3]).tolist() == [[0.5, 0.75, 0.875]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([4, 4], [1, 5], 2), "num_correct: expected at most num_samples, got 5 > 4 at index 1"),
        (([4, 4], [1, -1], 2), "num_correct: expected integers >= 0"),
        (([4, 1], [1, 1], 2), "k: expected at most num_samples, got 2 > 1 at index 1"),
        ((4, 1, 0), "k: expected integers >= 1"),
        ((0, 0, 1), "num_samples: expected integers >= 1"),
        ((4.0, 1, 1), "num_samples: expected integers, got dtype float64"),
        ((4, True, 1), "num_correct: expected integers, got dtype bool"),
        ((4, 1, 10**30), "k: expected integers, got dtype object"),
        ((2**63, 1, 1), "num_samples: expected integers >= 1 of at most 64 bits"),
        (([4, 4], [1, 1, 1], 1), r"expected shapes that broadcast, got num_samples \(2,\), num_correct \(3,\)"),
    ],
)
def test_bad_counts_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.5, 1), r"p: expected finite values in \[0.0, 1.0\], got 1.5"),
        ((np.nan, 1), "p: expected finite values"),
        (("half", 1), "p: expected numbers"),
        ((0.5, 0), "k: expected integers >= 1"),
        (([0.5, 0.5], [1, 2, 3]), "p, k: expected shapes that broadcast"),
    ],
)
def test_bad_probabilities_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        exact_pass_at_k(*arguments)


shapes = st.sampled_from([(), (2,), (3, 2), (3, 1), (0,)])


def counts(high):
    return st.integers(0, high) | hnp.arrays(np.int64, shapes, elements=st.integers(-1, high))


@fuzzing.fuzz
@given(counts(10**6), counts(60), counts(60))
def test_fuzz_pass_at_k(num_samples, num_correct, k):
    got = fuzzing.call(pass_at_k, num_samples, num_correct, k)
    assert got is None or np.all((got >= 0) & (got <= 1))


@fuzzing.fuzz
@given(fuzzing.float_arrays(shapes, st.floats(0, 1)) | fuzzing.float_arrays(shapes, fuzzing.any_float), counts(10**12))
def test_fuzz_exact_pass_at_k(p, k):
    got = fuzzing.call(exact_pass_at_k, p, k)
    assert got is None or np.all((got >= 0) & (got <= 1))
