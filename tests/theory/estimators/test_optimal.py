"""optimal_scale: every group enumerated in fractions, a numerical search, limits, symmetries; bad input."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import optimize, stats

from tests.theory import fuzzing
from theory.estimators import gradient_moments, optimal_scale

Rollouts = list[tuple[Fraction, int, tuple[Fraction, ...]]]


def bandit(shares: list[int], correct: list[int]) -> Rollouts:
    """Return probability, reward and score e_a - pi of each answer of a softmax policy."""
    pi = [Fraction(share, sum(shares)) for share in shares]
    return [
        (x, reward, tuple(int(i == a) - y for i, y in enumerate(pi)))
        for a, (x, reward) in enumerate(zip(pi, correct, strict=True))
    ]


def chain(first: Fraction, after: tuple[Fraction, Fraction]) -> Rollouts:
    """Two tokens of two values, the law of the second depends on the first; right if they differ.

    Each of the three states has a logit of its own, the log-odds of token 1.
    """
    rollouts = []
    for a, b in product((0, 1), repeat=2):
        probability = (first if a else 1 - first) * (after[a] if b else 1 - after[a])
        score = [a - first, Fraction(0), Fraction(0)]
        score[1 + a] = b - after[a]
        rollouts.append((probability, int(a != b), tuple(score)))
    return rollouts


WORLDS = {
    "two answers": bandit([1, 3], [1, 0]),
    "peaked": bandit([2, 1, 1, 8], [0, 1, 0, 0]),
    "four answers": bandit([2, 1, 3, 4], [1, 1, 0, 0]),
    "chain": chain(Fraction(1, 3), (Fraction(1, 4), Fraction(3, 5))),
}


def triple(world: Rollouts) -> tuple[Fraction, ...]:
    """Return p, v_C, v_W and |d|^2 from their definitions."""
    means, variances, p = [], [], Fraction(0)
    for kind in (1, 0):
        mass = sum((x for x, reward, _ in world if reward == kind), Fraction(0))
        mean = [sum(x * s[i] for x, reward, s in world if reward == kind) / mass for i in range(len(world[0][2]))]
        square = sum(x * sum(y * y for y in s) for x, reward, s in world if reward == kind) / mass
        means.append(mean)
        variances.append(square - sum(y * y for y in mean))
        p = mass if kind else p
    return p, *variances, sum(((a - b) ** 2 for a, b in zip(*means, strict=True)), Fraction(0))


def by_enumeration(world: Rollouts, n: int) -> tuple[list[list[Fraction]], list[Fraction], list[Fraction]]:
    """Sum over all groups of n, for s = 1: E[g; k] and E[|g|^2; k] for k = 1, ..., n - 1, and grad J."""
    dim = len(world[0][2])
    first, second = [[Fraction(0)] * dim for _ in range(n - 1)], [Fraction(0)] * (n - 1)
    for group in product(world, repeat=n):
        k = sum(reward for _, reward, _ in group)
        if 0 < k < n:
            probability = Fraction(1)
            for x, _, _ in group:
                probability *= x
            g = [sum((reward - Fraction(k, n)) * s[i] for _, reward, s in group) / n for i in range(dim)]
            first[k - 1] = [a + probability * b for a, b in zip(first[k - 1], g, strict=True)]
            second[k - 1] += probability * sum(b * b for b in g)
    gradient = [sum((x * reward * s[i] for x, reward, s in world), Fraction(0)) for i in range(dim)]
    return first, second, gradient


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("name", WORLDS)
def test_every_group_enumerated(name: str, n: int):
    """Unbiased, of the stated variance, and no other s(k) does better: a free search from s = 1 ends there."""
    world = WORLDS[name]
    s, variance = optimal_scale(*map(float, triple(world)[:1]), n, *map(float, triple(world)[1:]))
    exact = by_enumeration(world, n)
    first, second, gradient = (np.array(x, dtype=float) for x in exact)
    np.testing.assert_allclose(s[1:-1] @ first, gradient, rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(s[1:-1] ** 2 @ second - gradient @ gradient, variance, rtol=1e-13)
    assert s[0] == s[-1] == 0
    # E[g; k] is a multiple c_k of grad J: minimise sum s^2 E[|g|^2; k] with sum s c = 1.
    c = first @ gradient / (gradient @ gradient)
    found = optimize.minimize(
        lambda x: x**2 @ second / (x @ c) ** 2, np.ones(n - 1), method="BFGS", options={"gtol": 1e-12}
    )
    np.testing.assert_allclose(found.x / (found.x @ c), s[1:-1], rtol=1e-4)
    assert found.fun >= (variance + gradient @ gradient) * (1 - 1e-12)


def test_golden_values():
    # fractions: by_enumeration(WORLDS["peaked"], 4) gives c_k = E[<g, grad J>; k] / |grad J|^2 and m_k = E[|g|^2; k];
    # s_k = (c_k / m_k) / sum(c^2 / m), and the variance is 1 / sum(c^2 / m) - |grad J|^2.
    s, variance = optimal_scale(1 / 12, 4, 0.0, 1 - 69 / 121, 1 + 69 / 121)
    np.testing.assert_allclose(s, [0, 1.3943890569855582, 1.0038310109317328, 1.194641864249335, 0], rtol=1e-14)
    np.testing.assert_allclose(variance, 0.025058703094333768, rtol=1e-13)


VALID: dict[str, Any] = {
    "p": st.floats(1e-6, 1 - 1e-6),
    "n": st.integers(2, 40),
    "v_correct": st.floats(0, 1),
    "v_wrong": st.floats(0, 1),
    "distance_squared": st.floats(1e-3, 10),
}


@settings(deadline=None, derandomize=True)
@given(**VALID)
def test_is_unbiased_and_least(p, n, v_correct, v_wrong, distance_squared):
    """For any triple E[s X] = p q; the variance is E[s^2 Q] - |grad J|^2, at most RLOO's; p <-> q mirrors k."""
    s, variance = optimal_scale(p, n, v_correct, v_wrong, distance_squared)
    k = np.arange(n + 1)
    r = k / n
    x = r * (1 - r)
    law, pq = stats.binom.pmf(k, n, p), p * (1 - p)
    np.testing.assert_allclose(law @ (s * x), pq, rtol=1e-11)
    q_k = x * ((1 - r) * v_correct + r * v_wrong) / n + x**2 * distance_squared
    second = law @ (s**2 * q_k)
    np.testing.assert_allclose(variance, second - pq**2 * distance_squared, rtol=1e-9, atol=1e-11 * second)
    assert second <= law @ ((n / (n - 1)) ** 2 * q_k) * (1 + 1e-11)
    mirrored, same = optimal_scale(1 - p, n, v_wrong, v_correct, distance_squared)
    np.testing.assert_allclose(mirrored[::-1], s, rtol=1e-9)
    np.testing.assert_allclose(same, variance, rtol=1e-9)
    scaled, smaller = optimal_scale(p, n, v_correct / 8, v_wrong / 8, distance_squared / 8)
    np.testing.assert_array_equal(scaled, s)
    np.testing.assert_array_equal(smaller, variance / 8)


