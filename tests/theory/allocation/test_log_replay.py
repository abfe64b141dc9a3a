from __future__ import annotations

from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import binom

from tests.theory.fuzzing import any_float, call, float_arrays, fuzz
from theory.allocation import log_replay
from theory.allocation.history import SuccessHistory
from theory.allocation.rules import Cures, Neyman, PilotCommit, Uniform, get_allocator
from theory.estimators import moments

RATES = np.array([0.0, 0.03, 0.2, 0.5, 0.71, 0.96, 1.0])


def expectation(estimate, p, n):
    """Sum over k of Binomial(k; n, p) estimate(k), by enumeration."""
    k = np.arange(n + 1)
    weights = np.array([comb(n, j) for j in k]) * p[:, None] ** k * (1 - p[:, None]) ** (n - k)
    return weights @ estimate(k, np.full(n + 1, n))


def log_of(rng, num_steps=6, num_prompts=12, size=5, n=6):
    """Return step, prompt, successes, attempts of a made log with drifting success rates."""
    p = rng.random(num_prompts)
    rows = [(t, i) for t in range(num_steps) for i in rng.choice(num_prompts, size, replace=False)]
    step, prompt = np.array(rows).T
    return step, prompt, rng.binomial(n, np.clip(p[prompt] + 0.02 * step, 0, 1)), np.full(step.size, n)


