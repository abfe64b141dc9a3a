"""DynaMO's own rules and the uniform one: as published, with the root of its theorem, and as in its public code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from theory.allocation.bounds import MAX_BUDGET
from theory.allocation.rules.problem import Problem
from theory.allocation.rules.protocol import apportion
from theory.allocation.shares import water_level
from theory.base import require
from theory.base.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Uniform:
    """The same number of rollouts for every prompt, n_i = B / N; what is left over goes to the lower indices.

    Examples
    --------
    >>> Uniform().counts(Problem([0, 4, 8], [8, 8, 8], 16, 1, 16), np.random.default_rng(0)).tolist()
    [6, 5, 5]
    """

    name: ClassVar[str] = "uniform"

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        return water_level(np.ones(problem.num_prompts), problem.budget, problem.low, problem.high)


@dataclass(frozen=True)
class Dynamo:
    """DynaMO as published (2602.19208, Alg. 1 and Appendix D): the water level on the Bernoulli variance.

    n_i = clip(c P_i, low, high), P = k (G - k) / (G (G - 1)) (6). Prompts with fewer than `min_history` attempts are
    data-scarce: each gets an equal share of the budget, B / N rounded half up, within bounds, and the rest is divided
    among the others. Where the rest would then not fit the others' bounds, the shares of the scarce give way. The paper
    gives no number for `min_history`; 4 is the public code's. With known success rates P = p (1 - p), none is scarce.

    Parameters
    ----------
    min_history : Attempts from which P is trusted, at least 2 (below, P is undefined).

    Examples
    --------
    >>> Dynamo().counts(Problem([0, 4, 2], [8, 8, 2], 18, 2, 16), np.random.default_rng(0)).tolist()
    [2, 10, 6]
    """

    name: ClassVar[str] = "dynamo"
    min_history: int = 4

    def __post_init__(self) -> None:
        require.count("min_history", self.min_history, 2, MAX_BUDGET)

    def _weights(self, variances: FloatArray) -> FloatArray:
        return variances

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        variances, scarce = problem.reward_variances(self.min_history)
        budget, low, high = problem.budget, problem.low, problem.high
        num_scarce, num_known = int(scarce.sum()), int((~scarce).sum())
        if num_known == 0:
            return water_level(np.ones(num_scarce), budget, low, high)
        share = num_scarce * ((2 * budget + problem.num_prompts) // (2 * problem.num_prompts))
        share = min(max(share, budget - num_known * high), budget - num_known * low)
        counts = np.empty(problem.num_prompts, dtype=np.int64)
        if num_scarce:
            counts[scarce] = water_level(np.ones(num_scarce), share, low, high)
        else:
            share = 0
        counts[~scarce] = water_level(self._weights(variances[~scarce]), budget - share, low, high)
        return counts


@dataclass(frozen=True)
class Neyman(Dynamo):
    """DynaMO with the square root that its theorem asks for (5, 36): the water level on sqrt(P).

    n_i = clip(c sqrt(P_i), low, high). Minimises sum P / n (up to rounding), which n proportional to P does not. All
    else as in `Dynamo`.

    Examples
    --------
    >>> Neyman().counts(Problem([0, 4, 1], [8, 8, 8], 18, 2, 16), np.random.default_rng(0)).tolist()
    [2, 10, 6]
    """

    name: ClassVar[str] = "neyman"

    def _weights(self, variances: FloatArray) -> FloatArray:
        return np.sqrt(variances)


@dataclass(frozen=True)
class DynamoCode:
    """DynaMO as in its public code (commit 63e5ec9): a floor for all, the rest in proportion to the weight above it.

    n_i = low + (B - N low) w_i / sum w, capped at `high`, what a cap cuts off being divided again among the others;
    w = max(P + 1e-6 (1 - k/G), min_weight), min_weight once k/G >= mastery; no share below `min_history` attempts,
    where prompts stay at the floor until all others are at the cap, and then share equally. Largest remainder.

    Changed: ties go to the lower index (the code's sort is not stable), and infeasible bounds are an error (the code
    moves the budget). The code first tops prompts up to max(low, 4) attempts; with low >= 4, as in the released script,
    that is the floor, and for low < 4 it is left out. With known success rates P = p (1 - p), and k/G = p.

    Parameters
    ----------
    mastery : Success rate from which a prompt counts as mastered, in (0, 1].
    min_weight : Smallest weight, > 0.
    min_history : Attempts from which a prompt takes part, at least 2.

    Examples
    --------
    >>> DynamoCode().counts(Problem([0, 4, 8], [8, 8, 8], 48, 8, 24), np.random.default_rng(0)).tolist()
    [12, 24, 12]
    """

    name: ClassVar[str] = "dynamo-code"
    mastery: float = 0.85
    min_weight: float = 0.01
    min_history: int = 4

    def __post_init__(self) -> None:
        require.in_range("mastery", self.mastery, 0.0, 1.0, open_low=True)
        require.in_range("min_weight", self.min_weight, 0.0, 1.0, open_low=True)
        require.count("min_history", self.min_history, 2, MAX_BUDGET)

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        variances, scarce = problem.reward_variances(self.min_history)
        rates = problem.knowledge.success_rates
        if rates is None:
            rates = problem.successes / np.maximum(problem.attempts, 1)
        weights = np.maximum(variances + 1e-6 * (1 - rates), self.min_weight)
        weights[rates >= self.mastery] = self.min_weight
        counts = np.full(problem.num_prompts, problem.low, dtype=np.int64)
        left = problem.budget - int(counts.sum())
        while left and (rows := np.flatnonzero((counts < problem.high) & ~scarce)).size:
            added = np.minimum(apportion(weights[rows], left), problem.high - counts[rows])
            counts[rows] += added
            left -= int(added.sum())
        if left:
            rows = np.flatnonzero(counts < problem.high)  # All of them scarce, and still at the floor.
            budget = left + rows.size * problem.low
            counts[rows] = water_level(np.ones(rows.size), budget, problem.low, problem.high)
        return counts