def test_limits():
    """Many diffuse answers: RLOO. One score for each kind: 1/X. GRPO's scale is their geometric mean."""
    n, p, r = 16, 0.3, np.arange(1, 16) / 16
    x = r * (1 - r)
    rloo, variance = optimal_scale(p, n, 1.0, 1.0, 0.0)
    np.testing.assert_allclose(rloo[1:-1], n / (n - 1), rtol=1e-13)
    np.testing.assert_allclose(variance, p * (1 - p) / (n - 1), rtol=1e-12)  # (p q)^2 / E[n X], E[X] = p q (n-1)/n
    inverse, variance = optimal_scale(p, n, 0.0, 0.0, 2.0)
    mixed = 1 - p**n - (1 - p) ** n
    np.testing.assert_allclose(inverse[1:-1], p * (1 - p) / (x * mixed), rtol=1e-13)
    np.testing.assert_allclose(variance, 2 * (p * (1 - p)) ** 2 * (1 / mixed - 1), rtol=1e-12)
    product_of_limits = np.sqrt(rloo * inverse)[1:-1] * np.sqrt(x)
    np.testing.assert_allclose(product_of_limits, product_of_limits[0], rtol=1e-13)


@pytest.mark.parametrize("n", [2, 16, 24])
def test_beats_every_centred_estimator_at_its_own_objective(n):
    probs, correct = [0.1, 0.2, 0.3, 0.4], [True, False, True, False]
    v_correct, v_wrong = 1 - (1 + 9) / 16, 1 - (4 + 16) / 36
    _, variance = optimal_scale(0.4, n, v_correct, v_wrong, 2 - v_correct - v_wrong)
    for estimator in ("rloo", "dr_grpo", "grpo", "grpo_sample", "maxrl"):
        moments = gradient_moments(probs, correct, n, estimator)
        assert moments.variance / moments.weight**2 >= variance * (1 - 1e-12)


