"""How good a step's gradient estimator is, measured against the gradient that it estimates.

The estimator is the gradient that one optimiser step on the whole rollout batch would use: on-policy, without the limit
on its norm, given the batch's prompts and the history. It should estimate the gradient of J = (1/Q) sum_i p_i over the
batch's Q prompts. Two ways:

- `batch_moments` is exact, where `theory.estimators.moments` applies: one token per rollout, group advantages without
  shaping, a
  plain clipped loss, and a rule that fixes the counts n_i before it sees an outcome. The batch's estimator is then
  g = sum_i omega_i g_i with independent group gradients g_i of mean w(p_i, n_i) grad p_i, and omega_i = n_i / sum n
  (token-mean and sequence-mean) or 1/Q (prompt-mean). The 1e-6 that `grpo` adds to a standard deviation is neglected.
- `resampled_moments` draws the batch again `NUM_RESAMPLES` times and takes the real gradient each time, for all else.

All sums are made seed by seed: no number depends, not even in its last bit, on which seeds run beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from theory import allocation
from theory.allocation.rules import get_allocator
from theory.base import require
from theory.base.arrays import BoolArray, FloatArray, IntArray
from theory.estimators import moments
from theory.losses.aggregation import AGGREGATIONS
from theory.losses.surrogate import ClippedSurrogate
from theory.methods import Method
from toy.training import metrics

NUM_RESAMPLES = 64
"""Batches drawn again where no exact formula applies. The variance has a relative standard error of sqrt(2/63) = 18 %
if one direction holds all of it, and less if many share it."""


class BatchMoments(NamedTuple):
    """Moments of a batch's gradient estimator g against grad J; scalars for one batch, [S] for those of all seeds.

    Attributes
    ----------
    variance
        Trace of Cov[g].
    bias_squared
        |E g - grad J|^2; without bias from the resampling, hence possibly below 0 by its noise.
    mse
        E|g - grad J|^2 = variance + bias_squared.
    cosine
        <E g, grad J> / (|grad J| sqrt(E|g|^2)), which noise lowers; 0 where the gradient or the estimator is 0.
    alignment
        <E g, grad J> / (|grad J| |E g|), which only a biased direction lowers; 0 likewise. From resamples it contains
        the noise of their mean.
    """

    variance: FloatArray
    bias_squared: FloatArray
    mse: FloatArray
    cosine: FloatArray
    alignment: FloatArray


def exact_estimator(method: Method) -> str | None:
    """Return the name in `moments` of a method's estimator; None if only resampling can tell its moments."""
    plain = type(method.loss) is ClippedSurrogate and not (
        method.shaping or method.entropy_bonus or method.token_selection
    )
    if not plain or not isinstance(method.advantage, str) or get_allocator(method.allocator).in_rounds:
        return None
    return {"grpo": "grpo_sample"}.get(method.advantage, method.advantage)


def prompt_weights(counts: IntArray, aggregation: str) -> FloatArray:
    """Return omega [Q], what the aggregation makes a prompt's mean gradient weigh; one token per rollout."""
    require.one_of("aggregation", aggregation, AGGREGATIONS)
    counts = require.integers("counts", counts)
    mass = (counts > 0).astype(np.float64) if aggregation == "prompt-mean" else counts.astype(np.float64)
    if not mass.any():
        raise ValueError("counts: expected at least one rollout, got none")
    return np.asarray(mass / mass.sum())


def implied_weights(p: FloatArray, counts: IntArray, aggregation: str, estimator: str) -> FloatArray:
    """Return Q omega_i w(p_i, n_i) [Q]: how many times its due each prompt's gradient counts; all 1 is unbiased."""
    omega = prompt_weights(counts, aggregation)
    return np.asarray(len(omega) * omega * moments.implied_weight(p, np.maximum(counts, 1), estimator))