class TestPastCounts:
    @given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    def test_is_what_the_history_would_have_known(self, seed, discount):
        rng = np.random.default_rng(seed)
        step, prompt, k, n = log_of(rng)
        order = rng.permutation(step.size)
        found = np.stack(log_replay.past_counts(step[order], prompt[order], k[order], n[order], discount))
        history = SuccessHistory(discount)
        for t in np.unique(step):
            rows = np.flatnonzero(step == t)
            expected = np.stack(history.counts(prompt[rows]))
            np.testing.assert_allclose(found[:, np.argsort(order)[rows]], expected, rtol=1e-12)
            history.update(prompt[rows], k[rows], n[rows])

    def test_the_step_itself_is_not_seen(self, rng):
        step, prompt, k, n = log_of(rng)
        other = np.where(step == step.max(), n - k, k)
        before = step <= step.max()
        for found, again in zip(
            log_replay.past_counts(step, prompt, k, n), log_replay.past_counts(step, prompt, other, n), strict=True
        ):
            assert found[before].tolist() == again[before].tolist()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([1, 1], [3, 3], [0, 0], [1, 1]), r"prompts: expected a prompt once per step, got 3 twice in step 1"),
            (([1], [0], [2], [1]), r"successes: expected at most attempts, got 2 of 1 at index 0"),
            (([1, 2], [0], [1], [1]), r"steps: expected the shape of attempts"),
            (([1.5], [0], [1], [1]), r"steps: expected integers"),
            (([], [], [], []), r"steps: expected"),
            (([1], [0], [0], [1], 1.5), r"discount: expected a finite number in \[0.0, 1.0\], got 1.5"),
        ],
    )
    def test_bad_input(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            log_replay.past_counts(*arguments)


class TestReplay:
    def test_equals_the_rule_in_a_loop_with_a_history(self, rng):
        step, prompt, k, n = log_of(rng, num_steps=8)
        past = log_replay.past_counts(step, prompt, k, n)
        found = log_replay.replay(Neyman(), step, *past, n, 3, 9, rng)
        history = SuccessHistory()
        for t in np.unique(step):
            rows = step == t
            expected = Neyman().allocate(*history.counts(prompt[rows]), int(n[rows].sum()), 3, 9, rng)
            assert found[rows].tolist() == expected.tolist()
            history.update(prompt[rows], k[rows], n[rows])
        assert found.min() >= 3
        assert found.max() <= 9

    def test_without_a_history_every_rule_is_uniform(self, rng):
        nothing = np.zeros(4)
        for name in ("dynamo", "dynamo-code", "neyman", "gvm", "vip", "knapsack", "cures", "log-progress"):
            found = log_replay.replay(get_allocator(name), [0] * 4, nothing, nothing, [8] * 4, 4, 12, rng)
            if name != "log-progress":  # its gain is convex in n: of equal prompts some are at high, others at low
                assert found.tolist() == [8] * 4, name
            assert found.sum() == 32

    def test_rows_need_no_order(self, rng):
        step, prompt, k, n = log_of(rng)
        past = np.stack(log_replay.past_counts(step, prompt, k, n)) + rng.random((2, step.size))  # no ties
        past[0] = np.minimum(past[0], past[1])
        found = log_replay.replay(Cures(), step, *past, n, 2, 12, rng)
        order = rng.permutation(step.size)
        again = log_replay.replay(Cures(), step[order], *past[:, order], n[order], 2, 12, rng)
        assert again.tolist() == found[order].tolist()

    def test_bad_input(self, rng):
        with pytest.raises(ValueError, match="rule: expected one that decides before the first rollout, got pilot-com"):
            log_replay.replay(PilotCommit(), [0], [0.0], [0.0], [4], 2, 8, rng)
        with pytest.raises(ValueError, match=r"budget: expected at most N high = 16, got 18 \(step 7\)"):
            log_replay.replay(Uniform(), [3, 7, 7], [0.0] * 3, [0.0] * 3, [4, 9, 9], 2, 8, rng)
        with pytest.raises(ValueError, match="rule: expected"):
            log_replay.replay("neyman", [0], [0.0], [0.0], [4], 2, 8, rng)


class TestDegenerateBounds:
    @pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
    def test_bounds_hold_for_every_p_and_meet_up_to_n(self, n):
        for m in range(1, 14):
            exact = RATES**m + (1 - RATES) ** m

            def end(which, m=m):
                return lambda k, n: log_replay.degenerate_bounds(k, n, np.full(k.size, m))[which]

            low, high = (expectation(end(which), RATES, n) for which in (0, 1))
            assert np.all(low <= exact + 1e-12)
            assert np.all(exact <= high + 1e-12)
            if m <= n:
                np.testing.assert_allclose(low, exact, atol=1e-12)
                np.testing.assert_allclose(high, exact, atol=1e-12)

    def test_golden(self):
        """Of 5 with 4 right, a pair is all right with 6/10; a triple with 4/10, all wrong never."""
        for m, expected in ((2, 0.6), (3, 0.4), (5, 0.0)):
            assert [x.tolist() for x in log_replay.degenerate_bounds([4], [5], [m])] == [[pytest.approx(expected)]] * 2
        assert [x.tolist() for x in log_replay.degenerate_bounds([4], [5], [8])] == [[pytest.approx(-0.6)], [0.0]]

    def test_large_counts_go_the_other_way(self):
        k, n, m = np.array([0, 3000, 1]), np.array([9, 6000, 1]), np.array([40_000, 2, 1])
        low, high = log_replay.degenerate_bounds(k, n, m)
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
                return lambda k, n: log_replay.noise_bounds(k, n, np.full(k.size, m), estimator)[which]

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
        estimate = expectation(
            lambda k, n: log_replay.noise_bounds(k, n, np.full(k.size, 9), "exact-baseline")[0], RATES, 4
        )
        np.testing.assert_allclose(estimate, exact / 9, rtol=3e-3, atol=1e-15)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="attempts: expected integers >= 2"):
            log_replay.noise_bounds([0], [1], [2], "rloo")
        with pytest.raises(ValueError, match="sizes: expected integers >= 2"):
            log_replay.noise_bounds([0], [2], [1], "rloo")
        with pytest.raises(ValueError, match="estimator: expected one of exact-baseline, rloo, grpo, got 'maxrl'"):
            log_replay.noise_bounds([0], [2], [2], "maxrl")


