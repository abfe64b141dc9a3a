"""Allocation rules that decide from the past alone, before the first rollout of a batch.

Every rule here spends the budget exactly and keeps every prompt within [low, high], whatever its source does. Where a
source gives weights, `theory.allocation.water_level` fits them to bounds and budget; where it gives an objective,
`theory.allocation` finds its exact integer optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from theory.allocation.optimum import optimal, optimal_any, optimal_concave
from theory.allocation.rules.protocol import OneShot, Problem, apportion, checked_prior, checked_size
from theory.allocation.shares import water_level
from theory.base import require
from theory.base.arrays import FloatArray, IntArray
from theory.estimators.moments import implied_weight
from theory.estimators.progress import CENTRED, OBJECTIVES, posterior_progress


@dataclass(frozen=True)
class Uniform(OneShot):
    """The same number of rollouts for every prompt, n_i = B / N; what is left over goes to the lower indices.

    Examples
    --------
    >>> Uniform().allocate([0, 4, 8], [8, 8, 8], 16, 1, 16, np.random.default_rng(0)).tolist()
    [6, 5, 5]
    """

    name: ClassVar[str] = "uniform"

    def _counts(self, problem: Problem) -> IntArray:
        return water_level(np.ones(problem.num_prompts), problem.budget, problem.low, problem.high)


@dataclass(frozen=True)
class Dynamo(OneShot):
    """DynaMO as published (2602.19208, Alg. 1 and Appendix D): the water level on the Bernoulli variance.

    n_i = clip(c P_i, low, high), P = k (G - k) / (G (G - 1)) (6). Prompts with fewer than `min_history` attempts are
    data-scarce: each gets an equal share of the budget, B / N rounded half up, within bounds, and the rest is divided
    among the others. Where the rest would then not fit the others' bounds, the shares of the scarce give way. The paper
    gives no number for `min_history`; 4 is the public code's. With known success rates P = p (1 - p), and no prompt is
    scarce. The paper scales down lower bounds that exceed the budget; here that is an error.

    Parameters
    ----------
    min_history
        Attempts from which P is trusted, at least 2 (below, P is undefined).

    Examples
    --------
    >>> Dynamo().allocate([0, 4, 2], [8, 8, 2], 18, 2, 16, np.random.default_rng(0)).tolist()
    [2, 10, 6]
    """

    name: ClassVar[str] = "dynamo"
    min_history: int = 4

    def __post_init__(self) -> None:
        checked_size("min_history", self.min_history, 2)

    def _weights(self, variances: FloatArray) -> FloatArray:
        return variances

    def _counts(self, problem: Problem) -> IntArray:
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
    >>> Neyman().allocate([0, 4, 1], [8, 8, 8], 18, 2, 16, np.random.default_rng(0)).tolist()
    [2, 10, 6]
    """

    name: ClassVar[str] = "neyman"

    def _weights(self, variances: FloatArray) -> FloatArray:
        return np.sqrt(variances)


@dataclass(frozen=True)
class DynamoCode(OneShot):
    """DynaMO as in its public code (commit 63e5ec9): a floor for all, the rest in proportion to the weight above it.

    n_i = low + (B - N low) w_i / sum w, capped at `high`, what a cap cuts off being divided again among the others;
    w = max(P + 1e-6 (1 - k/G), min_weight), min_weight once k/G >= mastery; no share below `min_history` attempts,
    where prompts stay at the floor until all others are at the cap, and then share equally. Largest remainder.

    Changed: ties go to the lower index (the code's sort is not stable), and infeasible bounds are an error (the code
    moves the budget). The code first tops prompts up to max(low, 4) attempts; with low >= 4, as in the released script,
    that is the floor, and for low < 4 it is left out. With known success rates P = p (1 - p), and k/G = p.

    Parameters
    ----------
    mastery
        Success rate from which a prompt counts as mastered, in (0, 1].
    min_weight
        Smallest weight, > 0.
    min_history
        Attempts from which a prompt takes part, at least 2.

    Examples
    --------
    >>> DynamoCode().allocate([0, 4, 8], [8, 8, 8], 48, 8, 24, np.random.default_rng(0)).tolist()
    [12, 24, 12]
    """

    name: ClassVar[str] = "dynamo-code"
    mastery: float = 0.85
    min_weight: float = 0.01
    min_history: int = 4

    def __post_init__(self) -> None:
        require.in_range("mastery", self.mastery, 0.0, 1.0, open_low=True)
        require.in_range("min_weight", self.min_weight, 0.0, 1.0, open_low=True)
        checked_size("min_history", self.min_history, 2)

    def _counts(self, problem: Problem) -> IntArray:
        variances, scarce = problem.reward_variances(self.min_history)
        known = problem.knowledge.success_rates
        rates = problem.successes / np.maximum(problem.attempts, 1) if known is None else known
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


