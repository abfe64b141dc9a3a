"""theory.allocation.variance: unbiasedness in fractions, closed forms, limits, bad input."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given

from tests.theory import fuzzing
from tests.theory.allocation.instances import count_vectors, nonnegative, vectors
from theory.allocation.shares import proportional
from theory.allocation.variance import bernoulli_variance, optimal_variance_ratio, total_variance, variance_ratio


def test_bernoulli_variance_is_unbiased_exactly():
    """Sum over k of the binomial probability times P is p(1 - p): the formula in fractions, the function in float64."""
    for attempts in range(2, 12):
        for p in (Fraction(1, 7), Fraction(1, 2), Fraction(9, 10)):
            weight = [comb(attempts, k) * p**k * (1 - p) ** (attempts - k) for k in range(attempts + 1)]
            estimate = bernoulli_variance(np.arange(attempts + 1), np.full(attempts + 1, attempts))
            mean = np.dot([float(x) for x in weight], estimate)
            np.testing.assert_allclose(mean, float(p * (1 - p)), rtol=1e-14)


def test_bernoulli_variance_range_and_effective_counts(rng):
    attempts = rng.uniform(2, 50, size=1000)
    estimate = bernoulli_variance(rng.uniform(size=1000) * attempts, attempts)
    assert np.all((estimate >= 0) & (estimate <= 0.5))
    assert bernoulli_variance([0.0, 2.5, 1e300, 1.0], [2.5, 2.5, 2e300, 2.0]).tolist() == [0, 0, 0.25, 0.5]


# mpmath, 50 digits, for s = (0.3, 1.7, 2.2, 0.05):
#   print(fsum(s)**2 / (4 * fsum(x*x for x in s)))
GOLDEN_SIGMAS = np.array([0.3, 1.7, 2.2, 0.05])
GOLDEN_RATIO = 0.57726110578459570535


def test_optimal_variance_ratio_golden_and_closed_form():
    np.testing.assert_allclose(optimal_variance_ratio(GOLDEN_SIGMAS), GOLDEN_RATIO, rtol=1e-15)
    cv = GOLDEN_SIGMAS.std() / GOLDEN_SIGMAS.mean()
    np.testing.assert_allclose(GOLDEN_RATIO, 1 / (1 + cv**2), rtol=1e-14)
    shares = proportional(GOLDEN_SIGMAS, 64)
    np.testing.assert_allclose(variance_ratio(GOLDEN_SIGMAS**2, shares), GOLDEN_RATIO, rtol=1e-14)


def test_shares_proportional_to_the_variance_gain_nothing():
    """Shares proportional to sigma^2 have exactly uniform's variance: the paper's proxy P is sigma^2, not sigma."""
    shares = proportional(GOLDEN_SIGMAS**2, 64)
    np.testing.assert_allclose(variance_ratio(GOLDEN_SIGMAS**2, shares), 1.0, rtol=1e-14)


def test_variance_limits():
    assert total_variance([0.0, 0.0], [0, 3]) == 0.0
    assert variance_ratio([0.0, 0.0], [0, 0]) == 1.0
    assert variance_ratio([2.0, 2.0, 2.0], [5, 5, 5]) == 1.0
    assert variance_ratio([1.0, 9.0], [4, 4]) == 1.0
    np.testing.assert_allclose(variance_ratio([1e308, 9e307], [2, 6]), (10 / 2 + 9 / 6) / (19 / 4), rtol=1e-14)
    assert optimal_variance_ratio([0.0, 0.0]) == 1.0
    assert optimal_variance_ratio([1e308, 1e308]) == 1.0
    assert optimal_variance_ratio([3.0, 0.0, 0.0, 0.0]) == 0.25


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (bernoulli_variance, ([1], [1]), r"attempts: expected finite values in \[2.0, inf\], got 1.0"),
        (bernoulli_variance, ([-1], [4]), "successes: expected finite values"),
        (
            bernoulli_variance,
            ([2, 5], [4, 4]),
            "successes: expected at most attempts, got 5.0 > 4.0 at index 1",
        ),
        (bernoulli_variance, ([1], [4, 4]), "attempts: expected the shape of successes"),
        (bernoulli_variance, ([np.nan], [4]), "successes: expected finite values"),
        (optimal_variance_ratio, ([np.inf],), "sigmas: expected finite values"),
        (total_variance, ([1.0, 2.0], [1, 0]), "counts: expected positive counts .* got 0 at index 1"),
        (total_variance, ([1.0], [1, 1]), "counts: expected the shape of variances"),
        (total_variance, ([1e308, 1e308], [1, 1]), "variances: expected a sum of v/n within float64"),
        (variance_ratio, ([1.0, 2.0], [0, 0]), "counts: expected positive counts .* got 0 at index 0"),
        (variance_ratio, ([1.0, 2.0], [1, -1]), "counts: expected finite values"),
    ],
)
def test_bad_input_is_named(function, args, message):
    with pytest.raises(ValueError, match=message):
        function(*args)


@fuzzing.fuzz
@given(vectors, vectors)
def test_fuzz_bernoulli_variance(successes, attempts):
    result = fuzzing.call(bernoulli_variance, successes, attempts)
    assert result is None or np.all((result >= 0) & (result <= 0.5))


@fuzzing.fuzz
@given(nonnegative | vectors, count_vectors)
def test_fuzz_total_variance(variances, counts):
    fuzzing.call(total_variance, variances, counts)


@fuzzing.fuzz
@given(nonnegative | vectors, count_vectors)
def test_fuzz_variance_ratio(variances, counts):
    fuzzing.call(variance_ratio, variances, counts)


@fuzzing.fuzz
@given(vectors | nonnegative)
def test_fuzz_optimal_variance_ratio(sigmas):
    result = fuzzing.call(optimal_variance_ratio, sigmas)
    assert result is None or 0 < result <= 1 + 1e-12