def test_arrays_broadcast():
    s, variance = optimal_scale([[0.1], [0.6]], 5, [0.0, 0.5, 1.0], 0.3, 0.4)
    assert s.shape == (2, 3, 6)
    assert variance.shape == (2, 3)
    one, its_variance = optimal_scale(0.6, 5, 0.5, 0.3, 0.4)
    np.testing.assert_array_equal(s[1, 1], one)
    np.testing.assert_array_equal(variance[1, 1], its_variance)


def test_a_rounding_error_below_0_counts_as_0():
    exact, rounded = (optimal_scale(0.3, 6, 0.2, v, d) for v, d in ((0.0, 0.0), (-4e-16, -1e-16)))
    np.testing.assert_array_equal(exact[0], rounded[0])
    assert exact[1] == rounded[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 4, 0.5, 0.5, 1.0), r"p: expected values in \(0, 1\), got 0.0"),
        ((1, 4, 0.5, 0.5, 1.0), r"p: expected values in \(0, 1\), got 1.0"),
        ((1.5, 4, 0.5, 0.5, 1.0), r"p: expected finite values in \[0.0, 1.0\], got 1.5"),
        ((0.5, 1, 0.5, 0.5, 1.0), "n: expected an integer >= 2, got 1"),
        ((0.5, 4.0, 0.5, 0.5, 1.0), "n: expected an integer, got 4.0"),
        ((0.5, 4, 1.1, 0.5, 1.0), "v_correct: expected finite values in"),
        ((0.5, 4, 0.5, -0.1, 1.0), "v_wrong: expected finite values in"),
        ((0.5, 4, 0.5, 1.1, 1.0), "v_wrong: expected finite values in"),
        ((0.5, 4, 0.5, 0.5, -1e-9), "distance_squared: expected finite values in"),
        ((0.5, 4, 0.5, 0.5, np.inf), "distance_squared: expected finite values in"),
        ((0.5, 4, 0.0, 0.0, 0.0), "v_correct, v_wrong, distance_squared: expected one above 0"),
        (([0.5, 0.5], 4, [0.1, 0.2, 0.3], 0.5, 1.0), "expected shapes that broadcast"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimal_scale(*arguments)


tiny = st.sampled_from([0.0, 5e-324, 1e-300, 1.0])
units = tiny | st.floats(0, 1) | fuzzing.any_float
lengths = tiny | st.floats(0, 1.8e308) | fuzzing.any_float


@fuzzing.fuzz
@given(units | st.sampled_from([1 - 2**-53]), st.integers(-1, 60), units, units, lengths)
def test_fuzz_optimal_scale(p, n, v_correct, v_wrong, distance_squared):
    result = fuzzing.call(optimal_scale, p, n, v_correct, v_wrong, distance_squared)
    if result is not None:
        s, variance = result
        assert s.shape == (n + 1,)
        assert np.all(s[1:-1] > 0)
        assert variance >= 0
