"""What an allocation rule is given: a batch of prompts with their past, a budget, bounds, and what else is known."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from theory.allocation.bounds import MAX_BUDGET
from theory.allocation.variance import bernoulli_variance
from theory.base import require
from theory.base.arrays import BoolArray, FloatArray


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Optional side information on the prompts of a batch, in the order of the batch; kept as read-only copies.

    Parameters
    ----------
    success_rates : True success rates p, [N], in [0, 1]. Rules then use p in place of any estimate from the history.
    gradient_norms : Mean gradient norm of a response, [N], >= 0 (GVM).
    correct_norms, wrong_norms : Mean score norm of a correct and of a wrong response, [N], >= 0 (CurES).
    variances : Exact variance of one rollout's gradient, [N], >= 0, for `oracle-variance`.
    gains : Expected progress with n = 0, 1, ..., M rollouts, [N, M + 1], for `oracle-progress`.

    Examples
    --------
    >>> Knowledge(success_rates=np.array([0.5, 0.1])).success_rates
    array([0.5, 0.1])
    """

    success_rates: FloatArray | None = None
    gradient_norms: FloatArray | None = None
    correct_norms: FloatArray | None = None
    wrong_norms: FloatArray | None = None
    variances: FloatArray | None = None
    gains: FloatArray | None = None

    def __post_init__(self) -> None:
        given: dict[str, FloatArray] = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in given.items():
            if name == "gains":
                given[name] = require.numbers(name, value)
                if given[name].ndim != 2 or given[name].size == 0:
                    raise ValueError(f"gains: expected shape [N, M + 1], got {given[name].shape}")
            else:
                given[name] = require.vector(name, value, low=0.0, high=1.0 if name == "success_rates" else np.inf)
        for name, array in given.items():
            first = next(iter(given))
            if len(array) != len(given[first]):
                raise ValueError(f"{name}: expected the length of {first}, {len(given[first])}, got {len(array)}")
        _keep(self, **given)


@dataclass(frozen=True, eq=False)
class Problem:
    """A batch of N prompts among which a rule divides `budget` rollouts; arrays are kept as read-only copies.

    Parameters
    ----------
    successes, attempts : Counts of the past, [N], 0 <= successes <= attempts: what
        `theory.allocation.SuccessHistory.counts` returns for the keys of the batch. Fractions (of a discount) are fine.
    budget : Rollouts in total, at least N low. A one-shot rule also needs budget <= N high.
    low, high : Bounds on the rollouts of every prompt, 0 <= low <= high. The paper scales down lower bounds that exceed
        the budget (Appendix D); here that is an error.
    knowledge : Side information on the same N prompts.

    Examples
    --------
    >>> problem = Problem(successes=[1, 4], attempts=[8, 8], budget=16, low=2, high=16)
    >>> problem.num_prompts, problem.most
    (2, 14)
    >>> problem.success_rates(prior=(1.0, 1.0))
    array([0.2, 0.5])
    """

    successes: FloatArray
    attempts: FloatArray
    budget: int
    low: int
    high: int
    knowledge: Knowledge = field(default_factory=Knowledge)

    def __post_init__(self) -> None:
        k = require.vector("successes", self.successes, low=0.0)
        n = require.vector("attempts", self.attempts, low=0.0)
        require.same_shape(attempts=n, successes=k)
        require.at_most(successes=k, attempts=n)
        budget, low = require.count("budget", self.budget, 0, MAX_BUDGET), require.count("low", self.low)
        high = require.count("high", self.high, low)
        if budget < len(n) * low:
            raise ValueError(f"budget: expected at least N low = {len(n) * low}, got {budget}")
        if not isinstance(self.knowledge, Knowledge):
            raise ValueError(f"knowledge: expected a Knowledge, got {type(self.knowledge).__name__}")
        for each in fields(self.knowledge):
            value = getattr(self.knowledge, each.name)
            if value is not None and len(value) != len(n):
                raise ValueError(f"knowledge: expected {each.name} of {len(n)} prompts, got {len(value)}")
        _keep(self, successes=k, attempts=n, budget=budget, low=low, high=min(high, MAX_BUDGET))

    @property
    def num_prompts(self) -> int:
        """Number of prompts N."""
        return len(self.attempts)

    @property
    def most(self) -> int:
        """The most that one prompt can get while the others get `low`: tables need be no wider."""
        return min(self.high, self.budget - (self.num_prompts - 1) * self.low)

    @property
    def group_sizes(self) -> FloatArray:
        """Numbers of rollouts that a prompt could get, 0 to `most`."""
        return np.arange(self.most + 1, dtype=np.float64)

    def success_rates(self, prior: tuple[float, float]) -> FloatArray:
        """Return the known success rates, otherwise posterior means (k + a) / (G + a + b) under a Beta(a, b) prior."""
        if self.knowledge.success_rates is not None:
            return self.knowledge.success_rates
        return (self.successes + prior[0]) / (self.attempts + prior[0] + prior[1])

    def reward_variances(self, min_history: int) -> tuple[FloatArray, BoolArray]:
        """Return p (1 - p) or its estimate P (6), and a mask of the prompts with fewer than `min_history` attempts."""
        if self.knowledge.success_rates is not None:
            p = self.knowledge.success_rates
            return p * (1 - p), np.zeros(self.num_prompts, dtype=np.bool_)
        scarce = self.attempts < min_history
        variances = np.zeros(self.num_prompts)
        if not scarce.all():
            variances[~scarce] = bernoulli_variance(self.successes[~scarce], self.attempts[~scarce])
        return variances, scarce

    def known(self, name: str) -> FloatArray:
        """Return a field of the knowledge that a rule cannot do without."""
        value: FloatArray | None = getattr(self.knowledge, name)
        if value is None:
            raise ValueError(f"knowledge: expected {name}, got none")
        return value

    def known_or_one(self, name: str) -> FloatArray:
        """Return a field of the knowledge, or ones."""
        value: FloatArray | None = getattr(self.knowledge, name)
        return np.ones(self.num_prompts) if value is None else value


@dataclass(frozen=True, kw_only=True)
class WithPrior:
    """What rules have that estimate success rates: `prior`, the two parameters of p's Beta prior, in (0, 1e6]."""

    prior: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.prior, tuple) or len(self.prior) != 2:
            raise ValueError(f"prior: expected the two parameters of a Beta distribution, got {self.prior!r}")
        for value in self.prior:
            require.in_range("prior", value, 0.0, 1e6, open_low=True)


def _keep(owner: object, **checked: FloatArray | int) -> None:
    """Set fields of a frozen dataclass, arrays read-only."""
    for name, value in checked.items():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
        object.__setattr__(owner, name, value)
