"""Tokens for the tests of losses: a ragged batch off-policy, and arrays of ordinary, extreme and forbidden numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.theory import fuzzing
from theory.losses import ClipCov, ClippedSurrogate, KlCov

LOSSES = [
    ClippedSurrogate(),
    ClippedSurrogate(clip_low=0.2, clip_high=0.28, dual_clip=1.5),
    ClipCov(ratio=0.3, covariance_low=0.1, covariance_high=3.0, clip_low=0.3, clip_high=0.3),
    KlCov(ratio=0.3, coefficient=0.7),
]


def batch(rng, rows=6, length=5):
    """Log-probabilities off-policy enough to clip some tokens, GRPO-like advantages, a ragged mask, uniforms."""
    mask = np.arange(length) < rng.integers(1, length + 1, size=rows)[:, None]
    old = rng.uniform(-4.0, -0.8, size=mask.shape)
    log_prob = old + rng.normal(size=mask.shape) * 0.3
    advantages = np.repeat(rng.normal(size=(rows, 1)), length, axis=1)
    return log_prob, old, advantages, mask, rng.random(mask.shape)


def same(one, other):
    for got, expected in zip(one, other, strict=True):
        assert np.array_equal(got, expected)


X, EVERY = np.full(3, -1.0), np.ones(3, dtype=bool)
# The arrays of a call are drawn by a seed from a pool of ordinary, extreme and forbidden numbers: drawn one by one,
# these thousands of numbers would take most of the time.
POOL = np.array([0.0, -0.5, -1.0, -2.5, -8.0, -30.0, -1e3, 0.01, 0.7, 1.0, 5e-324, -1e150, 1e18, 1e308, np.nan, np.inf])


def stack_of(shape, seed, num_kinds):
    """Return log pi, log pi_old, A and entropies (or uniforms) from the first kinds of the pool."""
    rng = np.random.default_rng(seed)
    stack = rng.choice(POOL[:num_kinds], size=(4, *shape))
    stack[2] *= rng.choice([-1.0, 1.0], size=shape)
    return stack


seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(0, 2), st.integers(0, 3))
stacks = st.builds(stack_of, shapes, seeds, st.integers(1, len(POOL)))
bits = st.builds(lambda seed: np.random.default_rng(seed).random((2, 2, 3)) < 0.6, seeds)
clips = st.floats(0, 1) | fuzzing.any_float


def masks(stack, bit):
    return bit[:, : stack.shape[1], : stack.shape[2]]
