"""What an allocation rule is, and the one function that asks it for counts and checks what comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from theory.allocation.bounds import first_largest
from theory.allocation.rules.problem import Problem
from theory.base import require
from theory.base.arrays import FloatArray, IntArray

Observe = Callable[[IntArray], IntArray]
"""Rolls out the given numbers of responses per prompt now, [N], and returns the successes among them, [N]."""


class OneShot(Protocol):
    """A rule that decides before the first rollout."""

    @property
    def name(self) -> str:
        """Name of the rule."""
        ...

    def counts(self, problem: Problem, rng: np.random.Generator) -> IntArray:
        """Return the rollouts of every prompt, [N]: whole numbers in [low, high] whose sum is the budget."""
        ...


class InRounds(Protocol):
    """A rule that rolls out while it decides; `Rounds` keeps its account."""

    @property
    def name(self) -> str:
        """Name of the rule."""
        ...

    def spend(self, problem: Problem, observe: Observe, rng: np.random.Generator) -> IntArray:
        """Roll out through `observe`, and return everything that was rolled out, pilots included, [N].

        Whole numbers in [low, high], whose sum is at most the budget. `observe` refuses what would exceed either.
        """
        ...


Allocator = OneShot | InRounds
"""A rule: any object with a `name` and one of the methods `counts` and `spend`."""


def spends_in_rounds(rule: Allocator) -> bool:
    """Return whether a rule rolls out while it decides (it has `spend`), or decides before (it has `counts`).

    Examples
    --------
    >>> from theory.allocation import get_allocator
    >>> [spends_in_rounds(get_allocator(name)) for name in ("dynamo", "dars")]
    [False, True]
    """
    counts, spend = (callable(getattr(rule, method, None)) for method in ("counts", "spend"))
    if isinstance(rule, type) or counts == spend or not isinstance(getattr(rule, "name", None), str):
        raise ValueError(f"rule: expected an object with a name and one of counts and spend, got {rule!r}")
    return spend


def allocate(rule: Allocator, problem: Problem, rng: np.random.Generator, observe: Observe | None = None) -> IntArray:
    """Return how many rollouts each prompt of a batch gets (one-shot), or has had (in rounds), after checking them.

    Parameters
    ----------
    rule : One of `ALLOCATORS`, or any other object of the kind.
    problem : The batch, its budget and its bounds.
    rng : For rules that draw; the same generator state gives the same counts.
    observe : Rolls out counts [N] now and returns the successes among them, [N]. One-shot rules do not need it.

    Returns
    -------
    IntArray : Counts, [N] int64, in [low, high]. One-shot: their sum is the budget. In rounds: their sum is everything
        that was rolled out, and at most the budget.

    Raises
    ------
    ValueError
        If the budget of a one-shot rule exceeds N high; and, beginning with "rule <name>", if the rule fails or breaks
        its contract: counts that are no whole numbers (16.0 is one, 16.9 is not), have another shape, leave the bounds
        or miss the budget; in rounds also counts that were not asked of `observe`. A round that would exceed `high` or
        the budget is refused before anything is rolled out.

    Examples
    --------
    >>> from theory.allocation import get_allocator
    >>> problem = Problem([0, 4, 8], [8, 8, 8], budget=24, low=2, high=16)
    >>> allocate(get_allocator("dynamo"), problem, np.random.default_rng(0)).tolist()
    [4, 16, 4]
    """
    in_rounds = spends_in_rounds(rule)
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: expected a Problem, got {type(problem).__name__}")
    require.generator("rng", rng)
    most = problem.num_prompts * problem.high
    if in_rounds and not callable(observe):
        raise ValueError(f"observe: expected a function, since {rule.name} spends in rounds, got {observe!r}")
    if not in_rounds and problem.budget > most:
        raise ValueError(f"budget: expected at most N high = {most}, got {problem.budget}")
    try:
        return _spent(rule, problem, rng, observe) if in_rounds else _decided(rule, problem, rng)
    except _RolloutsFailed as failure:
        raise failure.error from failure.error.__cause__
    except ValueError as error:
        raise ValueError(f"rule {rule.name}: {error}") from error
    except Exception as error:
        raise ValueError(f"rule {rule.name}: expected counts, got {type(error).__name__}: {error}") from error


def _decided(rule: Any, problem: Problem, rng: np.random.Generator) -> IntArray:
    counts = _whole("counts", rule.counts(problem, rng), problem, problem.low)
    if counts.sum() != problem.budget:
        raise ValueError(f"counts: expected the sum {problem.budget}, the budget, got {counts.sum()}")
    return counts


def _spent(rule: Any, problem: Problem, rng: np.random.Generator, observe: Any) -> IntArray:
    account = _Account(problem, observe)
    counts = _whole("counts", rule.spend(problem, account, rng), problem, problem.low)
    if np.any(counts != account.spent):
        index = int(np.argmax(counts != account.spent))
        raise ValueError(
            f"counts: expected what was rolled out, {account.spent[index]} at index {index}, got {counts[index]}"
        )
    return counts


class _RolloutsFailed(Exception):
    """What `observe` raised: no fault of the rule that asked."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Account:
    """The function that a rule in rounds observes through: it checks what is asked for, and what is observed."""

    def __init__(self, problem: Problem, observe: Observe) -> None:
        self._problem, self._observe = problem, observe
        self.spent = np.zeros(problem.num_prompts, dtype=np.int64)

    def __call__(self, asked: Any) -> IntArray:
        counts = _whole("round", asked, self._problem)
        spent = self.spent + counts
        if spent.max() > self._problem.high:
            raise ValueError(f"round: expected at most high = {self._problem.high} in all, got {spent.max()}")
        if spent.sum() > self._problem.budget:
            raise ValueError(f"round: expected at most the budget {self._problem.budget} in all, got {spent.sum()}")
        self.spent = spent
        if not counts.any():
            return counts
        try:
            observed = self._observe(counts.copy())
        except Exception as error:
            raise _RolloutsFailed(error) from error
        got = require.vector("observe", observed, low=0.0)
        if got.shape != counts.shape or np.any(got > counts) or np.any(got % 1):
            raise ValueError(f"observe: expected whole numbers of successes in {counts.tolist()}, got {got.tolist()}")
        return got.astype(np.int64)


