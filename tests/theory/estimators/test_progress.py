"""theory.estimators.progress: closed form against quadrature, point masses, mpmath; limits; bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import integrate, stats as laws

from tests.theory import fuzzing
from theory.estimators.moments import expected_progress, implied_weight
from theory.estimators.progress import CENTRED, OBJECTIVES, posterior_progress


@pytest.mark.parametrize("estimator", CENTRED)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.5, 7.0), (0.6, 0.4), (30.0, 3.0)])
def test_is_the_mean_of_exact_progress_over_the_law_of_p(estimator, objective, a, b):
    """Quadrature over p of the exact implied weight: w(p, n) (p q)^2 f'(p)."""
    table = posterior_progress([a], [b], 9, estimator, objective)[0]
    for n in (2, 3, 9):

        def progress(p, n=n):
            slope = 1.0 if objective == "success" else 1 / p
            return float(implied_weight(p, n, estimator)) * (p * (1 - p)) ** 2 * slope * laws.beta.pdf(p, a, b)

        expected, _ = integrate.quad(progress, 0, 1, limit=200)
        np.testing.assert_allclose(table[n], expected, rtol=1e-6)
    assert table[:2].tolist() == [0.0, 0.0]


def test_golden_value():
    # mpmath, 30 digits, GRPO, n = 3, objective log:
    # f = lambda p: (1-p) * sum(binomial(3,k) * p**k * (1-p)**(3-k) * sqrt(mpf(k*(3-k)))/3 for k in (1, 2))
    # quad(lambda p: f(p) * p**mpf('1.5') * (1-p)**6 / beta(mpf('2.5'), 7), [0, 1])
    value = posterior_progress([2.5], [7.0], 3, "grpo", "log")[0, 3]
    np.testing.assert_allclose(value, 0.1725966208845882592, rtol=1e-13)


def test_a_narrow_law_is_a_point_mass():
    p, size = 0.3, 1e15
    exact = expected_progress([p, 1 - p], [True, False], 12, "grpo") / 2  # |d|^2 = 2 for two answers
    for objective, slope in (("success", 1.0), ("log", 1 / p)):
        table = posterior_progress([p * size], [(1 - p) * size], 12, "grpo", objective)[0]
        np.testing.assert_allclose(table, slope * exact, rtol=1e-12)


def test_unbiased_estimator_gains_nothing_from_more_rollouts():
    table = posterior_progress([2.0, 9.0], [5.0, 1.0], 16, "rloo")
    np.testing.assert_allclose(table[:, 2:], table[:, 2:3] * np.ones(15), rtol=1e-12)


def test_hard_prompts_rank_higher_under_the_log():
    a, b = np.array([1.0, 5.0]), np.array([9.0, 5.0])  # means .1 and .5
    success, log = (posterior_progress(a, b, 16, "grpo", objective)[:, 16] for objective in OBJECTIVES)
    assert success[0] < success[1]
    assert log[0] / success[0] > log[1] / success[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0], [1.0], 4), "a: expected finite values in"),
        (([1.0], [np.nan], 4), "b: expected finite values in"),
        (([1.0, 2.0], [1.0], 4), "b: expected the shape of a"),
        (([1.0], [1.0], 0), "n_max: expected an integer >= 1"),
        (([1.0], [1.0], 4, "reinforce"), "estimator: expected one of rloo"),
        (([1.0], [1.0], 4, "grpo", "sqrt"), "objective: expected one of success, log"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        posterior_progress(*arguments)


parameters = st.lists(st.floats(1e-300, 1e300) | fuzzing.any_float, max_size=3)


@fuzzing.fuzz
@given(
    parameters, parameters, st.integers(-1, 40), st.sampled_from([*CENTRED, "reinforce"]), st.sampled_from(OBJECTIVES)
)
def test_fuzz_posterior_progress(a, b, n_max, estimator, objective):
    table = fuzzing.call(posterior_progress, a, b, n_max, estimator, objective)
    assert table is None or np.all(table >= 0)
