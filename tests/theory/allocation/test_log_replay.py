"""theory.allocation.log_replay: against a history in a loop, and a simulated log whose moments are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory.fuzzing import any_float, call, fuzz
from tests.theory.made_logs import counts, groups, log_of, seeds
from theory.allocation import past_counts, replay, water_level
from theory.allocation.history import SuccessHistory
from theory.allocation.log_estimates import noise_bounds
from theory.allocation.rules import Cures, Neyman, PilotCommit, Problem, Uniform, allocate, get_allocator, register
from theory.estimators import moments


class TestPastCounts:
    @given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    def test_is_what_the_history_would_have_known(self, seed, discount):
        rng = np.random.default_rng(seed)
        step, prompt, k, n = log_of(rng)
        order = rng.permutation(step.size)
        past = np.stack(past_counts(step[order], prompt[order], k[order], n[order], discount))
        history = SuccessHistory(discount)
        for t in np.unique(step):
            rows = np.flatnonzero(step == t)
            expected = np.stack(history.counts(prompt[rows]))
            np.testing.assert_allclose(past[:, np.argsort(order)[rows]], expected, rtol=1e-12)
            history.update(prompt[rows], k[rows], n[rows])

    def test_the_step_itself_is_not_seen(self, rng):
        step, prompt, k, n = log_of(rng)
        other = np.where(step == step.max(), n - k, k)
        before = step <= step.max()
        for past, again in zip(past_counts(step, prompt, k, n), past_counts(step, prompt, other, n), strict=True):
            assert past[before].tolist() == again[before].tolist()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([1, 1], [3, 3], [0, 0], [1, 1]), r"prompts: expected a prompt once per step, got 3 twice in step 1"),
            (([1], [0], [2], [1]), r"successes: expected at most attempts, got 2 > 1 at index 0"),
            (([1, 2], [0], [1], [1]), r"steps: expected the shape of attempts"),
            (([1.5], [0], [1], [1]), r"steps: expected integers"),
            (([], [], [], []), r"steps: expected"),
            (([1], [0], [0], [1], 1.5), r"discount: expected a finite number in \[0.0, 1.0\], got 1.5"),
        ],
    )
    def test_bad_input(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            past_counts(*arguments)


class TestReplay:
    def test_equals_the_rule_in_a_loop_with_a_history(self, rng):
        step, prompt, k, n = log_of(rng, num_steps=8)
        past = past_counts(step, prompt, k, n)
        counts = replay(Neyman(), step, *past, n, 3, 9, rng)
        history = SuccessHistory()
        for t in np.unique(step):
            rows = step == t
            expected = allocate(Neyman(), Problem(*history.counts(prompt[rows]), int(n[rows].sum()), 3, 9), rng)
            assert counts[rows].tolist() == expected.tolist()
            history.update(prompt[rows], k[rows], n[rows])
        assert counts.min() >= 3
        assert counts.max() <= 9

    def test_without_a_history_every_rule_is_uniform(self, rng):
        nothing = np.zeros(4)
        for name in ("dynamo", "dynamo-code", "neyman", "gvm", "vip", "knapsack", "cures", "log-progress"):
            counts = replay(get_allocator(name), [0] * 4, nothing, nothing, [8] * 4, 4, 12, rng)
            if name != "log-progress":  # its gain is convex in n: of equal prompts some are at high, others at low
                assert counts.tolist() == [8] * 4, name
            assert counts.sum() == 32

    def test_rows_need_no_order(self, rng):
        step, prompt, k, n = log_of(rng)
        past = np.stack(past_counts(step, prompt, k, n)) + rng.random((2, step.size))  # no ties
        past[0] = np.minimum(past[0], past[1])
        counts = replay(Cures(), step, *past, n, 2, 12, rng)
        order = rng.permutation(step.size)
        again = replay(Cures(), step[order], *past[:, order], n[order], 2, 12, rng)
        assert again.tolist() == counts[order].tolist()

    def test_a_rule_of_ones_own(self, rng):
        class Tried:
            name = "tried"

            def counts(self, problem, rng):
                return water_level(problem.attempts, problem.budget, problem.low, problem.high)

        rule = register(Tried())
        assert replay(rule, [0, 1, 1], [0, 0, 1], [0, 2, 6], [4, 8, 8], 2, 14, rng).tolist() == [4, 4, 12]

    @pytest.mark.parametrize("each", [24.0, 15, 5.5, np.nan])
    def test_a_rule_that_breaks_its_contract(self, each, rng):
        class Fixed:
            name = "fixed"

            def counts(self, problem, rng):
                return np.full(problem.num_prompts, each)

        with pytest.raises(ValueError, match=r"^rule fixed: counts: expected .* \(step 3\)$"):
            replay(Fixed(), [3, 3], [0, 0], [0, 0], [5, 6], 2, 16, rng)

    def test_bad_input(self, rng):
        with pytest.raises(ValueError, match="rule: expected one that decides before the first rollout, got pilot-com"):
            replay(PilotCommit(), [0], [0.0], [0.0], [4], 2, 8, rng)
        with pytest.raises(ValueError, match=r"budget: expected at most N high = 16, got 18 \(step 7\)"):
            replay(Uniform(), [3, 7, 7], [0.0] * 3, [0.0] * 3, [4, 9, 9], 2, 8, rng)
        with pytest.raises(ValueError, match="rule: expected"):
            replay("neyman", [0], [0.0], [0.0], [4], 2, 8, rng)


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
    noise, exact, pooled, low, high, exact_grpo = (np.zeros(300) for _ in range(6))
    for run, (step, prompt, k, n) in enumerate(world.logs(300)):
        counts = replay(rule, step, *past_counts(step, prompt, k, n), n, 4, 12, world.rng)
        noise[run] = noise_bounds(k, n, counts, "rloo")[0].sum()
        exact[run] = (p * (1 - p) / (counts - 1)).sum()
        low[run], high[run] = (x.sum() for x in noise_bounds(k, n, counts, "grpo"))
        coefficients = moments.group_coefficients(p, counts, "grpo")
        exact_grpo[run] = (coefficients.correct + coefficients.wrong).sum()
        rate = (np.bincount(prompt, k) / np.bincount(prompt, n))[prompt]
        pooled[run] = (rate * (1 - rate) / (counts - 1)).sum()
        if run < 3:  # the answers are so many that p q / (n - 1) is the variance to half a per cent
            np.testing.assert_allclose(world.exact(counts, "rloo").sum(), exact[run], rtol=0.02)
            np.testing.assert_allclose(world.exact(counts, "grpo").sum(), exact_grpo[run], rtol=0.02)

    def z(differences):
        return differences.mean() / (differences.std(ddof=1) / np.sqrt(differences.size))

    assert abs(z(noise - exact)) < 4
    assert abs(z(pooled - exact)) > 6, "pooled rates judge a policy that has moved, by data that the rule has seen"
    assert z(low - exact_grpo) < 4
    assert z(high - exact_grpo) > -4
    assert (high - low).mean() < 0.1 * exact_grpo.mean()


@fuzz
@given(groups(), st.lists(st.integers(0, 3), min_size=6, max_size=6), st.one_of(st.floats(0, 1), any_float), counts)
def test_fuzz_past_counts(x, steps, discount, prompts):
    k, n, _ = x
    call(past_counts, steps[: len(n)], list(range(len(n))), k, n, discount)
    call(past_counts, steps[: len(n)], prompts, k, n, discount)


@fuzz
@given(groups(), st.lists(st.integers(0, 2), min_size=6, max_size=6), st.integers(-1, 5), st.integers(0, 30), seeds)
def test_fuzz_replay(x, steps, low, high, seed):
    k, n, m = x
    call(replay, Cures(), steps[: len(n)], k, n, m, low, high, np.random.default_rng(seed))