class World:
    """A simulated run: softmax policies over many answers whose success rates drift; exact moments are known."""

    def __init__(self, seed, num_prompts=24, answers=400):
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.correct = np.tile(np.arange(answers) < answers // 2, (num_prompts, 1))
        self.logits = rng.normal(0, 0.5, (num_prompts, answers))
        self.odds = rng.normal(0, 2.5, num_prompts)
        self.drift = rng.normal(0.15, 0.25, num_prompts)
        self.size, self.n, self.num_steps = 12, 8, 10
        self.prompts = np.stack(
            [x for _ in range(self.num_steps // 2) for x in rng.permutation(num_prompts).reshape(2, self.size)]
        )

    def policy(self, step):
        """Return the policies of the prompts of a step."""
        rows = self.prompts[step]
        z = self.logits[rows] + self.correct[rows] * (self.odds[rows] + self.drift[rows] * step)[:, None]
        pi = np.exp(z - z.max(axis=1, keepdims=True))
        return pi / pi.sum(axis=1, keepdims=True)

    def rates(self):
        """Return the success rate of every group."""
        return np.concatenate(
            [(self.policy(t) * self.correct[self.prompts[t]]).sum(axis=1) for t in range(self.num_steps)]
        )

    def logs(self, num):
        """Yield logs of independent runs: step, prompt, successes, attempts."""
        p = self.rates()
        step, prompt = np.repeat(np.arange(self.num_steps), self.size), self.prompts.reshape(-1)
        for _ in range(num):
            yield step, prompt, self.rng.binomial(self.n, p), np.full(p.size, self.n)

    def exact(self, counts, estimator):
        """Return the exact trace of each group's covariance, from the answers."""
        parts = [
            moments.gradient_moments(self.policy(t), self.correct[self.prompts[t]], m, estimator).variance
            for t, m in enumerate(counts.reshape(self.num_steps, self.size))
        ]
        return np.concatenate(parts)


@pytest.mark.parametrize("name", ["dynamo", "cures", "knapsack"])
def test_ratios_against_exact_moments_in_a_simulated_log(name):
    """Averaged over logs, the replay's noise is that of moments; one with pooled success rates is not."""
    world, rule = World(7), get_allocator(name)
    p = world.rates()
    found, exact, pooled, low, high, exact_grpo = (np.zeros(300) for _ in range(6))
    for at, (step, prompt, k, n) in enumerate(world.logs(300)):
        counts = log_replay.replay(rule, step, *log_replay.past_counts(step, prompt, k, n), n, 4, 12, world.rng)
        found[at] = log_replay.noise_bounds(k, n, counts, "rloo")[0].sum()
        exact[at] = (p * (1 - p) / (counts - 1)).sum()
        low[at], high[at] = (x.sum() for x in log_replay.noise_bounds(k, n, counts, "grpo"))
        coefficients = moments.group_coefficients(p, counts, "grpo")
        exact_grpo[at] = (coefficients.correct + coefficients.wrong).sum()
        rate = (np.bincount(prompt, k) / np.bincount(prompt, n))[prompt]
        pooled[at] = (rate * (1 - rate) / (counts - 1)).sum()
        if at < 3:  # the answers are so many that p q / (n - 1) is the variance to half a per cent
            np.testing.assert_allclose(world.exact(counts, "rloo").sum(), exact[at], rtol=0.02)
            np.testing.assert_allclose(world.exact(counts, "grpo").sum(), exact_grpo[at], rtol=0.02)

    def z(differences):
        return differences.mean() / (differences.std(ddof=1) / np.sqrt(differences.size))

    assert abs(z(found - exact)) < 4
    assert abs(z(pooled - exact)) > 6, "pooled rates judge a policy that has moved, by data that the rule has seen"
    assert z(low - exact_grpo) < 4
    assert z(high - exact_grpo) > -4
    assert (high - low).mean() < 0.1 * exact_grpo.mean()


class TestSquaredChange:
    def test_unbiased_by_enumeration(self):
        for p, r in ((0.1, 0.1), (0.3, 0.9), (0.0, 1.0)):
            weights = np.outer(binom.pmf(np.arange(5), 4, p), binom.pmf(np.arange(8), 7, r))
            k, j = (x.reshape(-1) for x in np.indices((5, 8)))
            found = log_replay.squared_change(k, np.full(40, 4), j, np.full(40, 7))
            assert weights.reshape(-1) @ found == pytest.approx((p - r) ** 2, abs=1e-12)


class TestMovedWeight:
    @given(st.integers(0, 2**32 - 1))
    def test_is_the_largest_gain_of_any_set_of_prompts(self, seed):
        rng = np.random.default_rng(seed)
        w, r = rng.random(5) + 0.01, rng.random(5) + 0.01
        gains = w / w.sum() - r / r.sum()
        largest = max(gains[[b == "1" for b in f"{mask:05b}"]].sum() for mask in range(32))
        assert log_replay.moved_weight([3] * 5, w, r)[0] == pytest.approx(largest, abs=1e-12)
        assert log_replay.moved_weight([3] * 5, 7 * r, r)[0] == pytest.approx(0, abs=1e-12)

    def test_a_step_without_weight(self):
        with pytest.raises(ValueError, match="reference: expected a positive sum in every step, got 0"):
            log_replay.moved_weight([1, 2], [1.0, 1.0], [1.0, 0.0])


class TestImpliedWeights:
    def test_is_the_exact_weight_at_the_posterior_mean(self):
        found = log_replay.implied_weights([0, 3, 0], [4, 5, 4], [6, 2, 6], "maxrl")
        expected = [moments.implied_weight(p, m, "maxrl") for p, m in ((0.1, 6), (3.5 / 6, 2), (0.1, 6))]
        assert found.tolist() == pytest.approx(expected)

    def test_sizes_are_limited(self):
        with pytest.raises(ValueError, match="sizes: expected at most 10000, got 10001"):
            log_replay.implied_weights([0], [1], [10_001])


class TestRatioIntervals:
    def test_point_and_zeros(self, rng):
        found = log_replay.ratio_intervals([[1.0, 0.0], [2.0, 0.0]], [[2.0, 0.0], [4.0, 0.0]], [0, 1], rng)
        assert [x.tolist() for x in found] == [[0.5, 1.0]] * 3

    def test_rows_of_a_cluster_stay_together(self):
        """As one row per cluster, to the last bit; the order of rows is immaterial."""
        rng = np.random.default_rng(0)
        x, y, cluster = rng.random((60, 2)), 1 + rng.random((60, 2)), np.repeat(np.arange(12), 5)
        found = log_replay.ratio_intervals(x, y, cluster, np.random.default_rng(1), num_resamples=300)
        sums = [z.reshape(12, 5, 2).sum(axis=1) for z in (x, y)]
        again = log_replay.ratio_intervals(*sums, np.arange(12), np.random.default_rng(1), num_resamples=300)
        for one, other in zip(found, again, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)
        wide = found.high - found.low
        alone = log_replay.ratio_intervals(x, y, np.arange(60), np.random.default_rng(1), num_resamples=300)
        assert np.all(wide > 0)
        assert np.all(np.abs(alone.high - alone.low - wide) > 0)

    def test_coverage(self):
        """A ratio of means of correlated rows: 95 % intervals hold the truth in at least 90 % of 200 cases."""
        rng, hits = np.random.default_rng(5), 0
        for _ in range(200):
            own = rng.gamma(2.0, size=(80, 1))
            y = (own * rng.gamma(3.0, 1 / 3, size=(80, 4))).reshape(-1, 1)
            x = 0.8 * y * rng.gamma(4.0, 1 / 4, size=y.shape)
            low, high = log_replay.ratio_intervals(x, y, np.repeat(np.arange(80), 4), rng, num_resamples=400)[1:]
            hits += bool(low[0] <= 0.8 <= high[0])
        assert 180 <= hits <= 199

    def test_more_clusters_than_are_resampled(self, monkeypatch):
        """Pooled, the interval is about as wide."""
        rng = np.random.default_rng(0)
        x, y = rng.random((3000, 1)), 1 + rng.random((3000, 1))
        one = log_replay.ratio_intervals(x, y, np.arange(3000), np.random.default_rng(1), num_resamples=500)
        monkeypatch.setattr(log_replay, "MAX_CLUSTERS", 300)
        other = log_replay.ratio_intervals(x, y, np.arange(3000), np.random.default_rng(1), num_resamples=500)
        assert one.point == pytest.approx(other.point)
        assert (other.high - other.low) / (one.high - one.low) == pytest.approx(1.0, abs=0.2)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"numerators": [1.0]}, r"numerators: expected shape \[G, R\]"),
            ({"denominators": [[1.0]]}, "denominators: expected the shape of numerators"),
            ({"denominators": [[1.0], [-2.0]]}, "denominators: expected a positive sum, got"),
            ({"clusters": [0]}, "clusters: expected one per row, 2, got 1"),
            ({"rng": 0}, "rng: expected a numpy.random.Generator, got int"),
            ({"confidence": 1.0}, r"confidence: expected a number in \(0, 1\), got 1.0"),
            ({"num_resamples": 0}, "num_resamples: expected an integer >= 1, got 0"),
        ],
    )
    def test_bad_input(self, change, message, rng):
        given = {"numerators": [[1.0], [2.0]], "denominators": [[1.0], [2.0]], "clusters": [0, 1], "rng": rng}
        with pytest.raises(ValueError, match=message):
            log_replay.ratio_intervals(**{**given, **change})


