"""Moments of a batch's gradient estimator, measured against the gradient that it estimates.

The estimator is the gradient that one optimiser step on the whole rollout batch would use: on-policy, without the limit
on its norm, given the batch's prompts and the history. It should estimate the gradient of J = (1/Q) sum_i p_i over the
batch's Q prompts. Two ways:

- `batch_moments` is exact, where `theory.estimators` applies: one token per rollout, group advantages without shaping,
  a plain clipped loss, and a rule that fixes the counts n_i before it sees an outcome. The batch's estimator is then
  g = sum_i omega_i g_i with independent group gradients g_i of mean w(p_i, n_i) grad p_i, and omega_i = n_i / sum n
  (token-mean and sequence-mean) or 1/Q (prompt-mean). The 1e-6 that `grpo` adds to a standard deviation is neglected.
- `resampled_moments` draws the batch again several times and takes the real gradient each time, for all else.

All sums are made seed by seed: no number depends, not even in its last bit, on which other seeds run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from theory.allocation import get_allocator, spends_in_rounds
from theory.base import require
from theory.base.arrays import BoolArray, FloatArray, IntArray
from theory.estimators import gradient_moments, implied_weight
from theory.losses import AGGREGATIONS
from theory.methods import Method


class BatchMoments(NamedTuple):
    """Moments of a batch's gradient estimator g against grad J; scalars for one batch, [S] for those of all seeds.

    Attributes
    ----------
    variance : Trace of Cov[g].
    bias_squared : |E g - grad J|^2; without bias from the resampling, hence possibly below 0 by its noise.
    mse : E|g - grad J|^2 = variance + bias_squared.
    cosine : <E g, grad J> / (|grad J| sqrt(E|g|^2)), which noise lowers; 0 where the gradient or the estimator is 0.
    alignment : <E g, grad J> / (|grad J| |E g|), which only a biased direction lowers; 0 likewise. From resamples it
        contains the noise of their mean.
    """

    variance: FloatArray
    bias_squared: FloatArray
    mse: FloatArray
    cosine: FloatArray
    alignment: FloatArray


def exact_estimator(method: Method) -> str | None:
    """Return the name in `theory.estimators` of a method's estimator; None if its moments need resampling."""
    plain = not (method.needs_statistics or method.singles_out or method.entropy_bonus)
    if not plain or not isinstance(method.advantage, str) or spends_in_rounds(get_allocator(method.allocator)):
        return None
    return estimator_name(method.advantage)


def estimator_name(advantage: str) -> str:
    """Return the name in `theory.estimators.ESTIMATORS` of a method's advantage."""
    return {"grpo": "grpo_sample"}.get(advantage, advantage)


def prompt_weights(counts: IntArray, aggregation: str) -> FloatArray:
    """Return omega [Q], the weight that the aggregation gives a prompt's mean gradient; one token per rollout."""
    require.one_of("aggregation", aggregation, AGGREGATIONS)
    counts = require.integers("counts", counts)
    mass = (counts > 0).astype(np.float64) if aggregation == "prompt-mean" else counts.astype(np.float64)
    if not mass.any():
        raise ValueError("counts: expected at least one rollout, got none")
    return np.asarray(mass / mass.sum())


def implied_weights(p: FloatArray, counts: IntArray, aggregation: str, estimator: str) -> FloatArray:
    """Return Q omega_i w(p_i, n_i) [Q]: how many times its due each prompt's gradient counts; all 1 is unbiased."""
    omega = prompt_weights(counts, aggregation)
    return np.asarray(len(omega) * omega * implied_weight(p, np.maximum(counts, 1), estimator))


