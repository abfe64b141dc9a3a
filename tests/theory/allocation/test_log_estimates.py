"""theory.allocation.log_estimates: expectations by enumeration against exact moments, by hand, bad input."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import binom

from tests.theory.fuzzing import call, float_arrays, fuzz
from tests.theory.made_logs import counts, groups
from theory.allocation.log_estimates import (
    NOISE_ESTIMATORS,
    degenerate_bounds,
    implied_weights,
    moved_weight,
    noise_bounds,
    squared_change,
)
from theory.estimators import moments

RATES = np.array([0.0, 0.03, 0.2, 0.5, 0.71, 0.96, 1.0])


def expectation(estimate, p, n):
    """Sum over k of Binomial(k; n, p) estimate(k), by enumeration."""
    k = np.arange(n + 1)
    weights = np.array([comb(n, j) for j in k]) * p[:, None] ** k * (1 - p[:, None]) ** (n - k)
    return weights @ estimate(k, np.full(n + 1, n))


class TestDegenerateBounds:
    @pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
    def test_bounds_hold_for_every_p_and_meet_up_to_n(self, n):
        for m in range(1, 14):
            exact = RATES**m + (1 - RATES) ** m

            def end(which, m=m):
                return lambda k, n: degenerate_bounds(k, n, np.full(k.size, m))[which]

            low, high = (expectation(end(which), RATES, n) for which in (0, 1))
            assert np.all(low <= exact + 1e-12)
            assert np.all(exact <= high + 1e-12)
            if m <= n:
                np.testing.assert_allclose(low, exact, atol=1e-12)
                np.testing.assert_allclose(high, exact, atol=1e-12)

    def test_golden(self):
        """Of 5 with 4 right, a pair is all right with 6/10; a triple with 4/10, all wrong never."""
        for m, expected in ((2, 0.6), (3, 0.4), (5, 0.0)):
            assert [x.tolist() for x in degenerate_bounds([4], [5], [m])] == [[pytest.approx(expected)]] * 2
        assert [x.tolist() for x in degenerate_bounds([4], [5], [8])] == [[pytest.approx(-0.6)], [0.0]]
        # One of two is both one short of all right and one short of all wrong: twice (6 - 2) / 2 is taken off.
        assert [x.tolist() for x in degenerate_bounds([1], [2], [6])] == [[-4.0], [0.0]]

    def test_groups_keep_their_places(self):
        k, n, m = [0, 4, 1, 4, 2], [4, 5, 2, 5, 4], [2, 3, 6, 2, 2]
        alone = [[float(end[0]) for end in degenerate_bounds(*([x] for x in group))] for group in zip(k, n, m)]  # noqa: B905
        assert np.stack(degenerate_bounds(k, n, m), axis=1).tolist() == alone
        assert len({tuple(ends) for ends in alone}) == 5

    def test_large_counts_go_the_other_way(self):
        k, n, m = np.array([0, 3000, 1]), np.array([9, 6000, 1]), np.array([40_000, 2, 1])
        low, high = degenerate_bounds(k, n, m)
        assert low[0] == high[0] == 1.0
        assert low[1] == pytest.approx(2 * 3000 * 2999 / (6000 * 5999))
        assert low[2] == high[2] == 1.0


class TestNoiseBounds:
    @pytest.mark.parametrize("n", [2, 4, 7])
    @pytest.mark.parametrize("estimator", ["rloo", "grpo"])
    def test_expectation_is_the_exact_moment_of_diffuse_answers(self, n, estimator):
        """With |pi_C|, |pi_W| -> 0 the trace of the covariance is the sum of two coefficients of moments."""
        for m in range(2, 12):
            exact = moments.group_coefficients(RATES, m, estimator)
            exact = exact.correct + exact.wrong

            def end(which, m=m):
                return lambda k, n: noise_bounds(k, n, np.full(k.size, m), estimator)[which]

            low, high = (expectation(end(which), RATES, n) for which in (0, 1))
            assert np.all(low <= exact + 1e-12)
            assert np.all(exact <= high + 1e-12)
            if m <= n or estimator == "rloo":
                np.testing.assert_allclose(low, exact, atol=1e-12)
                np.testing.assert_allclose(high, exact, atol=1e-12)

    def test_exact_baseline_is_the_single_rollout_variance_over_m(self):
        """Against theory.estimators.moments for 2 x 500 equally likely answers, where v is near 1 and d near 0."""
        probs = np.full((RATES.size, 1000), 1e-3) * 2
        probs[:, :500] *= RATES[:, None]
        probs[:, 500:] *= 1 - RATES[:, None]
        exact = moments.single_rollout_variance(probs, np.tile(np.arange(1000) < 500, (RATES.size, 1)))
        estimate = expectation(lambda k, n: noise_bounds(k, n, np.full(k.size, 9), "exact-baseline")[0], RATES, 4)
        np.testing.assert_allclose(estimate, exact / 9, rtol=3e-3, atol=1e-15)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="attempts: expected integers >= 2"):
            noise_bounds([0], [1], [2], "rloo")
        with pytest.raises(ValueError, match="attempts: expected integers >= 1"):
            degenerate_bounds([0], [0], [1])
        with pytest.raises(ValueError, match="sizes: expected integers >= 2"):
            noise_bounds([0], [2], [1], "rloo")
        with pytest.raises(ValueError, match="estimator: expected one of exact-baseline, rloo, grpo, got 'maxrl'"):
            noise_bounds([0], [2], [2], "maxrl")


class TestSquaredChange:
    def test_unbiased_by_enumeration(self):
        for p, r in ((0.1, 0.1), (0.3, 0.9), (0.0, 1.0)):
            weights = np.outer(binom.pmf(np.arange(5), 4, p), binom.pmf(np.arange(8), 7, r))
            k, j = (x.reshape(-1) for x in np.indices((5, 8)))
            change = squared_change(k, np.full(40, 4), j, np.full(40, 7))
            assert weights.reshape(-1) @ change == pytest.approx((p - r) ** 2, abs=1e-12)


class TestMovedWeight:
    @given(st.integers(0, 2**32 - 1))
    def test_is_the_largest_gain_of_any_set_of_prompts(self, seed):
        rng = np.random.default_rng(seed)
        w, r = rng.random(5) + 0.01, rng.random(5) + 0.01
        gains = w / w.sum() - r / r.sum()
        largest = max(gains[[b == "1" for b in f"{mask:05b}"]].sum() for mask in range(32))
        assert moved_weight([3] * 5, w, r)[0] == pytest.approx(largest, abs=1e-12)
        assert moved_weight([3] * 5, 7 * r, r)[0] == pytest.approx(0, abs=1e-12)

    def test_each_step_has_a_sum_of_its_own(self):
        """Steps 5, 2 and 9 in any order of rows; halves against thirds, nothing, and all against nothing."""
        steps, weights = [5, 2, 9, 5, 2, 9], [1.0, 10.0, 0.0, 1.0, 30.0, 7.0]
        assert moved_weight(steps, weights, [1.0, 1.0, 50.0, 2.0, 3.0, 0.0]).tolist() == pytest.approx([0, 1 / 6, 1])

    def test_a_step_without_weight(self):
        with pytest.raises(ValueError, match="reference: expected a positive sum in every step, got 0"):
            moved_weight([1, 2], [1.0, 1.0], [1.0, 0.0])


class TestImpliedWeights:
    def test_is_the_exact_weight_at_the_posterior_mean(self):
        weights = implied_weights([0, 3, 0], [4, 5, 4], [6, 2, 6], "maxrl")
        expected = [moments.implied_weight(p, m, "maxrl") for p, m in ((0.1, 6), (3.5 / 6, 2), (0.1, 6))]
        assert weights.tolist() == pytest.approx(expected)

    def test_sizes_are_limited(self):
        with pytest.raises(ValueError, match="sizes: expected at most 10000, got 10001"):
            implied_weights([0], [1], [10_001])


@fuzz
@given(st.one_of(groups(), groups(2**20)), counts)
def test_fuzz_degenerate_bounds(x, other):
    bounds = call(degenerate_bounds, *x)
    if bounds is not None:
        assert np.all(bounds[0] <= bounds[1])
        assert np.all((bounds[1] >= 0) & (bounds[1] <= 1 + 1e-12))
    call(degenerate_bounds, x[0], x[1], other)


@fuzz
@given(groups(), st.sampled_from([*NOISE_ESTIMATORS, "none"]))
def test_fuzz_noise_bounds(x, estimator):
    bounds = call(noise_bounds, *x, estimator)
    assert bounds is None or np.all(bounds[0] <= bounds[1])


@fuzz
@given(groups(), groups())
def test_fuzz_squared_change(x, y):
    call(squared_change, *x[:2], *y[:2])
    call(squared_change, *x[:2], *x[:2])


@fuzz
@given(groups(), st.sampled_from(["grpo", "rloo", "maxrl", "none"]))
def test_fuzz_implied_weights(x, estimator):
    call(implied_weights, *x, estimator)


@fuzz
@given(st.integers(1, 5).flatmap(lambda n: st.tuples(*[float_arrays((n,), st.floats(0, 1e100))] * 2)), counts)
def test_fuzz_moved_weight(x, steps):
    call(moved_weight, [0, 1, 0, 1, 0][: len(x[0])], *x)
    call(moved_weight, steps, *x)