class TestJeffreysInterval:
    def test_golden(self):
        """mpmath, 30 digits: the root t of betainc(k + 1/2, n - k + 1/2, 0, t, regularized=True) - 0.025 or 0.975."""
        low, high = log_replay.jeffreys_interval([1, 8, 3, 0], [4, 16, 100, 16])
        lows = [0.0284708950871468, 0.272234747118479, 0.00852028310740358, 0.0]
        highs = [0.716248320436587, 0.727765252881521, 0.0778875694264026, 0.143184137931445]
        np.testing.assert_allclose(low, lows, rtol=1e-12)
        np.testing.assert_allclose(high, highs, rtol=1e-12)

    def test_mean_coverage(self):
        """Averaged over p the interval holds p in 95 % of the cases, to one per cent, as a Bayesian interval does."""
        p = np.linspace(0.02, 0.98, 193)
        for n in (8, 16, 64):
            k = np.arange(n + 1)
            low, high = log_replay.jeffreys_interval(k, np.full(n + 1, n))
            held = (low <= p[:, None]) & (p[:, None] <= high)
            assert (binom.pmf(k, n, p[:, None]) * held).sum(axis=1).mean() == pytest.approx(0.95, abs=0.012)

    def test_is_symmetric_and_ordered(self):
        k = np.arange(13)
        low, high = log_replay.jeffreys_interval(k, np.full(13, 12), 0.8)
        np.testing.assert_allclose(low, 1 - high[::-1], atol=1e-12)
        assert all(a < b for a, b in pairwise(low))


