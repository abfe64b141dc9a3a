"""Rules that others have published, fitted to a budget and to bounds; each says what was changed.

Where a source gives weights, `theory.allocation.water_level` fits them to bounds and budget; where it gives an
objective, `theory.allocation` finds its exact integer optimum. Rates are posterior means under a Beta `prior`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from theory.allocation.optimum import optimal_concave
from theory.allocation.rules.problem import Problem, WithPrior
from theory.allocation.shares import water_level
from theory.base import require
from theory.base.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Gvm(WithPrior):
    """GVM-RAFT (2505.02391): the water level on the gradient norm over the root of a penalised success rate.

    w = g / sqrt(p + alpha / p^(beta - 1)), 0 where p = 0 or g = 0. g: `Knowledge.gradient_norms`, default 1.

    Changed: the source gives 0 rollouts where w = 0 and has no bounds; here such prompts get `low`. It takes p = k/G
    from a pilot of 8 that it does not charge; here p is a posterior mean of the history. Its optional filters, off by
    default, are left out. If no prompt has a weight (the source divides by zero) the allocation is uniform.

    Parameters
    ----------
    alpha : Penalty, >= 1e-12.
    beta : Exponent of the penalty, in [1, 16].

    Examples
    --------
    >>> Gvm().counts(Problem([1, 4, 7], [8, 8, 8], 24, 2, 16), np.random.default_rng(0)).tolist()
    [11, 7, 6]
    """

    name: ClassVar[str] = "gvm"
    alpha: float = 1e-3
    beta: float = 2.0

    def __post_init__(self) -> None:
        require.in_range("alpha", self.alpha, 1e-12)
        require.in_range("beta", self.beta, 1.0, 16.0)
        super().__post_init__()

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        p = problem.success_rates(self.prior)
        # Equal to the formula, and defined at p = 0.
        penalised = p ** (self.beta - 1) / (p**self.beta + self.alpha)
        weights = _relative(problem.known_or_one("gradient_norms")) * np.sqrt(penalised) * (p > 0)
        return water_level(_relative(weights), problem.budget, problem.low, problem.high)


@dataclass(frozen=True)
class Vip(WithPrior):
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
    estimator : `rloo` or `dr_grpo`.

    Examples
    --------
    >>> Vip().counts(Problem([0, 4, 7], [8, 8, 8], 24, 2, 16), np.random.default_rng(0)).tolist()
    [6, 10, 8]
    """

    name: ClassVar[str] = "vip"
    estimator: str = "rloo"

    def __post_init__(self) -> None:
        require.one_of("estimator", self.estimator, ("rloo", "dr_grpo"))
        super().__post_init__()

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        first = 2 if self.estimator == "rloo" else 3
        _require_low(self, problem, first)
        p, n = problem.success_rates(self.prior), np.maximum(problem.group_sizes, first)
        variance = 1 / (n - 1) if self.estimator == "rloo" else (n - 1) / n**2
        return optimal_concave(-np.outer(p * (1 - p), variance), problem.budget, problem.low, problem.most)


@dataclass(frozen=True)
class Knapsack(WithPrior):
    """Knapsack RL (2509.25849): the exact maximum of the expected value of informative groups.

    max sum_i (1 - p^n - q^n) p q^2, q = 1 - p: the probability of a group with both outcomes, times its value.

    The value is concave in n >= 1, since its second difference is -(p^(n-1) q^2 + q^(n-1) p^2) p q^2 <= 0, so that the
    largest marginals are the optimum and the source's dynamic programme is not needed. `low` must be at least 1 (the
    source has 2): a group of none is worth 0, like a group of one, and not the formula's -p q^2.

    Changed: p is a posterior mean of the history (public re-implementations: the same, or a moving average), which is
    never 0 or 1, so that the source's fallbacks for p = 0 and p = 1 are not needed; with a known rate of 0 or 1 the
    value is 0, and the prompt stays at `low` until all others are at `high`.

    Examples
    --------
    >>> Knapsack().counts(Problem([0, 4, 7], [8, 8, 8], 24, 2, 16), np.random.default_rng(0)).tolist()
    [13, 6, 5]
    """

    name: ClassVar[str] = "knapsack"

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        _require_low(self, problem, 1)
        p, n = problem.success_rates(self.prior)[:, None], problem.group_sizes
        q = 1 - p
        # Without the constant 1, beside which small marginals would be lost.
        return optimal_concave(-(p**n + q**n) * (p * q**2), problem.budget, problem.low, problem.most)


@dataclass(frozen=True)
class Cures(WithPrior):
    """CurES (2510.01037): the water level on the standard deviation of a prompt's gradient.

    sigma^2 = p q^2 E[g_c^2] + p^2 q E[g_w^2] - p^2 q^2 (E[g_c] - E[g_w])^2, q = 1 - p, with the gradient norms of
    correct and wrong responses, `Knowledge.correct_norms` and `wrong_norms` (default 1). For norms that do not vary
    within a kind this is p q (q g_c + p g_w)^2, hence w = sqrt(p q) (q g_c + p g_w); for norms of 1, w = sqrt(p q).

    Changed: norms are taken not to vary within a kind. The source rounds without bounds, and computes the counts once,
    before training, with p = k/G; here they follow the history, with its posterior mean (the source's own estimate for
    sampling prompts, Beta(k + 1, G - k + 1)). Its sampling of prompts is no allocation and is left out.

    Examples
    --------
    >>> Cures().counts(Problem([0, 4, 7], [8, 8, 8], 24, 2, 16), np.random.default_rng(0)).tolist()
    [6, 10, 8]
    """

    name: ClassVar[str] = "cures"

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        p = problem.success_rates(self.prior)
        norms = [problem.known_or_one("correct_norms"), problem.known_or_one("wrong_norms")]
        correct, wrong = _relative(np.stack(norms))
        weights = np.sqrt(p * (1 - p)) * ((1 - p) * correct + p * wrong)
        return water_level(_relative(weights), problem.budget, problem.low, problem.high)


def _relative(values: FloatArray) -> FloatArray:
    """Scale to a largest value of 1, since the water level takes weights below 1e-8 for none."""
    scaled: FloatArray = values / values.max() if values.any() else values
    return scaled


def _require_low(rule: object, problem: Problem, minimum: int) -> None:
    if problem.low < minimum:
        raise ValueError(f"low: expected at least {minimum} for {rule}, got {problem.low}")
