"""What the tests of moments and of stopping rules share: groups by enumeration, and prompts drawn by hypothesis."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.theory import fuzzing
from theory.estimators import ESTIMATORS

PROMPTS = [
    ([0.6, 0.4], [True, False]),
    ([0.2, 0.1, 0.7], [True, True, False]),
    ([0.15, 0.05, 0.5, 0.3], [False, True, False, True]),
    ([0.3, 0.3, 0.4, 0.0], [True, True, True, False]),
    ([1.0], [False]),
]
FRACTIONS = st.floats(0.0, 1.0)


def raw_advantages(rewards, estimator):
    """Advantages from the rewards themselves, [..., n]; the conventions of the module for constant groups."""
    n = rewards.shape[-1]
    if estimator == "reinforce":
        return rewards.astype(float)
    constant = np.ptp(rewards, axis=-1, keepdims=True) == 0
    if n == 1:
        return np.zeros(rewards.shape)
    mean = rewards.mean(axis=-1, keepdims=True)
    others = (rewards.sum(axis=-1, keepdims=True) - rewards) / (n - 1)
    one = np.ones_like(mean)
    baseline = others if estimator == "rloo" else mean
    divisor = {
        "rloo": one,
        "dr_grpo": one,
        "grpo": rewards.std(axis=-1, keepdims=True),
        "grpo_sample": rewards.std(axis=-1, keepdims=True, ddof=1),
        "maxrl": mean,
    }[estimator]
    return np.where(constant, 0.0, (rewards - baseline) / np.where(constant, 1.0, divisor))


def enumerated(probs, correct, estimator, max_rollouts, stops=lambda rewards: False):
    """Mean, covariance and MSE over every sequence of answers, each cut where `stops` says so."""
    probs, correct = np.array(probs), np.array(correct)
    true_gradient = probs * (correct - probs[correct].sum())
    mean, second, error = np.zeros(probs.size), np.zeros((probs.size, probs.size)), 0.0
    for answers in product(range(probs.size), repeat=max_rollouts):
        probability = np.prod(probs[list(answers)])
        length = next((m for m in range(1, max_rollouts) if stops(correct[list(answers[:m])])), max_rollouts)
        kept = list(answers[:length])
        g = raw_advantages(correct[kept] * 1.0, estimator) @ (np.eye(probs.size)[kept] - probs) / length
        mean += probability * g
        second += probability * np.outer(g, g)
        error += probability * ((g - true_gradient) ** 2).sum()
    return mean, second - np.outer(mean, mean), error


def assert_moments(got, expected, **tolerance):
    mean, covariance, mse = expected
    tolerance = tolerance or {"rtol": 1e-11, "atol": 1e-15}
    np.testing.assert_allclose(got.mean, mean, **tolerance)
    np.testing.assert_allclose(got.covariance, covariance, **tolerance)
    np.testing.assert_allclose(got.variance, np.trace(covariance), **tolerance)
    np.testing.assert_allclose(got.mse, mse, **tolerance)
    np.testing.assert_allclose(got.signal, mean @ mean, **tolerance)
    np.testing.assert_allclose(got.progress, mean @ got.true_gradient, **tolerance)


shapes = st.sampled_from([(), (), (2,), (2,), (3, 2), (3, 1), (0,)])
unit_arrays = fuzzing.float_arrays(shapes, FRACTIONS)
p_arrays = unit_arrays | unit_arrays | fuzzing.float_arrays(shapes, FRACTIONS | fuzzing.any_float)
names = st.sampled_from([*ESTIMATORS, *ESTIMATORS, "ppo"])


@st.composite
def prompts(draw):
    """Draw probs [..., K] and a mask: mostly distributions, with zeros and tiny values, sometimes neither."""
    shape = (*draw(shapes), draw(st.sampled_from([1, 2, 3, 4, 0])))
    correct = draw(hnp.arrays(np.bool_, shape))
    if draw(st.integers(0, 9)) == 9:
        return draw(fuzzing.float_arrays(shape, fuzzing.any_float)), correct
    shares = draw(fuzzing.float_arrays(shape, st.sampled_from([0.0, 1e-300, 1e-12]) | FRACTIONS))
    shares[..., :1] += shares.sum(axis=-1, keepdims=True) == 0
    return shares / shares.sum(axis=-1, keepdims=True), correct


def check_moments(got):
    if got is not None:
        for name in ("mean", "true_gradient", "covariance", "variance", "mse", "signal", "progress", "cosine"):
            assert np.all(np.isfinite(getattr(got, name))), name
        assert np.all(got.variance >= 0)
        assert np.all(got.mse >= 0)
