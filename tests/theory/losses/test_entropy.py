"""theory.losses.entropy: the bonus's gradient three ways, shaped advantages by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from tests.theory.losses.tokens import EVERY, X, bits, masks, stacks
from theory import losses
from theory.estimators import grpo
from theory.losses import EntropyAdvantages, EntropyBonus
from theory.policy import TokenStatistics, centred_log_prob, log_softmax, token_statistics


def test_entropy_bonus_gradient_three_ways():
    """d(-c H)/dz = c pi Lambda: the bonus descends towards higher entropy."""
    logits, coefficient = np.array([[0.3, -1.2, 2.5, 0.0]]), 0.01
    action, mask = np.array([1]), np.array([True])

    def bonus(z):
        return losses.entropy_bonus(token_statistics(z, action).entropy, mask, coefficient)[0]

    z = torch.tensor(logits, requires_grad=True)
    entropy = token_statistics(z, torch.tensor(action)).entropy
    (autograd,) = torch.autograd.grad(losses.entropy_bonus(entropy, torch.tensor(mask), coefficient).sum(), z)
    closed = coefficient * np.exp(log_softmax(logits)) * centred_log_prob(logits)
    step = 1e-5
    central = [(bonus(logits + step * e) - bonus(logits - step * e)) / (2 * step) for e in np.eye(4)]
    np.testing.assert_allclose(autograd, closed, rtol=1e-12)
    np.testing.assert_allclose(closed[0], central, rtol=1e-7)


def test_entropy_bonus_leaves_padding_out(backend):
    got = losses.entropy_bonus(backend(np.array([2.0, 1.0])), backend(np.array([True, False])), 0.5)
    assert backend.numpy(got).tolist() == [-1.0, 0.0]


def test_entropy_advantages_of_one_correct_among_sixteen(backend):
    """With the sample standard deviation A is 3.75 and -0.25: the caps are 1.875 and 0.125."""
    advantages = grpo(backend(np.eye(16)[0]), backend(np.zeros(16, dtype=np.int64)), epsilon=0.0)
    np.testing.assert_allclose(backend.numpy(advantages)[:2], [3.75, -0.25], rtol=backend.rtol)
    capped = losses.entropy_advantages(advantages, backend(np.full(16, 9.0)))
    np.testing.assert_allclose(backend.numpy(capped)[:2], [3.75 + 1.875, -0.25 + 0.125], rtol=10 * backend.rtol)
    free = losses.entropy_advantages(advantages, backend(np.full(16, 0.1)))
    np.testing.assert_allclose(backend.numpy(free)[:2], [3.79, -0.21], rtol=10 * backend.rtol)


def test_entropy_rounded_below_zero_counts_as_zero(backend):
    got = losses.entropy_advantages(backend(np.array([1.0, -1.0])), backend(np.array([-1e-4, 0.0])))
    assert backend.numpy(got).tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.entropy_bonus(X, EVERY), "entropy: expected values >= 0"),
        (lambda: losses.entropy_bonus(-X, X), "mask: expected a boolean dtype"),
        (lambda: losses.entropy_bonus(-X, EVERY, -0.1), "coefficient: expected"),
        (lambda: losses.entropy_advantages(X, -X[:2]), "entropy: expected the shape of advantages"),
        (lambda: losses.entropy_advantages(X, -X, kappa=1.0), r"kappa: expected .* \(1.0"),
        (lambda: losses.entropy_advantages(X, -X, alpha=-0.1), "alpha: expected"),
        (lambda: EntropyBonus(-1e-3), "coefficient: expected"),
        (lambda: EntropyAdvantages(kappa=1.0), "kappa: expected"),
        (lambda: EntropyAdvantages(alpha=-0.4), "alpha: expected"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@fuzzing.fuzz
@given(
    fuzzing.float_arrays((2, 3), st.floats(-1e3, 1e3) | fuzzing.any_float),
    st.floats(0, 10) | fuzzing.any_float,
    st.floats(1, 100) | fuzzing.any_float,
)
def test_fuzz_entropy_advantages(x, alpha, kappa):
    advantages, entropy = x[0], np.abs(x[1])
    shaped = fuzzing.call(losses.entropy_advantages, advantages, entropy, alpha, kappa)
    if shaped is not None:
        assert np.all(shaped >= advantages)
        assert np.all(shaped * advantages >= 0)
        assert not shaped[advantages == 0].any()


@fuzzing.fuzz
@given(fuzzing.float_arrays((2, 3), st.floats(-1e3, 1e3) | fuzzing.any_float), st.floats(0, 10), st.floats(1.01, 100))
def test_fuzz_EntropyAdvantages_shape(x, alpha, kappa):
    stats = TokenStatistics(x[0], np.abs(x[1]), x[0], x[0])
    shaped = fuzzing.call(losses.EntropyAdvantages(alpha, kappa).shape, x[0], stats)
    if shaped is not None:
        expected = losses.entropy_advantages(x[0], np.abs(x[1]), alpha, kappa)
        np.testing.assert_array_equal(shaped, expected)


@fuzzing.fuzz
@given(stacks, bits, st.floats(0, 10) | fuzzing.any_float)
def test_fuzz_entropy_bonus(stack, bit, coefficient):
    mask, _ = masks(stack, bit)
    bonus = fuzzing.call(losses.entropy_bonus, np.abs(stack[3]), mask, coefficient)
    if bonus is not None:
        assert np.all(bonus <= 0)
