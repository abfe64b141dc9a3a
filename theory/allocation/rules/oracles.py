"""Optima of what an oracle knows, every prompt's variance or progress, and ours, which estimates the progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from theory.allocation.optimum import optimal, optimal_any, optimal_concave
from theory.allocation.rules.problem import Problem, WithPrior
from theory.base import require
from theory.base.arrays import FloatArray, IntArray
from theory.estimators import CENTRED, OBJECTIVES, implied_weight, posterior_progress


@dataclass(frozen=True)
class OracleVariance:
    """The optimum of (5) with the true gradient variances: the exact integer minimiser of sum sigma^2 / n.

    Needs `Knowledge.variances`. With low = 0, prompts with a positive variance still get at least 1.

    Examples
    --------
    >>> from theory.allocation.rules import Knowledge
    >>> knowledge = Knowledge(variances=np.array([0.0, 1.0, 4.0]))
    >>> problem = Problem([0, 0, 0], [0, 0, 0], 14, 2, 16, knowledge)
    >>> OracleVariance().counts(problem, np.random.default_rng(0)).tolist()
    [2, 4, 8]
    """

    name: ClassVar[str] = "oracle-variance"

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        return optimal(problem.known("variances"), problem.budget, problem.low, problem.high)


@dataclass(frozen=True)
class OracleProgress:
    """The allocation with the largest expected first-order progress of the batch, sum_i gains[i, n_i].

    Needs `Knowledge.gains`, a table for n = 0, ..., M with M >= high (`theory.estimators.expected_progress`). Exact for
    any table: by the largest marginals where all rows are concave within the bounds, otherwise by dynamic programming,
    in O(N B (high - low + 1)). An estimator whose progress does not depend on n (RLOO) leaves a tie.

    Examples
    --------
    >>> from theory.allocation.rules import Knowledge
    >>> knowledge = Knowledge(gains=np.array([[0, 1, 2, 3], [0, 0, 0, 9]]))
    >>> OracleProgress().counts(Problem([0, 0], [0, 0], 4, 0, 3, knowledge), np.random.default_rng(0)).tolist()
    [1, 3]
    """

    name: ClassVar[str] = "oracle-progress"

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        return _best(problem.known("gains"), problem, problem.high)


@dataclass(frozen=True)
class LogProgress(WithPrior):
    """The allocation with the largest expected first-order progress of sum log p over the posterior of p (ours).

    max sum_i omega(n_i) E[progress of log p_i with n_i rollouts], omega(n) = n under a mean over tokens, 1 under a mean
    over prompts, and p_i ~ Beta(k + a, G - k + b) from the history, in the closed form of
    `theory.estimators.posterior_progress`. What an oracle would need of the answers, |d|^2, is taken to be the same for
    all prompts. The logarithm keeps the rule from giving up hard prompts for those that would be solved anyway. Under
    a token mean the gain is mostly convex in n: the best prompts are at `high`, the others at `low`.
    A posterior of lifetime counts lags behind the policy: discount the history (`SuccessHistory(discount=0.5)`).

    Exact as `OracleProgress`. With a known success rate the posterior is that point.

    Parameters
    ----------
    estimator : Advantage of the training step, one of `theory.estimators.CENTRED`.
    aggregation : `token-mean` (also right for a mean over sequences) or `prompt-mean`.
    objective : `log`, or `success` for the progress of sum p.

    Examples
    --------
    >>> LogProgress().counts(Problem([0, 4, 8], [8, 8, 8], 24, 2, 16), np.random.default_rng(0)).tolist()
    [6, 16, 2]
    """

    name: ClassVar[str] = "log-progress"
    estimator: str = "grpo"
    aggregation: str = "token-mean"
    objective: str = "log"

    def __post_init__(self) -> None:
        require.one_of("estimator", self.estimator, CENTRED)
        require.one_of("aggregation", self.aggregation, ("token-mean", "prompt-mean"))
        require.one_of("objective", self.objective, OBJECTIVES)
        super().__post_init__()

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        scale = problem.group_sizes if self.aggregation == "token-mean" else 1.0
        return _best(self._progress(problem, problem.most) * scale, problem, problem.most)

    def _progress(self, problem: Problem, most: int) -> FloatArray:
        if problem.knowledge.success_rates is None:
            a, b = problem.successes + self.prior[0], problem.attempts - problem.successes + self.prior[1]
            return posterior_progress(a, b, max(most, 1), self.estimator, self.objective)[:, : most + 1]
        p = problem.knowledge.success_rates[:, None]
        slope = p if self.objective == "log" else p**2
        table = np.zeros((len(p), most + 1))
        table[:, 1:] = implied_weight(p, np.arange(1, most + 1), self.estimator) * slope * (1 - p) ** 2
        return table


def _best(gains: FloatArray, problem: Problem, high: int) -> IntArray:
    """Return the exact maximiser of sum gains[i, n_i]: by marginals where all rows are concave, otherwise by DP."""
    try:
        return optimal_concave(gains, problem.budget, problem.low, high)
    except ValueError:  # Not concave. Any other complaint is repeated by the general solver.
        return optimal_any(gains, problem.budget, problem.low, high)