def batch_moments(
    probs: FloatArray, correct: BoolArray, counts: IntArray, aggregation: str, estimator: str
) -> BatchMoments:
    """Exact moments of one batch of bandit prompts, whose rows of the table no other prompt shares.

    E g = sum omega_i w_i grad p_i, Cov g = sum omega_i^2 Cov g_i, in orthogonal subspaces.

    Parameters
    ----------
    probs, correct
        Policy and correct answers of the batch's prompts, [Q, K].
    counts
        Rollouts of each prompt, integers, [Q]; a prompt without any has no part in g, but one in J.
    aggregation
        One of `theory.losses.AGGREGATIONS`.
    estimator
        One of `theory.estimators.ESTIMATORS`.

    Raises
    ------
    ValueError
        If an argument is of the wrong shape or range, or a name unknown.

    Examples
    --------
    >>> probs, correct = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[True, False]] * 2)
    >>> found = batch_moments(probs, correct, np.array([8, 8]), "prompt-mean", "rloo")
    >>> [round(float(x), 5) for x in found]
    [0.00486, 0.0, 0.00486, 0.93753, 1.0]
    """
    omega = prompt_weights(counts, aggregation)
    groups = moments.gradient_moments(probs, correct, np.maximum(counts, 1), estimator)
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
    gradients
        Draws the batch of every seed again and returns their gradients, [S, ...].
    truth
        grad J of every seed, of the same shape.
    num_resamples
        Calls, at least 2.

    Raises
    ------
    ValueError
        If there are fewer than 2 resamples, or the shapes differ.
    """
    require.count("num_resamples", num_resamples, 2)
    total, squares = np.zeros_like(truth), np.zeros(len(truth))
    for _ in range(num_resamples):
        error = gradients()
        require.same_shape(truth=truth, gradients=error)
        error = error - truth
        total += error
        squares += _inner(error, error)
    bias = total / num_resamples
    mse = squares / num_resamples
    variance = np.maximum(squares - num_resamples * _inner(bias, bias), 0.0) / (num_resamples - 1)
    mean = bias + truth
    return _moments(
        variance=variance,
        bias_squared=mse - variance,
        product=_inner(mean, truth),
        signal=_inner(mean, mean),
        truth=_inner(truth, truth),
        second_moment=mse + 2 * _inner(bias, truth) + _inner(truth, truth),
    )


def true_gradient(probs: FloatArray, correct: BoolArray) -> FloatArray:
    """Gradient of (1/Q) sum_i p_i in the logits of every token, before tokens that share a row are added up.

    p_i = prod_t c_t, where c_t is the policy's mass on the correct tokens; dp_i/dz_t = p_i (pi given correct - pi).

    Parameters
    ----------
    probs
        Policy at every token of every prompt, [S, Q, T, K].
    correct
        Tokens that keep the rollout correct, [S, Q, T, K].

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


def proxy_variances(rule_name: str, successes: FloatArray, attempts: FloatArray, variances: FloatArray) -> Any:
    """Return what a rule takes for the variance of one rollout, [Q]; None for a rule that has no such proxy.

    Rules with a `min_history`: P (6); a prompt below it stands for the mean of the others. Rules with a `prior`: p (1 -
    p) at the posterior mean. `oracle-variance`: the exact `variances`.
    """
    rule: Any = get_allocator(rule_name)
    if rule_name == "oracle-variance":
        return variances
    if rule.in_rounds:
        return None
    if hasattr(rule, "min_history"):
        known = attempts >= rule.min_history
        if not known.any():
            return np.ones_like(attempts)
        found = np.empty_like(attempts)
        found[known] = allocation.bernoulli_variance(successes[known], attempts[known])
        found[~known] = found[known].mean()
        return found
    if hasattr(rule, "prior"):
        a, b = rule.prior
        p = (successes + a) / (attempts + a + b)
        return p * (1 - p)
    return None


def regret(variances: FloatArray, counts: IntArray, low: int, high: int) -> float:
    """How much more variance the counts leave than the oracle's: sum v/n over its exact integer minimum, minus 1.

    The oracle knows v, has the same rollouts to spend, and the same bounds (a lower one where the counts go below
    `low`, as rules that spend in rounds may). 0 if nothing varies; NaN where a prompt that varies has no rollout.

    Parameters
    ----------
    variances
        Exact variance of one rollout, [Q].
    counts
        Rollouts, [Q].
    low, high
        Bounds of the rule.

    Examples
    --------
    >>> round(regret(np.array([1.0, 9.0]), np.array([4, 4]), 1, 8), 6)
    0.25
    """
    if not variances.any():
        return 0.0
    if not counts[variances > 0].all():
        return float("nan")
    best = allocation.optimal(variances, int(counts.sum()), min(low, int(counts.min())), high)
    return allocation.total_variance(variances, counts) / allocation.total_variance(variances, best) - 1.0