counts = st.lists(st.integers(-1, 12), min_size=0, max_size=6)
some = st.integers(0, 2**32 - 1)


@st.composite
def groups(draw, most=10):
    """Draw lists of k and n, and a list of the same length."""
    n = draw(st.lists(st.integers(1, most), min_size=1, max_size=6))
    k = [draw(st.integers(0, x)) for x in n]
    m = draw(st.lists(st.integers(1, 3 * most), min_size=len(n), max_size=len(n)))
    return k, n, m


@fuzz
@given(groups(), st.lists(st.integers(0, 3), min_size=6, max_size=6), st.one_of(st.floats(0, 1), any_float), counts)
def test_fuzz_past_counts(x, steps, discount, prompts):
    k, n, _ = x
    call(log_replay.past_counts, steps[: len(n)], list(range(len(n))), k, n, discount)
    call(log_replay.past_counts, steps[: len(n)], prompts, k, n, discount)


@fuzz
@given(groups(), st.lists(st.integers(0, 2), min_size=6, max_size=6), st.integers(-1, 5), st.integers(0, 30), some)
def test_fuzz_replay(x, steps, low, high, seed):
    k, n, m = x
    call(log_replay.replay, Cures(), steps[: len(n)], k, n, m, low, high, np.random.default_rng(seed))


@fuzz
@given(st.one_of(groups(), groups(2**20)), counts)
def test_fuzz_degenerate_bounds(x, other):
    found = call(log_replay.degenerate_bounds, *x)
    if found is not None:
        assert np.all(found[0] <= found[1])
        assert np.all((found[1] >= 0) & (found[1] <= 1 + 1e-12))
    call(log_replay.degenerate_bounds, x[0], x[1], other)


@fuzz
@given(groups(), st.sampled_from([*log_replay.ESTIMATORS, "none"]))
def test_fuzz_noise_bounds(x, estimator):
    found = call(log_replay.noise_bounds, *x, estimator)
    assert found is None or np.all(found[0] <= found[1])


@fuzz
@given(groups(), groups())
def test_fuzz_squared_change(x, y):
    call(log_replay.squared_change, *x[:2], *y[:2])
    call(log_replay.squared_change, *x[:2], *x[:2])


@fuzz
@given(groups(), st.sampled_from(["grpo", "rloo", "maxrl", "none"]))
def test_fuzz_implied_weights(x, estimator):
    call(log_replay.implied_weights, *x, estimator)


@fuzz
@given(st.integers(1, 5).flatmap(lambda n: st.tuples(*[float_arrays((n,), st.floats(0, 1e100))] * 2)), counts)
def test_fuzz_moved_weight(x, steps):
    call(log_replay.moved_weight, [0, 1, 0, 1, 0][: len(x[0])], *x)
    call(log_replay.moved_weight, steps, *x)


@fuzz
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3)).flatmap(
        lambda shape: st.tuples(*[float_arrays(shape, st.one_of(st.floats(0, 1e300), any_float))] * 2)
    ),
    counts,
    st.one_of(st.floats(0.01, 0.99), any_float),
    some,
)
def test_fuzz_ratio_intervals(x, clusters, confidence, seed):
    for given_clusters in (clusters, list(range(len(x[0])))):
        call(log_replay.ratio_intervals, *x, given_clusters, np.random.default_rng(seed), confidence, 5)


@fuzz
@given(st.one_of(groups(), groups(2**31)), st.one_of(st.floats(0.001, 0.999), any_float))
def test_fuzz_jeffreys_interval(x, confidence):
    found = call(log_replay.jeffreys_interval, x[0], x[1], confidence)
    if found is not None:
        assert np.all((found[0] >= 0) & (found[0] <= found[1]) & (found[1] <= 1))