def _whole(name: str, value: Any, problem: Problem, low: int = 0) -> IntArray:
    """Require whole numbers in [low, high], one for each prompt."""
    x = require.vector(name, value, low=low, high=problem.high)
    if x.shape != problem.attempts.shape:
        raise ValueError(f"{name}: expected shape {problem.attempts.shape}, got {x.shape}")
    if np.any(x % 1):
        raise ValueError(f"{name}: expected whole numbers, got {x[x % 1 != 0][0]}")
    return x.astype(np.int64)


class Rounds:
    """The account of a rule that spends in rounds: what was rolled out, what succeeded, what is left.

    Parameters
    ----------
    problem, observe : As `InRounds.spend` is given them.

    Attributes
    ----------
    spent, successes : Rollouts so far, and the successes among them, [N] int64.
    left : What is left of the budget.

    Examples
    --------
    >>> rounds = Rounds(Problem([0, 0], [0, 0], budget=20, low=2, high=16), lambda counts: counts // [4, 1])
    >>> rounds.roll_out(8)
    >>> rounds.roll_out(np.where(rounds.success_rates < 0.5, 8, 0))
    >>> rounds.spent.tolist(), rounds.successes.tolist(), rounds.left
    ([12, 8], [3, 8], 0)
    """

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
        """Roll out what was asked, at least `low` and at most `high` per prompt in all, as far as the budget goes.

        Where the budget does not cover a round, `low` is covered, and the rest of the round is scaled down in
        proportion, by largest remainder, ties to the lower index. Such a round is the last one.
        """
        floor = np.maximum(self._low - self.spent, 0)
        counts = np.clip(self.spent + asked, self._low, self._high) - self.spent
        if counts.sum() > self.left:
            counts = floor + apportion(counts - floor, self.left - int(floor.sum()))
        self.successes = self.successes + self._observe(counts)
        self.spent = self.spent + counts
        self.left -= int(counts.sum())


def apportion(weights: FloatArray | IntArray, total: int) -> IntArray:
    """Split `total` in proportion to the weights, by largest remainder; ties, to 2**-30, go to the lower index."""
    shares = total * (weights / weights.sum())
    counts: IntArray = np.floor(shares).astype(np.int64)
    remainders = np.rint((shares - counts) * 2**30)
    return counts + first_largest(remainders, total - int(counts.sum()))