@dataclass(frozen=True)
class Gvm(OneShot):
    """GVM-RAFT (2505.02391): the water level on the gradient norm over the root of a penalised success rate.

    w = g / sqrt(p + alpha / p^(beta - 1)), 0 where p = 0 or g = 0. g: `Knowledge.gradient_norms`, default 1.

    Changed: the source gives 0 rollouts where w = 0 and has no bounds; here such prompts get `low`. It takes p = k/G
    from a pilot of 8 that it does not charge; here p is a posterior mean of the history. Its optional filters, off by
    default, are left out. If no prompt has a weight (the source divides by zero) the allocation is uniform.

    Parameters
    ----------
    alpha
        Penalty, >= 1e-12.
    beta
        Exponent of the penalty, in [1, 16].
    prior
        Beta prior of p.

    Examples
    --------
    >>> Gvm().allocate([1, 4, 7], [8, 8, 8], 24, 2, 16, np.random.default_rng(0)).tolist()
    [11, 7, 6]
    """

    name: ClassVar[str] = "gvm"
    alpha: float = 1e-3
    beta: float = 2.0
    prior: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        require.in_range("alpha", self.alpha, 1e-12)
        require.in_range("beta", self.beta, 1.0, 16.0)
        checked_prior(self.prior)

    def _counts(self, problem: Problem) -> IntArray:
        p = problem.success_rates(self.prior)
        # Equal to the formula, and defined at p = 0.
        penalised = p ** (self.beta - 1) / (p**self.beta + self.alpha)
        weights = _relative(problem.known_or_one("gradient_norms")) * np.sqrt(penalised) * (p > 0)
        return water_level(_relative(weights), problem.budget, problem.low, problem.high)


@dataclass(frozen=True)
class Vip(OneShot):
    """VIP (2602.01601): the exact minimum of its gradient-variance objective, over integers.

    min sum_i V_i(n_i), with rewards +-1 and one variance of the projected score for all prompts (its scale is
    immaterial), a = 4 p (1 - p):

        rloo     V = a / (n - 1)      convex for n >= 2; over the reals n = 1 + sqrt(a / lambda)
        dr_grpo  V = a (n - 1) / n^2  convex for n >= 3 (V'' = 2 a (n - 3) / n^4); lambda = a (n - 2) / n^3

    so that `low` must be at least 2 and 3. Below, the Dr.GRPO objective rewards silence: it vanishes at n = 1, where
    the expected update does too.

    Changed: the real-valued optimum and its rounding are replaced by the integer optimum. The source predicts p by a
    Gaussian process on prompt embeddings, which is out of scope here: p is a posterior mean of the history, or known.

    Parameters
    ----------
    estimator
        `rloo` or `dr_grpo`.
    prior
        Beta prior of p.

    Examples
    --------
    >>> Vip().allocate([0, 4, 7], [8, 8, 8], 24, 2, 16, np.random.default_rng(0)).tolist()
    [6, 10, 8]
    """

    name: ClassVar[str] = "vip"
    estimator: str = "rloo"
    prior: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        require.one_of("estimator", self.estimator, ("rloo", "dr_grpo"))
        checked_prior(self.prior)

    def _counts(self, problem: Problem) -> IntArray:
        first = 2 if self.estimator == "rloo" else 3
        _require_low(self, problem, first)
        p, n = problem.success_rates(self.prior), np.maximum(_columns(problem), first)
        variance = 1 / (n - 1) if self.estimator == "rloo" else (n - 1) / n**2
        return optimal_concave(-np.outer(p * (1 - p), variance), problem.budget, problem.low, _cap(problem))


