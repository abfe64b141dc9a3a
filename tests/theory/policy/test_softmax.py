"""theory.policy.softmax: golden values from mpmath, derivatives three ways, extremes, both backends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tests.theory import fuzzing
from theory.policy import softmax
from theory.policy.softmax import TokenStatistics, token_statistics

# mpmath, 50 digits, for z = (0.3, -1.2, 2.5, 0.0) and a = 0:
#   pi = [exp(x) for x in z]; S = fsum(pi); pi = [x/S for x in pi]; H = -fsum(p*log(p) for p in pi)
#   print(log(pi[0]), H, fsum(p*p for p in pi), fsum(p*p*(log(p)+H) for p in pi))
GOLDEN_LOGITS = np.array([0.3, -1.2, 2.5, 0.0])
GOLDEN = TokenStatistics(-2.3968913035593499, 0.64075735727762754, 0.68773878613866925, 0.27415818924170478)


def statistics(backend, logits, actions):
    return token_statistics(backend(logits), backend(np.asarray(actions)))


def test_golden_values(backend):
    stats = statistics(backend, GOLDEN_LOGITS, 0)
    for got, expected in zip(stats, GOLDEN, strict=True):
        np.testing.assert_allclose(backend.numpy(got), expected, rtol=backend.rtol)


def test_statistics_by_enumeration(backend, rng):
    logits = rng.normal(size=(7, 5)) * 2
    pi = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    centred = np.log(pi) - (pi * np.log(pi)).sum(-1, keepdims=True)
    actions = rng.integers(5, size=7)
    stats = statistics(backend, logits, actions)
    rows = np.arange(7)
    tolerance = {"rtol": backend.rtol, "atol": backend.rtol}
    np.testing.assert_allclose(backend.numpy(stats.mean_pi_lambda), (pi**2 * centred).sum(-1), **tolerance)
    np.testing.assert_allclose(backend.numpy(softmax.pi_lambda(stats)), (pi * centred)[rows, actions], **tolerance)
    score = np.eye(5)[actions] - pi
    np.testing.assert_allclose(backend.numpy(softmax.score_norm_squared(stats)), (score**2).sum(-1), **tolerance)
    scores = np.eye(5)[None] - pi[:, None]
    expected = (pi * (scores**2).sum(-1)).sum(-1)
    np.testing.assert_allclose(backend.numpy(softmax.expected_score_norm_squared(stats)), expected, **tolerance)
    np.testing.assert_allclose(backend.numpy(softmax.centred_log_prob(backend(logits))), centred, **tolerance)


def test_bound_is_tight_for_uniform_on_a_subset_and_only_there(backend):
    stats = statistics(backend, np.array([[0.0, 0.0, 0.0, -80.0], [2.0, 0.0, 0.0, -80.0]]), np.array([0, 0]))
    gap = backend.numpy(softmax.score_norm_bound(stats)) - backend.numpy(softmax.expected_score_norm_squared(stats))
    assert abs(gap[0]) < 1e-6
    assert gap[1] > 0.05


def test_entropy_gradient_three_ways():
    """dH/dz = -pi Lambda: closed form, central differences and autograd, in float64."""
    logits = torch.tensor(GOLDEN_LOGITS, requires_grad=True)
    entropy = token_statistics(logits, torch.tensor(0)).entropy
    (autograd,) = torch.autograd.grad(entropy, logits)
    closed = -np.exp(softmax.log_softmax(GOLDEN_LOGITS)) * softmax.centred_log_prob(GOLDEN_LOGITS)
    step = 1e-6
    central = [
        (token_statistics(GOLDEN_LOGITS + step * e, np.array(0)).entropy
         - token_statistics(GOLDEN_LOGITS - step * e, np.array(0)).entropy) / (2 * step)
        for e in np.eye(4)
    ]  # fmt: skip
    np.testing.assert_allclose(closed, autograd.numpy(), rtol=1e-12)
    np.testing.assert_allclose(closed, central, rtol=1e-8)


def test_score_is_the_gradient_of_log_prob():
    logits = torch.tensor(GOLDEN_LOGITS, requires_grad=True)
    (score,) = torch.autograd.grad(token_statistics(logits, torch.tensor(2)).log_prob, logits)
    expected = softmax.score_norm_squared(token_statistics(GOLDEN_LOGITS, np.array(2)))
    np.testing.assert_allclose(float((score**2).sum()), expected, rtol=1e-12)


def test_norms_that_rounding_took_below_zero_are_zero(backend):
    """A certain token whose collision probability is one unit in the last place off."""
    unit = float(np.finfo(backend.dtype).eps)
    norms = (softmax.score_norm_squared, -unit), (softmax.expected_score_norm_squared, unit)
    for norm, error in norms:
        stats = TokenStatistics(*(backend(np.array([x])) for x in (0.0, 0.0, 1.0 + error, 0.0)))
        assert backend.numpy(norm(stats)).tolist() == [0.0]


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extreme_logits_are_stable(backend, scale):
    stats = statistics(backend, np.array([[scale, -scale, 0.0], [0.0, 0.0, -scale]]), np.array([1, 0]))
    for field in stats:
        assert np.isfinite(backend.numpy(field)).all()
    np.testing.assert_allclose(backend.numpy(stats.entropy), [0.0, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(backend.numpy(stats.log_prob), [-2 * scale, -np.log(2)], rtol=1e-6)


def test_gradients_are_finite_where_probabilities_underflow():
    logits = torch.tensor([1e4, -1e4, 0.0], dtype=torch.float64, requires_grad=True)
    for value in token_statistics(logits, torch.tensor(1)):
        (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert torch.isfinite(gradient).all()


def test_one_token_and_no_tokens(backend):
    single = statistics(backend, np.array([[3.0]]), np.array([0]))
    assert [float(backend.numpy(x)[0]) for x in single] == [0.0, 0.0, 1.0, 0.0]
    empty = statistics(backend, np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    assert all(backend.numpy(x).shape == (0,) for x in empty)


def test_translation_invariance(backend, rng):
    logits = rng.normal(size=(3, 6))
    shifted = statistics(backend, logits + 5.0, np.array([0, 1, 2]))
    for got, expected in zip(shifted, statistics(backend, logits, np.array([0, 1, 2])), strict=True):
        np.testing.assert_allclose(backend.numpy(got), backend.numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("logits", "actions", "message"),
    [
        (np.array([0.0, np.nan]), np.array(0), "logits: expected finite"),
        (np.array([0.0, np.inf]), np.array(0), "logits: expected finite"),
        (np.array([0, 1]), np.array(0), "logits: expected a floating dtype"),
        (np.zeros((2, 0)), np.array([0, 0]), r"logits: expected shape \[..., V\]"),
        (np.zeros((2, 3)), np.array([0]), r"actions: expected shape \(2,\)"),
        (np.zeros((2, 3)), np.array([0, 3]), r"actions: expected ids in \[0, 3\)"),
        (np.zeros((2, 3)), np.array([0, -1]), r"actions: expected ids in \[0, 3\)"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), "actions: expected an integer dtype"),
        ([0.0, 1.0], np.array(0), "logits: expected an array, got list"),
        (torch.zeros(2), np.array(0), "expected one array library"),
    ],
)
def test_bad_input_is_named(logits, actions, message):
    with pytest.raises(ValueError, match=message):
        token_statistics(logits, actions)


shapes = st.tuples(st.integers(0, 3), st.integers(0, 5))
logit_arrays = fuzzing.float_arrays(shapes, fuzzing.any_float | fuzzing.finite_float)
action_arrays = hnp.arrays(np.int64, st.integers(0, 3), elements=st.integers(-1, 5))
statistic_arrays = fuzzing.float_arrays(st.integers(0, 3), st.floats(-1e3, 1e3) | fuzzing.any_float)
statistic_tuples = st.builds(TokenStatistics, statistic_arrays, statistic_arrays, statistic_arrays, statistic_arrays)


@fuzzing.fuzz
@given(logit_arrays)
def test_fuzz_log_softmax(logits):
    fuzzing.call(softmax.log_softmax, logits)


@fuzzing.fuzz
@given(logit_arrays)
def test_fuzz_centred_log_prob(logits):
    fuzzing.call(softmax.centred_log_prob, logits)


@fuzzing.fuzz
@given(logit_arrays, action_arrays)
def test_fuzz_token_statistics(logits, actions):
    stats = fuzzing.call(token_statistics, logits, actions)
    if stats is not None:
        num_tokens = logits.shape[-1]
        assert np.all((stats.entropy >= -1e-12) & (stats.entropy <= np.log(num_tokens) + 1e-9))
        assert np.all((stats.collision >= 1 / num_tokens - 1e-9) & (stats.collision <= 1 + 1e-9))
        bound = softmax.score_norm_bound(stats)
        assert np.all(softmax.expected_score_norm_squared(stats) <= bound + 1e-9)


@fuzzing.fuzz
@given(statistic_tuples)
def test_fuzz_require_statistics(stats):
    fuzzing.call(softmax.require_statistics, stats)


@fuzzing.fuzz
@given(statistic_tuples)
def test_fuzz_pi_lambda(stats):
    fuzzing.call(softmax.pi_lambda, stats)


@fuzzing.fuzz
@given(statistic_tuples)
def test_fuzz_score_norm_squared(stats):
    fuzzing.call(softmax.score_norm_squared, stats)


@fuzzing.fuzz
@given(statistic_tuples)
def test_fuzz_expected_score_norm_squared(stats):
    fuzzing.call(softmax.expected_score_norm_squared, stats)


@fuzzing.fuzz
@given(statistic_tuples)
def test_fuzz_score_norm_bound(stats):
    fuzzing.call(softmax.score_norm_bound, stats)