def estimate_errors(p: FloatArray, successes: FloatArray, attempts: FloatArray) -> tuple[float, float]:
    """Mean |k/G - p| and mean (k/G - p) over the prompts with a history; NaN if there is none.

    Examples
    --------
    >>> estimate_errors(np.array([0.5, 0.5, 0.9]), np.array([3.0, 2.0, 0.0]), np.array([4.0, 8.0, 0.0]))
    (0.25, 0.0)
    """
    seen = attempts > 0
    if not seen.any():
        return float("nan"), float("nan")
    errors = successes[seen] / attempts[seen] - p[seen]
    return float(np.abs(errors).mean()), float(errors.mean())


def diagnose(
    method: Method,
    bounds: tuple[int, int],
    probs: FloatArray,
    correct: BoolArray,
    counts: IntArray,
    history: tuple[FloatArray, FloatArray],
    variances: FloatArray,
    resample: Callable[[], FloatArray],
    scatter: Callable[[FloatArray], FloatArray],
) -> dict[str, FloatArray]:
    """Return the `toy.training.metrics.DIAGNOSTICS` of one step, each [S]; NaN where a number does not exist.

    Parameters
    ----------
    method
        What was trained.
    bounds
        Fewest and most rollouts of a prompt.
    probs, correct
        Policy and correct tokens at every token of the batch, [S, Q, T, K].
    counts
        Rollouts, [S, Q].
    history
        Successes and attempts that the rule knew, before the step, each [S, Q].
    variances
        Exact variance of one rollout of every prompt, [S, Q].
    resample
        Draws the batches again and returns the gradient (of J, not of the loss) in the table, [S, ...]. Called only
        where no exact formula applies.
    scatter
        Adds the gradients of tokens [S, Q, T, K] up to that of the table, [S, ...].
    """
    num_seeds, num_prompts, length, _ = probs.shape
    successes, attempts = history
    p = np.minimum(np.where(correct, probs, 0.0).sum(-1), 1.0).prod(-1)
    estimator = exact_estimator(method) if length == 1 else None
    truth = true_gradient(probs, correct)
    found = {name: np.full(num_seeds, np.nan) for name in metrics.DIAGNOSTICS}
    if estimator is None:
        table = scatter(truth)
        for name, values in resampled_moments(resample, table, NUM_RESAMPLES)._asdict().items():
            found[f"gradient_{name}"] = values
        found["true_gradient_squared"] = _inner(table, table)
    else:
        found["true_gradient_squared"] = _inner(truth, truth)
    for s in range(num_seeds):
        n = counts[s]
        row: dict[str, Any] = {"allocation_regret": regret(variances[s], n, *bounds)}
        proxy = proxy_variances(method.allocator, successes[s], attempts[s], variances[s])
        if proxy is not None and n[proxy > 0].all():
            row["variance_ratio_predicted"] = allocation.variance_ratio(proxy, n)
        if estimator is not None:
            pi, right = probs[s, :, 0], correct[s, :, 0]
            exact = batch_moments(pi, right, n, method.aggregation, estimator)
            row |= {f"gradient_{name}": value for name, value in exact._asdict().items()}
            equal = allocation.water_level(np.ones(num_prompts), int(n.sum()), 0, int(n.sum()))
            uniform = batch_moments(pi, right, equal, method.aggregation, estimator).variance
            row["variance_ratio_realized"] = exact.variance / uniform if uniform > 0 else 1.0
            weights = implied_weights(p[s], n, method.aggregation, estimator)
            row |= {"implied_weight_min": weights.min(), "implied_weight_max": weights.max()}
            row["implied_weight_share"] = weights.sum() ** 2 / (num_prompts * np.square(weights).sum())
        row["estimate_error"], row["estimate_bias"] = estimate_errors(p[s], successes[s], attempts[s])
        for name, value in row.items():
            found[name][s] = value
    return found


def _inner(a: FloatArray, b: FloatArray) -> FloatArray:
    """Inner products of two arrays [S, ...], seed by seed, [S]."""
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
