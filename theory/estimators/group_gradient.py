"""The gradient of a group of rollouts: its moments, however the group's size comes about.

A prompt has K answers, and the policy is pi = softmax(z) over them. Some answers are correct: J = p = pi(correct),
q = 1 - p. A group of n rollouts of which k are correct gives every correct one the advantage A_C(k, n) and every wrong
one A_W(k, n). Its gradient in the logits is g = (1/n) sum_j A_j s(a_j) with the score s(a) = e_a - pi.

Let pi_C, pi_W be the policy given a correct or a wrong answer and d = pi_C - pi_W. Then pi_C - pi = q d,
pi_W - pi = -p d and grad J = p q d. Given which rollouts are correct, the answers are independent draws from pi_C and
pi_W, so that given (n, k)

    E[g] = c d, with c = (k A_C q - (n-k) A_W p) / n
    Cov[g] = (k A_C^2 Sigma_C + (n-k) A_W^2 Sigma_W) / n^2, with Sigma_C = diag(pi_C) - pi_C pi_C^T,

and over (n, k)

    E[g] = E[c] d = w grad J
    Cov[g] = E[k A_C^2 / n^2] Sigma_C + E[(n-k) A_W^2 / n^2] Sigma_W + Var(c) d d^T.

The mean is parallel to grad J whatever the estimator: the implied weight w = E[c] / (p q) is all of its bias. Nothing
above needs a fixed n, only that the decision to stop looks at rewards and never at answers. The derivation uses
independence given the rewards. It does not use exchangeability, which stopping destroys: the last rollout of "until one
success" is the correct one. So `theory.estimators.moments` (a fixed size) and `theory.estimators.stopping` (a stopping
rule) differ only in the law of (n, k). They check their arguments; only the policy is checked here.

Conventions: a group whose rewards are all equal has advantages 0, and so has a group of one, except for `reinforce`.
No epsilon is added to a standard deviation. Formulas without a source are ours. Sums over k are made in the log domain;
their relative error is about 3e-14 at n = 100 and 1e-11 at n = 10,000.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, xlogy

from theory.base import require
from theory.base.arrays import FloatArray

# A = scale(k, n) (R - k/n) for 0 < k < n, by estimator; `reinforce` is the one that is not centred.
_SCALES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "rloo": lambda k, n: n / (n - 1),
    "dr_grpo": lambda k, n: np.ones_like(k),
    "grpo": lambda k, n: n / np.sqrt(k * (n - k)),
    "grpo_sample": lambda k, n: np.sqrt(n * (n - 1) / (k * (n - k))),
    "maxrl": lambda k, n: n / k,
}
ESTIMATORS = ("reinforce", *_SCALES)
"""REINFORCE (A = R), leave-one-out baseline, Dr.GRPO (R - mean), GRPO with the population and with the sample standard
deviation, MaxRL ((R - mean) / mean)."""


class Coefficients(NamedTuple):
    """What the moments need of the group-size law and the estimator, not of the answers; all fields share one shape.

    The weight w = E[c] / (p q) >= 0 is finite also at p = 0 and p = 1. `mean` is E[c]; `mean_variance` is Var(c), the
    factor of d d^T. `correct` is E[k A_C^2 / n^2], the factor of Sigma_C, and `wrong` E[(n-k) A_W^2 / n^2], that of
    Sigma_W.
    """

    weight: FloatArray
    mean: FloatArray
    mean_variance: FloatArray
    correct: FloatArray
    wrong: FloatArray


class ConditionalPolicy(NamedTuple):
    """A policy split by the correctness of the answer.

    pi_C and pi_W are [..., K], all zeros where p = 0 or q = 0. p and q are [...]; each is precise where it is tiny.
    """

    correct: FloatArray
    wrong: FloatArray
    p: FloatArray
    q: FloatArray

    @property
    def distance_squared(self) -> FloatArray:
        """|d|^2, [...]; the supports of pi_C and pi_W are disjoint."""
        return np.asarray((self.correct**2).sum(axis=-1) + (self.wrong**2).sum(axis=-1))

    @property
    def gradient_squared(self) -> FloatArray:
        """|grad J|^2, [...]."""
        return (self.p * self.q) ** 2 * self.distance_squared


@dataclass(frozen=True, eq=False)
class Moments:
    """Exact moments of a group's gradient g in the logits, against grad J; properties are computed when asked for.

    With a batch of prompts [...] and of group sizes that broadcast to [...], vectors are [..., K], scalars [...].
    """

    policy: ConditionalPolicy
    coefficients: Coefficients

    @property
    def weight(self) -> FloatArray:
        """Implied weight w: E[g] = w grad J."""
        return self.coefficients.weight

    @property
    def true_gradient(self) -> FloatArray:
        """Return grad J = p q d, [..., K]."""
        pq = self.policy.p * self.policy.q
        return pq[..., None] * (self.policy.correct - self.policy.wrong)

    @property
    def mean(self) -> FloatArray:
        """E[g], [..., K]."""
        return self.weight[..., None] * self.true_gradient

    @cached_property
    def covariance(self) -> FloatArray:
        """Cov[g], [..., K, K]."""
        correct, wrong = self.policy.correct, self.policy.wrong
        terms = self.coefficients
        difference = correct - wrong
        return (
            terms.correct[..., None, None] * _multinomial_covariance(correct)
            + terms.wrong[..., None, None] * _multinomial_covariance(wrong)
            + terms.mean_variance[..., None, None] * (difference[..., :, None] * difference[..., None, :])
        )

    @property
    def variance(self) -> FloatArray:
        """Trace of the covariance, in O(K)."""
        terms = self.coefficients
        return (
            terms.correct * answer_variance(self.policy.correct)
            + terms.wrong * answer_variance(self.policy.wrong)
            + terms.mean_variance * self.policy.distance_squared
        )

    @property
    def mse(self) -> FloatArray:
        """E|g - grad J|^2 = variance + (w - 1)^2 |grad J|^2."""
        return self.variance + (self.weight - 1) ** 2 * self.policy.gradient_squared

    @property
    def signal(self) -> FloatArray:
        """|E[g]|^2 = w^2 |grad J|^2."""
        return self.weight**2 * self.policy.gradient_squared

    @property
    def progress(self) -> FloatArray:
        """E<g, grad J> = w |grad J|^2: first-order improvement of J for a unit learning rate."""
        return self.weight * self.policy.gradient_squared

    @property
    def cosine(self) -> FloatArray:
        """<E g, grad J> / (|grad J| sqrt(E|g|^2)), which no scale of the advantages changes; 0 where g is always 0."""
        second_moment = self.signal + self.variance
        return np.asarray(np.sqrt(self.signal / np.where(second_moment > 0, second_moment, 1.0)))


def condition(probs: ArrayLike, correct: ArrayLike) -> ConditionalPolicy:
    """Check a policy and split it by the correctness of the answer."""
    pi = require.numbers("probs", probs, low=0.0)
    if pi.ndim < 1 or pi.shape[-1] < 1:
        raise ValueError(f"probs: expected shape [..., K] with K >= 1, got {pi.shape}")
    total = pi.sum(axis=-1)
    off = np.abs(total - 1) > 1e-6
    if off.any():
        raise ValueError(f"probs: expected a sum of 1 over the last axis, got {total[off][0]}")
    mask = require.booleans("correct", correct)
    require.same_shape(probs=pi, correct=mask)
    # Sums of nonnegative terms keep their relative precision: q is as good as p, which 1 - p is not.
    parts = [np.where(mask, pi, 0.0), np.where(mask, 0.0, pi)]
    masses = [part.sum(axis=-1) for part in parts]
    conditional = [part / np.where(mass > 0, mass, 1.0)[..., None] for part, mass in zip(parts, masses, strict=True)]
    return ConditionalPolicy(*conditional, *(mass / (masses[0] + masses[1]) for mass in masses))


def advantages_by_kind(k: FloatArray, n: FloatArray, estimator: str) -> tuple[FloatArray, FloatArray]:
    """Return A_C(k, n) and A_W(k, n)."""
    if estimator == "reinforce":
        return (k > 0).astype(np.float64), np.zeros_like(k)
    mixed = (k > 0) & (k < n)
    safe_k, safe_n = np.where(mixed, k, 1.0), np.where(mixed, n, 2.0)
    scale = _SCALES[estimator](safe_k, safe_n)
    return np.where(mixed, scale * (n - k) / n, 0.0), np.where(mixed, -scale * k / n, 0.0)


def coefficients(
    p: FloatArray, q: FloatArray, n: FloatArray, k: FloatArray, log_paths: FloatArray, estimator: str
) -> Coefficients:
    """Sum over the pairs (n, k), each [M], that are reached along exp(log_paths) reward sequences."""
    p, q = p[..., None], q[..., None]
    correct, wrong = advantages_by_kind(k, n, estimator)
    # c / (p q) in two parts, each times a probability with one factor p or q taken out: no division, no cancellation.
    weight = (k * correct / n * path_probability(log_paths, np.maximum(k - 1, 0), n - k, p, q)).sum(axis=-1) - (
        (n - k) * wrong / n * path_probability(log_paths, k, np.maximum(n - k - 1, 0), p, q)
    ).sum(axis=-1)
    probability = path_probability(log_paths, k, n - k, p, q)
    mean = (p * q)[..., 0] * weight
    deviation = (k * correct * q - (n - k) * wrong * p) / n - mean[..., None]
    return Coefficients(
        weight,
        mean,
        (probability * deviation**2).sum(axis=-1),
        probability @ (k * correct**2 / n**2),
        probability @ ((n - k) * wrong**2 / n**2),
    )


def path_probability(
    log_paths: FloatArray, num_p: FloatArray, num_q: FloatArray, p: FloatArray, q: FloatArray
) -> FloatArray:
    """Return exp(log_paths) p^num_p q^num_q, with 0^0 = 1."""
    return np.asarray(np.exp(log_paths + xlogy(num_p, p) + xlogy(num_q, q)))


def log_binomial(n: int) -> FloatArray:
    """Return log C(n, k) for k = 0 ... n."""
    k = np.arange(n + 1.0)
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1) - gammaln(n - k + 1))


def _multinomial_covariance(x: FloatArray) -> FloatArray:
    return x[..., :, None] * (np.eye(x.shape[-1]) - x[..., None, :])


def answer_variance(x: FloatArray) -> FloatArray:
    """Return tr(diag(x) - x x^T) = 1 - |x|^2, as a sum without cancellation; 0 for an absent kind."""
    return np.asarray((x * (1 - x)).sum(axis=-1))