@dataclass(frozen=True)
class Knapsack(OneShot):
    """Knapsack RL (2509.25849): the exact maximum of the expected value of informative groups.

    max sum_i (1 - p^n - q^n) p q^2, q = 1 - p: the probability of a group with both outcomes, times its value.

    The value is concave in n >= 1, since its second difference is -(p^(n-1) q^2 + q^(n-1) p^2) p q^2 <= 0, so that the
    largest marginals are the optimum and the source's dynamic programme is not needed. `low` must be at least 1 (the
    source has 2): a group of none is worth 0, like a group of one, and not the formula's -p q^2.

    Changed: p is a posterior mean of the history (public re-implementations: the same, or a moving average), which is
    never 0 or 1, so that the source's fallbacks for p = 0 and p = 1 are not needed; with a known rate of 0 or 1 the
    value is 0, and the prompt stays at `low` until all others are at `high`.

    Parameters
    ----------
    prior
        Beta prior of p.

    Examples
    --------
    >>> Knapsack().allocate([0, 4, 7], [8, 8, 8], 24, 2, 16, np.random.default_rng(0)).tolist()
    [13, 6, 5]
    """

    name: ClassVar[str] = "knapsack"
    prior: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        checked_prior(self.prior)

    def _counts(self, problem: Problem) -> IntArray:
        _require_low(self, problem, 1)
        p, n = problem.success_rates(self.prior)[:, None], _columns(problem)
        q = 1 - p
        # Without the constant 1, beside which small marginals would be lost.
        return optimal_concave(-(p**n + q**n) * (p * q**2), problem.budget, problem.low, _cap(problem))


@dataclass(frozen=True)
class Cures(OneShot):
    """CurES (2510.01037): the water level on the standard deviation of a prompt's gradient.

    sigma^2 = p q^2 E[g_c^2] + p^2 q E[g_w^2] - p^2 q^2 (E[g_c] - E[g_w])^2, q = 1 - p, with the gradient norms of
    correct and wrong responses, `Knowledge.correct_norms` and `wrong_norms` (default 1). For norms that do not vary
    within a kind this is p q (q g_c + p g_w)^2, hence w = sqrt(p q) (q g_c + p g_w); for norms of 1, w = sqrt(p q).

    Changed: norms are taken not to vary within a kind. The source rounds without bounds, and computes the counts once,
    before training, with p = k/G; here they follow the history, with its posterior mean (the source's own estimate for
    sampling prompts, Beta(k + 1, G - k + 1)). Its sampling of prompts is no allocation and is left out.

    Parameters
    ----------
    prior
        Beta prior of p.

    Examples
    --------
    >>> Cures().allocate([0, 4, 7], [8, 8, 8], 24, 2, 16, np.random.default_rng(0)).tolist()
    [6, 10, 8]
    """

    name: ClassVar[str] = "cures"
    prior: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        checked_prior(self.prior)

    def _counts(self, problem: Problem) -> IntArray:
        p = problem.success_rates(self.prior)
        norms = [problem.known_or_one("correct_norms"), problem.known_or_one("wrong_norms")]
        correct, wrong = _relative(np.stack(norms))
        weights = np.sqrt(p * (1 - p)) * ((1 - p) * correct + p * wrong)
        return water_level(_relative(weights), problem.budget, problem.low, problem.high)


