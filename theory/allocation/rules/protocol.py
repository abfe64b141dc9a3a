"""What an allocation rule is given, what it may know, and what it must return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from theory.allocation.bounds import MAX_BUDGET, first_largest
from theory.allocation.variance import bernoulli_variance
from theory.base import require
from theory.base.arrays import BoolArray, FloatArray, IntArray

Observe = Callable[[IntArray], IntArray]
"""Rolls out the given numbers of responses per prompt now, [N], and returns the successes among them, [N]."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Optional side information on the prompts of a batch, in the order of the batch.

    Parameters
    ----------
    success_rates
        True success rates p, [N], in [0, 1]. Rules then use p in place of any estimate from the history.
    gradient_norms
        Mean gradient norm of a response, [N], >= 0 (GVM).
    correct_norms, wrong_norms
        Mean score norm of a correct and of a wrong response, [N], >= 0 (CurES).
    variances
        Exact variance of one rollout's gradient, [N], >= 0, for `oracle-variance`.
    gains
        Expected progress with n = 0, 1, ..., M rollouts, [N, M + 1], for `oracle-progress`.

    Raises
    ------
    ValueError
        If a field is not finite, out of range, or of another length than the others.

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
        given: dict[str, FloatArray] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if field.name == "gains":
                given["gains"] = _table(value)
            else:
                high = 1.0 if field.name == "success_rates" else np.inf
                given[field.name] = require.vector(field.name, value, low=0.0, high=high)
        for name, array in given.items():
            first = next(iter(given))
            if len(array) != len(given[first]):
                raise ValueError(f"{name}: expected the length of {first}, {len(given[first])}, got {len(array)}")
            object.__setattr__(self, name, array)


class Problem(NamedTuple):
    """A checked allocation problem: N prompts, `budget` rollouts, between `low` and `high` for each prompt."""

    successes: FloatArray
    attempts: FloatArray
    budget: int
    low: int
    high: int
    knowledge: Knowledge

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

    def known(self, rule: str, field: str) -> FloatArray:
        """Return a field of the knowledge that the rule cannot do without."""
        value: FloatArray | None = getattr(self.knowledge, field)
        if value is None:
            raise ValueError(f"knowledge: expected {field} for the rule {rule}, got none")
        return value

    def known_or_one(self, field: str) -> FloatArray:
        """Return a field of the knowledge, or ones."""
        value: FloatArray | None = getattr(self.knowledge, field)
        return np.ones(self.num_prompts) if value is None else value


class Allocator(Protocol):
    """An allocation rule: a name, and `allocate`. Any object with these can stand beside the rules of `ALLOCATORS`.

    Attributes
    ----------
    name
        The rule's name.
    in_rounds
        Whether the rule rolls out while it decides: it then needs `observe`, and may spend less than the budget.
    """

    @property
    def name(self) -> str:
        """Name of the rule."""
        ...

    @property
    def in_rounds(self) -> bool:
        """Whether `allocate` needs `observe`."""
        ...

    def allocate(
        self,
        successes: FloatArray | IntArray,
        attempts: FloatArray | IntArray,
        budget: int,
        low: int,
        high: int,
        rng: np.random.Generator,
        *,
        observe: Observe | None = None,
        knowledge: Knowledge | None = None,
    ) -> IntArray:
        """Return how many rollouts each prompt of a batch gets (one-shot), or has had (in rounds).

        Permuting the prompts permutes the counts, except that equal claims to one rollout go to the lower index.

        Parameters
        ----------
        successes, attempts
            Counts of the past, [N], 0 <= successes <= attempts, in the order of the batch: what
            `theory.allocation.SuccessHistory.counts` returns for the batch's keys. Fractions (of a discount) are fine.
        budget
            Rollouts in total, N low <= budget; for a one-shot rule also budget <= N high.
        low, high
            Bounds on the rollouts of every prompt, 0 <= low <= high. The paper's scaling down of lower bounds that
            exceed the budget (Appendix D) is left to `theory.allocation.water_level`: here it is an error.
        rng
            Used by randomised rules only; the same generator state gives the same counts.
        observe
            Rolls out counts [N] now and returns the successes among them, [N]. One-shot rules ignore it.
        knowledge
            Side information, in the order of the batch.

        Returns
        -------
        IntArray
            Counts, [N] int64, in [low, high]. One-shot: their sum is the budget. In rounds: their sum is everything
            that was rolled out, pilots included, and at most the budget.

        Raises
        ------
        ValueError
            If an argument is out of range, the bounds cannot meet the budget, or something the rule needs is missing.
        """
        ...


@dataclass(frozen=True)
class OneShot(ABC):
    """Base of the rules that decide before the first rollout."""

    name: ClassVar[str]
    in_rounds: ClassVar[bool] = False

    def allocate(
        self,
        successes: FloatArray | IntArray,
        attempts: FloatArray | IntArray,
        budget: int,
        low: int,
        high: int,
        rng: np.random.Generator,
        *,
        observe: Observe | None = None,
        knowledge: Knowledge | None = None,
    ) -> IntArray:
        """Return counts with the sum `budget` (see `Allocator.allocate`)."""
        problem = _problem(successes, attempts, budget, low, high, rng, knowledge)
        if problem.budget > problem.num_prompts * problem.high:
            raise ValueError(
                f"budget: expected at most N high = {problem.num_prompts * problem.high}, got {problem.budget}"
            )
        return self._counts(problem)

    @abstractmethod
    def _counts(self, problem: Problem) -> IntArray: ...


