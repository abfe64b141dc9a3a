"""Groups whose size a stopping rule decides: the law of their size, and the exact moments of their gradient.

A rule that looks at rewards biases the group's gradient whatever the estimator; notation, derivation and conventions
are those of `theory.estimators.group_gradient`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from theory.base import require
from theory.base.arrays import FloatArray, IntArray
from theory.estimators.group_gradient import (
    ESTIMATORS,
    Coefficients,
    Moments,
    coefficients,
    condition,
    log_binomial,
    path_probability,
)


@dataclass(frozen=True)
class StoppingRule:
    """Sample rounds of rollouts until enough of both kinds are seen, or the rounds are used up; pool all of them.

    `min_correct=1, min_wrong=0` waits for a success, 1 and 1 for both kinds. keep/2 and keep/2 is the balanced rule of
    Reinforce-Ada (2510.04996), 0 and 0 a fixed group of one round. Sampling stops after the first round that ends with
    at least `min_correct` correct and `min_wrong` wrong rollouts. `round_size` and `max_rounds` are at least 1.
    """

    round_size: int
    max_rounds: int
    min_correct: int = 1
    min_wrong: int = 0

    def __post_init__(self) -> None:
        require.count("round_size", self.round_size, 1)
        require.count("max_rounds", self.max_rounds, 1)
        require.count("min_correct", self.min_correct)
        require.count("min_wrong", self.min_wrong)


@dataclass(frozen=True, eq=False)
class GroupLaw:
    """Joint law P(n, k), [..., M], of the size of a group and its number of correct rollouts, on M reachable pairs."""

    num_rollouts: IntArray
    num_correct: IntArray
    probability: FloatArray

    @property
    def expected_rollouts(self) -> FloatArray:
        """E[n], [...]: the cost of the rule."""
        return self.probability @ self.num_rollouts.astype(np.float64)

    @property
    def expected_pooled_mean(self) -> FloatArray:
        """E[k/n], [...]: differs from p when the size depends on the rewards."""
        return self.probability @ (self.num_correct / self.num_rollouts)


def stopping_law(p: ArrayLike, rule: StoppingRule) -> GroupLaw:
    """Exact law of the size and the successes of a group under a stopping rule.

    P(n, k) = N(n, k) p^k q^(n-k), where N counts the reward sequences that stop there, by dynamic programming over
    rounds.

    Parameters
    ----------
    p, rule : Success probability in [0, 1], [...], and the stopping rule.

    Returns
    -------
    GroupLaw : The pairs in order of n, then k; they are the same for every p.

    Examples
    --------
    >>> law = stopping_law(0.05, StoppingRule(round_size=8, max_rounds=4))
    >>> round(float(law.expected_pooled_mean), 4), round(float(law.expected_rollouts), 1)
    (0.0776, 19.2)
    """
    p = require.numbers("p", p, low=0.0, high=1.0)
    n, k, log_paths = _stopping_paths(rule)
    probability = path_probability(log_paths, k, n - k, p[..., None], 1 - p[..., None])
    return GroupLaw(n.astype(np.int64), k.astype(np.int64), probability)


def stopped_coefficients(p: ArrayLike, rule: StoppingRule, estimator: str = "grpo") -> Coefficients:
    """Scalar core of the moments under a stopping rule: `group_coefficients` with n random.

    Advantages are over all rollouts that the rule pools. Arguments as in `stopping_law` and `group_coefficients`.

    Returns
    -------
    Coefficients : Five arrays [...].

    Examples
    --------
    >>> rule = StoppingRule(round_size=8, max_rounds=4)
    >>> stopped_coefficients([0.05, 0.1, 0.5], rule, "dr_grpo").weight.round(2).tolist()
    [1.41, 1.17, 0.88]
    """
    require.one_of("estimator", estimator, ESTIMATORS)
    p = require.numbers("p", p, low=0.0, high=1.0)
    return coefficients(p, 1 - p, *_stopping_paths(rule), estimator)


def gradient_moments_stopped(
    probs: ArrayLike, correct: ArrayLike, rule: StoppingRule, estimator: str = "grpo"
) -> Moments:
    """Exact moments of the gradient of a group whose size a stopping rule decides.

    Expectations are over the joint law of (n, k), and g is the mean over all rollouts that the rule pools.
    Arguments as in `gradient_moments` and `stopping_law`.

    Returns
    -------
    Moments : As `gradient_moments`. Even `reinforce` and `rloo` are biased here: their weight is not 1.

    Examples
    --------
    >>> rule = StoppingRule(round_size=8, max_rounds=4)
    >>> moments = gradient_moments_stopped([0.1, 0.9], [True, False], rule, "rloo")
    >>> round(float(moments.weight), 4)
    1.3162
    """
    require.one_of("estimator", estimator, ESTIMATORS)
    policy = condition(probs, correct)
    return Moments(policy, coefficients(policy.p, policy.q, *_stopping_paths(rule), estimator))


def _stopping_paths(rule: StoppingRule) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return n, k and log N(n, k) of the pairs at which the rule can stop; no probability enters."""
    if not isinstance(rule, StoppingRule):
        raise ValueError(f"rule: expected a StoppingRule, got {rule!r}")
    log_alive = np.zeros(1)
    stops = []
    for num_rounds in range(1, rule.max_rounds + 1):
        n = num_rounds * rule.round_size
        log_reached = np.full(n + 1, -np.inf)
        for successes, ways in enumerate(log_binomial(rule.round_size)):
            span = slice(successes, successes + log_alive.size)
            log_reached[span] = np.logaddexp(log_reached[span], log_alive + ways)
        k = np.arange(n + 1)
        done = (k >= rule.min_correct) & (n - k >= rule.min_wrong) | (num_rounds == rule.max_rounds)
        stop = done & np.isfinite(log_reached)
        stops.append(np.stack([np.full_like(k, n)[stop], k[stop], log_reached[stop]]))
        log_alive = np.where(done, -np.inf, log_reached)
    n, k, log_paths = np.concatenate(stops, axis=1)
    return n, k, log_paths