@dataclass(frozen=True)
class OracleVariance(OneShot):
    """The optimum of (5) with the true gradient variances: the exact integer minimiser of sum sigma^2 / n.

    Needs `Knowledge.variances`. With low = 0, prompts with a positive variance still get at least 1.

    Examples
    --------
    >>> from theory.allocation.rules import Knowledge
    >>> knowledge = Knowledge(variances=np.array([0.0, 1.0, 4.0]))
    >>> rng = np.random.default_rng(0)
    >>> OracleVariance().allocate([0, 0, 0], [0, 0, 0], 14, 2, 16, rng, knowledge=knowledge).tolist()
    [2, 4, 8]
    """

    name: ClassVar[str] = "oracle-variance"

    def _counts(self, problem: Problem) -> IntArray:
        variances = problem.known(self.name, "variances")
        return optimal(variances, problem.budget, problem.low, problem.high)


@dataclass(frozen=True)
class OracleProgress(OneShot):
    """The allocation with the largest expected first-order progress of the batch, sum_i gains[i, n_i].

    Needs `Knowledge.gains`, a table for n = 0, ..., M with M >= high (`theory.estimators.expected_progress`). Exact for
    any table: by the largest marginals where all rows are concave within the bounds, otherwise by dynamic programming,
    in O(N B (high - low + 1)). An estimator whose progress does not depend on n (RLOO) leaves a tie.

    Examples
    --------
    >>> from theory.allocation.rules import Knowledge
    >>> knowledge = Knowledge(gains=np.array([[0, 1, 2, 3], [0, 0, 0, 9]]))
    >>> rng = np.random.default_rng(0)
    >>> OracleProgress().allocate([0, 0], [0, 0], 4, 0, 3, rng, knowledge=knowledge).tolist()
    [1, 3]
    """

    name: ClassVar[str] = "oracle-progress"

    def _counts(self, problem: Problem) -> IntArray:
        return _best(problem.known(self.name, "gains"), problem, problem.high)


@dataclass(frozen=True)
class LogProgress(OneShot):
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
    estimator
        Advantage of the training step, one of `theory.estimators.progress.CENTRED`.
    aggregation
        `token-mean` (also right for a mean over sequences) or `prompt-mean`.
    objective
        `log`, or `success` for the progress of sum p.
    prior
        Beta prior of p.

    Examples
    --------
    >>> LogProgress().allocate([0, 4, 8], [8, 8, 8], 24, 2, 16, np.random.default_rng(0)).tolist()
    [6, 16, 2]
    """

    name: ClassVar[str] = "log-progress"
    estimator: str = "grpo"
    aggregation: str = "token-mean"
    objective: str = "log"
    prior: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        require.one_of("estimator", self.estimator, CENTRED)
        require.one_of("aggregation", self.aggregation, ("token-mean", "prompt-mean"))
        require.one_of("objective", self.objective, OBJECTIVES)
        checked_prior(self.prior)

    def _counts(self, problem: Problem) -> IntArray:
        n = _columns(problem)
        gains = self._progress(problem, len(n) - 1) * (n if self.aggregation == "token-mean" else 1.0)
        return _best(gains, problem, len(n) - 1)

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


def _relative(values: FloatArray) -> FloatArray:
    """Scale to a largest value of 1, since the water level takes weights below 1e-8 for none."""
    scaled: FloatArray = values / values.max() if values.any() else values
    return scaled


def _require_low(rule: OneShot, problem: Problem, minimum: int) -> None:
    if problem.low < minimum:
        raise ValueError(f"low: expected at least {minimum} for {rule}, got {problem.low}")


def _cap(problem: Problem) -> int:
    """Return the most that one prompt can get, so that tables are no wider than needed."""
    return min(problem.high, problem.budget - (problem.num_prompts - 1) * problem.low)


def _columns(problem: Problem) -> FloatArray:
    return np.arange(_cap(problem) + 1, dtype=np.float64)