def batch_moments(
    probs: FloatArray, correct: BoolArray, counts: IntArray, aggregation: str, estimator: str
) -> BatchMoments:
    """Exact moments of one batch of bandit prompts, whose rows of the table no other prompt shares.

    E g = sum omega_i w_i grad p_i, Cov g = sum omega_i^2 Cov g_i, in orthogonal subspaces.

    Parameters
    ----------
    probs, correct : Policy and correct answers of the batch's prompts, [Q, K].
    counts : Rollouts of each prompt, integers, [Q]; a prompt without any has no part in g, but one in J.
    aggregation : One of `theory.losses.AGGREGATIONS`.
    estimator : One of `theory.estimators.ESTIMATORS`.

    Examples
    --------
    >>> probs, correct = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[True, False]] * 2)
    >>> values = batch_moments(probs, correct, np.array([8, 8]), "prompt-mean", "rloo")
    >>> [round(float(x), 5) for x in values]
    [0.00486, 0.0, 0.00486, 0.93753, 1.0]
    """
    omega = prompt_weights(counts, aggregation)
    groups = gradient_moments(probs, correct, np.maximum(counts, 1), estimator)
    require.same_shape(correct=groups.policy.p, counts=omega)
    share = 1.0 / len(omega)
    squared = np.square(groups.true_gradient).sum(-1)
    weight = omega * groups.weight
    return _moments(
        variance=(np.square(omega) * groups.variance).sum(),
        bias_squared=(np.square(weight - share) * squared).sum(),
        product=(weight * share * squared).sum(),
        signal=(np.square(weight) * squared).sum(),
        truth=(np.square(share) * squared).sum(),
    )


def resampled_moments(gradients: Callable[[], FloatArray], truth: FloatArray, num_resamples: int) -> BatchMoments:
    """Moments of the batches of all seeds, estimated from gradients of independently resampled batches.

    Parameters
    ----------
    gradients : Draws the batch of every seed again and returns their gradients, [S, ...].
    truth : grad J of every seed, of the same shape.
    num_resamples : Number of calls, >= 2.
    """
    require.count("num_resamples", num_resamples, 2)
    total, squares = np.zeros_like(truth), np.zeros(len(truth))
    for _ in range(num_resamples):
        error = gradients()
        require.same_shape(truth=truth, gradients=error)
        error = error - truth
        total += error
        squares += inner_products(error, error)
    bias = total / num_resamples
    mse = squares / num_resamples
    variance = np.maximum(squares - num_resamples * inner_products(bias, bias), 0.0) / (num_resamples - 1)
    mean = bias + truth
    return _moments(
        variance=variance,
        bias_squared=mse - variance,
        product=inner_products(mean, truth),
        signal=inner_products(mean, mean),
        truth=inner_products(truth, truth),
        second_moment=mse + 2 * inner_products(bias, truth) + inner_products(truth, truth),
    )


def true_gradient(probs: FloatArray, correct: BoolArray) -> FloatArray:
    """Gradient of (1/Q) sum_i p_i in the logits of every token, before tokens that share a row are added up.

    p_i = prod_t c_t, where c_t is the policy's mass on the correct tokens; dp_i/dz_t = p_i (pi given correct - pi).
    `probs` and `correct` have the policy, and the tokens that keep the rollout correct, at every token, [S, Q, T, K].

    Examples
    --------
    >>> true_gradient(np.array([[[[0.5, 0.5]]]]), np.array([[[[True, False]]]])).tolist()
    [[[[0.25, -0.25]]]]
    """
    right = np.where(correct, probs, 0.0)
    mass = right.sum(-1, keepdims=True)
    p = mass.prod(-2, keepdims=True)
    given_correct = right / np.where(mass > 0, mass, 1.0)
    return np.asarray(p * (given_correct - probs) / probs.shape[1])


def inner_products(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the inner products of two arrays [S, ...], seed by seed, [S]."""
    return np.asarray((a * b).reshape(len(a), -1).sum(-1))


def _moments(
    variance: FloatArray,
    bias_squared: FloatArray,
    product: FloatArray,
    signal: FloatArray,
    truth: FloatArray,
    second_moment: FloatArray | None = None,
) -> BatchMoments:
    """Return the moments; product is <E g, grad J>, signal |E g|^2, truth |grad J|^2."""
    second_moment = signal + variance if second_moment is None else second_moment
    return BatchMoments(
        np.asarray(variance),
        np.asarray(bias_squared),
        np.asarray(variance + bias_squared),
        _cosine(product, truth, second_moment),
        _cosine(product, truth, signal),
    )


def _cosine(product: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    scale = np.sqrt(a) * np.sqrt(b)
    return np.asarray(np.clip(np.where(scale > 0, product / np.where(scale > 0, scale, 1.0), 0.0), -1.0, 1.0))
