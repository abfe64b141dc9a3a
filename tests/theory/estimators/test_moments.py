"""moments: every group enumerated, 400,000 groups sampled, golden values from mpmath, limits, known numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tests.theory import fuzzing
from tests.theory.estimators.groups import (
    FRACTIONS,
    PROMPTS,
    assert_moments,
    check_moments,
    enumerated,
    names,
    p_arrays,
    prompts,
    raw_advantages,
)
from theory.estimators import ESTIMATORS, moments
from theory.estimators.moments import gradient_moments


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize(("probs", "correct"), PROMPTS)
def test_moments_by_enumeration(probs, correct, n, estimator):
    got = gradient_moments(probs, correct, n, estimator)
    assert_moments(got, enumerated(probs, correct, estimator, n))


@pytest.fixture(scope="module")
def sampled_groups():
    """Return 400,000 groups of 6: answer counts [G, K], and the correct answers in front."""
    probs, correct = np.array([0.2, 0.15, 0.4, 0.25]), np.array([True, True, False, False])
    return probs, correct, np.random.default_rng(20260222).multinomial(6, probs, size=400_000)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_moments_by_monte_carlo(sampled_groups, estimator):
    """Within 4 standard errors, and an error of 2 % would have been seen: it is at least 6 of them."""
    probs, correct, counts = sampled_groups
    n, num_correct = 6, counts[:, correct].sum(axis=1)
    rewards = (np.arange(n) < num_correct[:, None]) * 1.0
    advantages = raw_advantages(rewards, estimator)
    # Rollouts of one kind share an advantage: that of the first is the correct ones', that of the last the wrong ones'.
    by_answer = np.where(correct, advantages[:, :1], advantages[:, -1:])
    gradients = (counts * by_answer - advantages.sum(axis=1)[:, None] * probs) / n
    exact = gradient_moments(probs, correct, n, estimator)

    def check(samples, expected):
        standard_error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
        assert np.all(np.abs(samples.mean(axis=0) - expected) < 4 * standard_error + 1e-15)
        return np.max(0.02 * np.abs(expected) / standard_error)

    assert check(gradients, exact.mean) > 6
    # Around the exact mean; its own error enters in second order only.
    assert check(((gradients - exact.mean) ** 2).sum(axis=1), exact.variance) > 6
    assert check(((gradients - exact.true_gradient) ** 2).sum(axis=1), exact.mse) > 6


# mpmath, 50 digits, n = 7, correct answers C = (0, 3) of probability p, J[i] = pi[i] * ((i in C) - p) its gradient:
#   pi = softmax((mpf('0.3'), mpf('-1.2'), mpf('2.5'), mpf(0)))
#   for N in product(range(8), repeat=4), sum(N) == 7:
#     P = factorial(7) * fprod(pi[i]**N[i] / factorial(N[i]) for i in range(4)); m = mpf(N[0] + N[3]) / 7
#     A = [((i in C) - m) / scale(m) for i in range(4)], 0 unless 0 < m < 1;  reinforce: A = [(i in C) ...]
#     g = [(N[i] * A[i] - pi[i] * fdot(N, A)) / 7 for i in range(4)]; E += P * g; Q += P * fdot(g, g)
#   scale: rloo 6/7, dr_grpo 1, grpo sqrt(m (1-m)), grpo_sample sqrt(m (1-m) 7/6), maxrl m
#   print(E[0], Q - fdot(E, E), Q - fdot(E, E) + fdot(E - J, E - J))
GOLDEN = {
    "reinforce": (0.076584562140353031, 0.030812928985569646, 0.030812928985569646),
    "rloo": (0.076584562140353031, 0.022602928992162834, 0.022602928992162834),
    "dr_grpo": (0.065643910406016884, 0.016606233545262491, 0.017137279862098078),
    "grpo": (0.16091405560151744, 0.091381278814539708, 0.12293168806951407),
    "grpo_sample": (0.14897746701180277, 0.078326810412462607, 0.10157761687061113),
    "maxrl": (0.31167821499773608, 0.37299050988856123, 0.61819466304627868),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_golden_values(estimator):
    pi = np.exp([0.3, -1.2, 2.5, 0.0])
    got = gradient_moments(pi / pi.sum(), [True, False, False, True], 7, estimator)
    np.testing.assert_allclose([got.mean[0], got.variance, got.mse], GOLDEN[estimator], rtol=1e-13)


def test_true_gradient_is_the_gradient_of_the_success_probability():
    """Closed form p q d, central differences and autograd, in float64."""
    start, mask = np.array([0.3, -1.2, 2.5, 0.0]), np.array([1.0, 0.0, 0.0, 1.0])

    def success(z):
        return np.exp(z) @ mask / np.exp(z).sum()

    logits = torch.tensor(start, requires_grad=True)
    (autograd,) = torch.autograd.grad(torch.softmax(logits, 0) @ torch.tensor(mask), logits)
    closed = gradient_moments(np.exp(start) / np.exp(start).sum(), mask > 0, 4).true_gradient
    central = [(success(start + 1e-6 * e) - success(start - 1e-6 * e)) / 2e-6 for e in np.eye(4)]
    np.testing.assert_allclose(closed, autograd.numpy(), rtol=1e-13)
    np.testing.assert_allclose(closed, central, rtol=1e-7)


def test_maxrl_ascends_the_truncated_log_likelihood():
    """E[g] is the gradient of -sum_{j < n} (1 - p)^j / j, the first terms of log p."""
    n, logits = 5, torch.tensor([0.3, -1.2, 2.5, 0.0], dtype=torch.float64, requires_grad=True)
    pi = torch.softmax(logits, 0)
    wrong = pi[1] + pi[2]
    (expected,) = torch.autograd.grad(-sum(wrong**j / j for j in range(1, n)), logits)
    got = gradient_moments(pi.detach().numpy(), [True, False, False, True], n, "maxrl")
    np.testing.assert_allclose(got.mean, expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 24, 1000, 10_000])
def test_weights_in_closed_form(n):
    p = np.array([0.0, 1e-12, 1e-3, 0.3, 0.5, 1 - 1e-12, 1.0])
    weight = {name: moments.implied_weight(p, n, name) for name in ESTIMATORS}
    rtol = 2e-15 * (n + 10)
    np.testing.assert_allclose(weight["reinforce"], np.ones(7), rtol=rtol)
    np.testing.assert_allclose(weight["rloo"], np.ones(7), rtol=rtol)
    np.testing.assert_allclose(weight["dr_grpo"], np.full(7, (n - 1) / n), rtol=rtol)
    maxrl = np.concatenate([[n - 1], -np.expm1((n - 1) * np.log1p(-p[1:-1])) / p[1:-1], [1]])
    np.testing.assert_allclose(weight["maxrl"], maxrl, rtol=rtol)
    np.testing.assert_allclose(weight["grpo_sample"] / weight["grpo"], np.sqrt((n - 1) / n), rtol=1e-13)


@pytest.mark.parametrize("estimator", ["grpo", "grpo_sample"])
def test_the_weight_of_std_normalised_grpo_tends_to_one_over_the_std(estimator):
    p = np.array([0.02, 0.3, 0.5, 0.9])
    errors = [np.abs(moments.implied_weight(p, n, estimator) * np.sqrt(p * (1 - p)) - 1) for n in (1000, 10_000)]
    assert np.all(errors[1] < 3e-3)
    np.testing.assert_allclose(errors[0] / errors[1], 10, rtol=0.25)  # the next term is O(1/n)


@pytest.mark.parametrize("estimator", ["reinforce", "rloo", "dr_grpo"])
def test_n_times_the_variance_tends_to_that_of_one_rollout(estimator):
    probs, correct = PROMPTS[2]
    baseline = 0.0 if estimator == "reinforce" else None
    expected = moments.single_rollout_variance(probs, correct, baseline)
    got = 10_000 * gradient_moments(probs, correct, 10_000, estimator).variance
    np.testing.assert_allclose(got, expected, rtol=1e-9 if estimator == "reinforce" else 5e-4)


@pytest.mark.parametrize("baseline", [None, 0.0, 0.25, -3.0])
def test_single_rollout_variance_by_enumeration(baseline):
    for probs, correct in PROMPTS:
        pi, reward = np.array(probs), np.array(correct) * 1.0
        b = pi @ reward if baseline is None else baseline
        g = (reward - b)[:, None] * (np.eye(pi.size) - pi)
        expected = pi @ (g**2).sum(axis=1) - ((pi @ g) ** 2).sum()
        np.testing.assert_allclose(moments.single_rollout_variance(probs, correct, baseline), expected, atol=1e-15)


def test_closed_forms_of_a_two_answer_policy():
    """Without answers to choose between, only the class counts vary: sigma^2 = 2 p q (1 - 2p)^2."""
    p = np.array([0.05, 0.3, 0.5, 0.9])
    got = moments.single_rollout_variance(np.stack([p, 1 - p], 1), np.array([[True, False]] * 4))
    np.testing.assert_allclose(got, 2 * p * (1 - p) * (1 - 2 * p) ** 2, atol=1e-16)


def test_variance_of_a_two_answer_policy_is_not_the_bernoulli_variance():
    """RLOO, n = 16: least at p = 1/2, where p q is largest; many diffuse answers follow p q."""
    p = np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.9])
    two = gradient_moments(np.stack([p, 1 - p], 1), np.array([[True, False]] * 6), 16, "rloo").variance
    np.testing.assert_allclose(two, [0.00485, 0.00733, 0.00763, 0.00493, 0.00104, 0.00733], atol=5.01e-6)
    probs = np.concatenate([np.repeat(p[:, None] / 64, 64, 1), np.repeat((1 - p[:, None]) / 192, 192, 1)], 1)
    diffuse = gradient_moments(probs, np.tile(np.arange(256) < 64, (6, 1)), 16, "rloo").variance
    np.testing.assert_allclose(diffuse, [0.00317, 0.00599, 0.01060, 0.01387, 0.01649, 0.00604], rtol=2e-3)
    np.testing.assert_allclose(diffuse, p * (1 - p) / 16, rtol=0.08)


def test_weights_of_std_normalised_grpo_differ_with_the_group_size():
    got = moments.implied_weight(np.array([[0.05], [0.5]]), np.array([4, 24]), "grpo")
    np.testing.assert_allclose(got, [[1.71, 3.69], [1.62, 1.96]], atol=5e-3)


def test_std_normalised_gradient_given_the_number_correct():
    """The variance inside a class is ((n-k) v_C + k v_W) / n^2 for every k, here summed with k ~ Binomial."""
    n, p = 4, 0.3
    coefficients = moments.group_coefficients(p, n, "grpo")
    pmf = np.array([4 * 0.3 * 0.7**3, 6 * 0.3**2 * 0.7**2, 4 * 0.3**3 * 0.7])
    np.testing.assert_allclose(coefficients.correct, pmf @ [3, 2, 1] / 16, rtol=1e-13)
    np.testing.assert_allclose(coefficients.wrong, pmf @ [1, 2, 3] / 16, rtol=1e-13)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_group_advantages_are_those_of_the_rewards(estimator):
    for n in range(1, 7):
        for k in range(n + 1):
            advantages = raw_advantages((np.arange(n) < k) * 1.0, estimator)
            correct, wrong = moments.group_advantages(k, n, estimator)
            np.testing.assert_allclose(correct, advantages[0] if k else 0.0, rtol=1e-13)
            np.testing.assert_allclose(wrong, advantages[-1] if k < n else 0.0, rtol=1e-13)


def test_R7_equal_rewards_give_exactly_zero():
    for estimator in ESTIMATORS[1:]:
        for k in (0, 3):
            assert [float(a) for a in moments.group_advantages(k, 3, estimator)] == [0.0, 0.0]


def test_R8_the_lone_loser_is_kept():
    assert moments.group_advantages(7, 8, "rloo")[1] == -1.0


def test_R14_a_group_of_one_has_no_advantage():
    for estimator in ESTIMATORS[1:]:
        got = gradient_moments([0.4, 0.6], [True, False], 1, estimator)
        assert got.weight == got.variance == 0
        assert got.cosine == 0
        np.testing.assert_allclose(got.mse, (got.true_gradient**2).sum())


def test_reinforce_still_varies_where_every_answer_is_correct():
    got = gradient_moments([0.5, 0.5], [True, True], 4, "reinforce")
    assert not got.mean.any()
    np.testing.assert_allclose(got.covariance, np.array([[1, -1], [-1, 1]]) / 16, rtol=1e-13)


def test_tiny_probabilities_keep_their_precision():
    """One success in n: E[k A_C^2] / n^2 -> n p A_C(1)^2 / n^2, from either end; 1 - p would have lost the latter."""
    for tiny in (1e-12, 1e-200):
        n = 8
        got = gradient_moments([tiny, 1 - tiny], [True, False], n, "rloo")
        mirrored = gradient_moments([tiny, 1 - tiny], [False, True], n, "rloo")
        np.testing.assert_allclose(got.coefficients.correct, tiny / n, rtol=1e-10)
        np.testing.assert_allclose(mirrored.coefficients.wrong, tiny / n, rtol=1e-10)
        np.testing.assert_allclose(got.variance, mirrored.variance, rtol=1e-10)
        np.testing.assert_allclose(got.true_gradient, -mirrored.true_gradient, rtol=1e-13)


def test_a_batch_is_its_rows(rng):
    probs = rng.dirichlet(np.ones(5), size=(3, 1))
    correct = rng.random((3, 1, 5)) < 0.5
    sizes = np.array([2, 3, 17, 3])
    batch = gradient_moments(probs, correct, sizes, "grpo")
    names = ("weight", "mean", "covariance", "variance", "mse", "signal", "progress", "cosine")
    for i in range(3):
        for j, n in enumerate(sizes):
            one = gradient_moments(probs[i, 0], correct[i, 0], int(n), "grpo")
            for name in names:
                np.testing.assert_allclose(getattr(batch, name)[i, j], getattr(one, name), rtol=1e-12, atol=1e-16)
    table = moments.expected_progress(probs[:, 0], correct[:, 0], 17, "grpo")
    assert table.shape == (3, 18)
    assert not table[:, 0].any()
    np.testing.assert_allclose(table[:, sizes], batch.progress, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_cosine_golden_values(estimator):
    """From the goldens above: E g is parallel to grad J, so that |E g| = E[g_0] |grad J| / grad J_0."""
    pi = np.exp([0.3, -1.2, 2.5, 0.0])
    got = gradient_moments(pi / pi.sum(), [True, False, False, True], 7, estimator)
    mean, variance, _ = GOLDEN[estimator]
    signal = mean**2 * (got.true_gradient**2).sum() / got.true_gradient[0] ** 2
    np.testing.assert_allclose(got.cosine, np.sqrt(signal / (signal + variance)), rtol=1e-12)


def test_cosine_ignores_the_scale_of_the_advantages():
    probs, correct = PROMPTS[2]
    cosines = [float(gradient_moments(probs, correct, 6, name).cosine) for name in ("rloo", "dr_grpo")]
    assert 0 < cosines[0] < 1
    np.testing.assert_allclose(cosines[0], cosines[1], rtol=1e-13)


@fuzzing.fuzz
@given(FRACTIONS, st.integers(1, 40), st.sampled_from(ESTIMATORS), st.integers(2, 6), st.randoms(use_true_random=False))
def test_invariants(p, n, estimator, num_answers, random):
    """The covariance is symmetric and has no negative eigenvalue; g sums to zero; the order of answers is free."""
    shares = np.array([random.random() + 1e-3 for _ in range(num_answers)])
    correct = np.arange(num_answers) < random.randint(1, num_answers - 1)
    probs = np.where(correct, p * shares / shares[correct].sum(), (1 - p) * shares / shares[~correct].sum())
    got = gradient_moments(probs, correct, n, estimator)
    scale = got.variance + 1e-300
    np.testing.assert_allclose(got.covariance.sum(axis=1), 0, atol=1e-12 * scale)
    assert np.linalg.eigvalsh(got.covariance)[0] >= -1e-12 * scale
    assert abs(got.mean.sum()) <= 1e-12 * (np.abs(got.mean).max() + 1e-300)
    assert got.weight >= 0
    assert 0 <= got.cosine <= 1
    np.testing.assert_allclose(np.trace(got.covariance), got.variance, rtol=1e-9, atol=1e-18)
    turned = gradient_moments(probs[::-1], correct[::-1], n, estimator)
    np.testing.assert_allclose(turned.mse, got.mse, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.6], [True, False], 4), "probs: expected a sum of 1 over the last axis, got 1.1"),
        (([1.5, -0.5], [True, False], 4), "probs: expected finite values"),
        (([0.5, np.nan], [True, False], 4), "probs: expected finite values"),
        ((0.5, True, 4), r"probs: expected shape \[..., K\]"),
        ((np.zeros((2, 0)), np.zeros((2, 0), bool), 4), r"probs: expected shape \[..., K\]"),
        (([[0.5], [0.5, 0.5]], [True, False], 4), "probs: expected an array, got list"),
        (([True, False], [True, False], 4), "probs: expected numbers, got dtype bool"),
        (([0.5, 0.5], [1, 0], 4), "correct: expected booleans, got dtype int64"),
        (([0.5, 0.5], [[True], [True, False]], 4), "correct: expected an array, got list"),
        (([0.5, 0.5], [True], 4), r"correct: expected the shape of probs \(2,\), got \(1,\)"),
        (([0.5, 0.5], [True, False], 0), "n: expected integers >= 1"),
        (([0.5, 0.5], [True, False], 4.0), "n: expected integers, got dtype float64"),
        (([0.5, 0.5], [True, False], True), "n: expected integers, got dtype bool"),
        (([[0.5, 0.5]] * 2, [[True, False]] * 2, [4, 4, 4]), r"expected shapes that broadcast, got p \(2,\)"),
        (([0.5, 0.5], [True, False], 4, "ppo"), "estimator: expected one of reinforce, rloo, dr_grpo"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradient_moments(*arguments)


def test_bad_scalars_are_named():
    with pytest.raises(ValueError, match=r"p: expected finite values in \[0.0, 1.0\], got 1.5"):
        moments.group_coefficients([0.5, 1.5], 4)
    with pytest.raises(ValueError, match="num_correct: expected at most num_rollouts, got 5 > 4"):
        moments.group_advantages([2, 5], 4, "grpo")
    with pytest.raises(ValueError, match="n_max: expected an integer >= 1, got 0"):
        moments.expected_progress([0.5, 0.5], [True, False], 0)
    with pytest.raises(ValueError, match="baseline: expected finite values"):
        moments.single_rollout_variance([0.5, 0.5], [True, False], np.inf)
    with pytest.raises(ValueError, match=r"p, baseline: expected shapes that broadcast, got p \(2,\), baseline \(3,\)"):
        moments.single_rollout_variance([[0.5, 0.5]] * 2, [[True, False]] * 2, [0.1, 0.2, 0.3])


sizes = st.integers(0, 60) | hnp.arrays(np.int64, st.sampled_from([(), (1,), (2,)]), elements=st.integers(0, 12))


@fuzzing.fuzz
@given(sizes, sizes, names)
def test_fuzz_group_advantages(num_correct, num_rollouts, estimator):
    fuzzing.call(moments.group_advantages, num_correct, num_rollouts, estimator)


@fuzzing.fuzz
@given(p_arrays, sizes, names)
def test_fuzz_group_coefficients(p, n, estimator):
    got = fuzzing.call(moments.group_coefficients, p, n, estimator)
    if got is not None:
        assert all(np.all(field >= 0) for field in got)


@fuzzing.fuzz
@given(p_arrays, sizes, names)
def test_fuzz_implied_weight(p, n, estimator):
    fuzzing.call(moments.implied_weight, p, n, estimator)


@fuzzing.fuzz
@given(prompts(), sizes, names)
def test_fuzz_gradient_moments(prompt, n, estimator):
    check_moments(fuzzing.call(gradient_moments, *prompt, n, estimator))


@fuzzing.fuzz
@given(prompts(), st.integers(0, 12), names)
def test_fuzz_expected_progress(prompt, n_max, estimator):
    got = fuzzing.call(moments.expected_progress, *prompt, n_max, estimator)
    assert got is None or np.all(got >= 0)


@fuzzing.fuzz
@given(prompts(), st.none() | p_arrays)
def test_fuzz_single_rollout_variance(prompt, baseline):
    got = fuzzing.call(moments.single_rollout_variance, *prompt, baseline)
    assert got is None or np.all(got >= 0)


def test_a_policy_that_does_not_sum_to_one_is_refused_and_rounding_is_divided_out() -> None:
    for total in (0.9, 1 - 2e-6, 1 + 2e-6, 1.1):
        with pytest.raises(ValueError, match="probs: expected a sum of 1"):
            moments.gradient_moments(np.array([0.5, 0.5]) * total, [True, False], 4)
    for total in (1 - 9e-7, 1 + 9e-7):
        policy = moments.gradient_moments(np.array([0.3, 0.7]) * total, [True, False], 4).policy
        np.testing.assert_allclose([policy.p, policy.q], [0.3, 0.7], rtol=1e-14)