@dataclass(frozen=True)
class InRounds(ABC):
    """Base of the rules that roll out, look and roll out again; every rollout is charged."""

    name: ClassVar[str]
    in_rounds: ClassVar[bool] = True

    def allocate(
        self,
        successes: FloatArray | IntArray,
        attempts: FloatArray | IntArray,
        budget: int,
        low: int,
        high: int,
        rng: np.random.Generator,
        *,
        observe: Observe | None = None,
        knowledge: Knowledge | None = None,
    ) -> IntArray:
        """Roll out through `observe` and return what was spent (see `Allocator.allocate`)."""
        problem = _problem(successes, attempts, budget, low, high, rng, knowledge)
        if not callable(observe):
            raise ValueError(f"observe: expected a function, since {self.name} spends in rounds, got {observe!r}")
        rounds = Rounds(problem, observe)
        self._spend(rounds)
        return rounds.spent

    @abstractmethod
    def _spend(self, rounds: Rounds) -> None: ...


class Rounds:
    """The account of a rule that spends in rounds: what was rolled out, what succeeded, what is left."""

    def __init__(self, problem: Problem, observe: Observe) -> None:
        self._observe = observe
        self._low, self._high = problem.low, problem.high
        self.left = problem.budget
        self.spent = np.zeros(problem.num_prompts, dtype=np.int64)
        self.successes = np.zeros(problem.num_prompts, dtype=np.int64)

    @property
    def success_rates(self) -> FloatArray:
        """Successes over rollouts of this call, 0 where there were none."""
        return np.asarray(self.successes / np.maximum(self.spent, 1))

    def roll_out(self, asked: IntArray | int) -> None:
        """Roll out what was asked, at least `low` and at most `high` per prompt in all, as far as the budget goes."""
        counts = np.clip(self.spent + asked, self._low, self._high) - self.spent
        if counts.sum() > self.left:
            counts = apportion(counts, self.left)
        if not counts.any():
            return
        got = require.vector("observe", self._observe(counts.copy()), low=0.0)
        if got.shape != counts.shape or np.any(got > counts) or np.any(got % 1):
            raise ValueError(f"observe: expected whole numbers of successes in {counts.tolist()}, got {got.tolist()}")
        self.spent = self.spent + counts
        self.successes = self.successes + got.astype(np.int64)
        self.left -= int(counts.sum())


def apportion(weights: FloatArray | IntArray, total: int) -> IntArray:
    """Split `total` in proportion to the weights, by largest remainder; ties, to 2**-30, go to the lower index."""
    shares = total * (weights / weights.sum())
    counts: IntArray = np.floor(shares).astype(np.int64)
    remainders = np.rint((shares - counts) * 2**30)
    return counts + first_largest(remainders, total - int(counts.sum()))


def checked_size(name: str, value: int, minimum: int = 0) -> int:
    """Require an integer from `minimum` to the largest budget."""
    if require.count(name, value, minimum) > MAX_BUDGET:
        raise ValueError(f"{name}: expected at most {MAX_BUDGET}, got {value}")
    return int(value)


def checked_prior(prior: tuple[float, float]) -> None:
    """Require the two parameters of a Beta prior, in (0, 1e6]."""
    if not isinstance(prior, tuple) or len(prior) != 2:
        raise ValueError(f"prior: expected the two parameters of a Beta distribution, got {prior!r}")
    for value in prior:
        require.in_range("prior", value, 0.0, 1e6, open_low=True)


def _problem(
    successes: Any, attempts: Any, budget: int, low: int, high: int, rng: Any, knowledge: Knowledge | None
) -> Problem:
    k = require.vector("successes", successes, low=0.0)
    n = require.vector("attempts", attempts, low=0.0)
    require.same_shape(attempts=n, successes=k)
    if np.any(k > n):
        index = int(np.argmax(k > n))
        raise ValueError(f"successes: expected <= attempts, got {k[index]} of {n[index]} at index {index}")
    budget, low = checked_size("budget", budget), require.count("low", low)
    high = require.count("high", high, low)
    if budget < len(n) * low:
        raise ValueError(f"budget: expected at least N low = {len(n) * low}, got {budget}")
    require.generator("rng", rng)
    knowledge = Knowledge() if knowledge is None else knowledge
    if not isinstance(knowledge, Knowledge):
        raise ValueError(f"knowledge: expected a Knowledge, got {type(knowledge).__name__}")
    for field in fields(knowledge):
        value = getattr(knowledge, field.name)
        if value is not None and len(value) != len(n):
            raise ValueError(f"knowledge: expected {field.name} of {len(n)} prompts, got {len(value)}")
    return Problem(k, n, budget, low, min(high, MAX_BUDGET), knowledge)


def _table(gains: Any) -> FloatArray:
    table = require.numbers("gains", gains)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"gains: expected shape [N, M + 1], got {table.shape}")
    return table
