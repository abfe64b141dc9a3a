"""stopping: every sequence of answers enumerated, known numbers, limits, and rules that are no rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from tests.theory.estimators.groups import PROMPTS, assert_moments, check_moments, enumerated, names, p_arrays, prompts
from theory.estimators import ESTIMATORS, moments, stopping
from theory.estimators.stopping import GroupLaw, StoppingRule, gradient_moments_stopped


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "rule",
    [
        StoppingRule(1, 5),
        StoppingRule(2, 3),
        StoppingRule(2, 3, 1, 1),
        StoppingRule(3, 2, 2, 0),
        StoppingRule(1, 6, 2, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize(("probs", "correct"), PROMPTS[:2])
def test_moments_under_a_stopping_rule_by_enumeration(probs, correct, rule, estimator):
    def stops(rewards):
        wrong = rewards.size - rewards.sum()
        return rewards.size % rule.round_size == 0 and rewards.sum() >= rule.min_correct and wrong >= rule.min_wrong

    got = gradient_moments_stopped(probs, correct, rule, estimator)
    assert_moments(got, enumerated(probs, correct, estimator, rule.round_size * rule.max_rounds, stops))


def test_until_one_success_is_biased():
    """Rounds of 8, at most 4: pooled mean, cost, and the weight of the pooled Dr.GRPO gradient."""
    rule, p = StoppingRule(8, 4), np.array([0.05, 0.1, 0.5])
    law = stopping.stopping_law(p, rule)
    np.testing.assert_allclose(law.expected_pooled_mean[:2], [0.0776, 0.1297], atol=5e-5)
    np.testing.assert_allclose(law.expected_rollouts, [19.2, 13.6, 8.0], atol=0.05)
    np.testing.assert_allclose(stopping.stopped_coefficients(p, rule, "dr_grpo").weight, [1.41, 1.17, 0.88], atol=5e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("p", "limit"), [(0.0, 1e-13), (1.0, 1 - 1e-13)])
def test_certain_prompts_are_limits(estimator, p, limit):
    """At p = 0 and p = 1 the weight is the limit, the mean 0, and the policy of the absent kind does not matter."""
    for rule in (StoppingRule(5, 1, 0, 0), StoppingRule(2, 3, 1, 1)):
        edge, near = (stopping.stopped_coefficients(x, rule, estimator) for x in (p, limit))
        np.testing.assert_allclose(edge, near, rtol=1e-11, atol=1e-11)
        probs, correct = [p / 2, p / 2, (1 - p) / 2, (1 - p) / 2], [True, True, False, False]
        got = gradient_moments_stopped(probs, correct, rule, estimator)
        assert not got.mean.any()
        if estimator != "reinforce":
            assert got.variance == 0
            assert got.mse == 0


def test_a_stopping_rule_that_cannot_stop_early_is_a_fixed_group():
    p = np.array([0.0, 0.1, 0.8, 1.0])
    for estimator in ESTIMATORS:
        fixed = moments.group_coefficients(p, 12, estimator)
        for rule in (StoppingRule(12, 1, 0, 0), StoppingRule(12, 7, 0, 0), StoppingRule(3, 4, 13, 0)):
            np.testing.assert_allclose(stopping.stopped_coefficients(p, rule, estimator), fixed, rtol=1e-12, atol=1e-16)


def test_balanced_stopping_waits_for_both_kinds():
    law = stopping.stopping_law(np.array([0.1, 0.5]), StoppingRule(8, 4, 2, 2))
    assert isinstance(law, GroupLaw)
    np.testing.assert_allclose(law.probability.sum(axis=-1), 1.0, rtol=1e-13)
    early = law.num_rollouts < 32
    assert np.all(law.num_correct[early] >= 2)
    assert np.all((law.num_rollouts - law.num_correct)[early] >= 2)
    assert law.expected_rollouts[0] > law.expected_rollouts[1] > 8
    # Symmetric in the two kinds: no bias at p = 1/2.
    np.testing.assert_allclose(law.expected_pooled_mean[1], 0.5, rtol=1e-12)


def test_a_batch_is_its_rows(rng):
    probs = rng.dirichlet(np.ones(5), size=(3, 1))
    correct = rng.random((3, 1, 5)) < 0.5
    stopped = gradient_moments_stopped(probs, correct, StoppingRule(3, 2), "maxrl")
    for i in range(3):
        one = gradient_moments_stopped(probs[i, 0], correct[i, 0], StoppingRule(3, 2), "maxrl")
        np.testing.assert_allclose(stopped.covariance[i, 0], one.covariance, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((0, 4), "round_size: expected an integer >= 1, got 0"),
        ((8, 0), "max_rounds: expected an integer >= 1, got 0"),
        ((8, 4, -1), "min_correct: expected an integer >= 0, got -1"),
        ((8, 4, 1, 0.5), "min_wrong: expected an integer, got 0.5"),
    ],
)
def test_bad_stopping_rules_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        StoppingRule(*fields)
    with pytest.raises(ValueError, match="rule: expected a StoppingRule, got None"):
        stopping.stopping_law(0.5, None)


rules = st.builds(StoppingRule, st.integers(1, 5), st.integers(1, 4), st.integers(0, 4), st.integers(0, 4))


@fuzzing.fuzz
@given(p_arrays, rules)
def test_fuzz_stopping_law(p, rule):
    law = fuzzing.call(stopping.stopping_law, p, rule)
    if law is not None:
        np.testing.assert_allclose(law.probability.sum(axis=-1), 1.0, rtol=1e-12)
        assert np.all(law.expected_rollouts <= rule.round_size * rule.max_rounds * (1 + 1e-12))
        assert np.all((law.expected_pooled_mean >= 0) & (law.expected_pooled_mean <= 1 + 1e-12))


@fuzzing.fuzz
@given(p_arrays, rules, names)
def test_fuzz_stopped_coefficients(p, rule, estimator):
    fuzzing.call(stopping.stopped_coefficients, p, rule, estimator)


@fuzzing.fuzz
@given(prompts(), rules, names)
def test_fuzz_gradient_moments_stopped(prompt, rule, estimator):
    check_moments(fuzzing.call(gradient_moments_stopped, *prompt, rule, estimator))
