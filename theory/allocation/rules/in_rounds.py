"""Allocation rules that roll out, look at the outcomes, and roll out again; pilots are charged like all rollouts.

They decide from the outcomes of the current call: the history plays no part. They may spend less than the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from theory.allocation.bounds import MAX_BUDGET
from theory.allocation.rules.problem import Problem
from theory.allocation.rules.protocol import Observe, Rounds
from theory.base import require
from theory.base.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Dars:
    """DARS (2508.13755): after a pilot, more rollouts for hard prompts, to even out the cumulative advantage.

    After N rollouts with success rate p < 1/2 (p = 0 counts as 1 / (2N)), a prompt gets

        equal:     ceil((A - N S) / S) more          hardness:  ceil((2 q A - N S) / S) more

    up to `max_rollouts` in all, with S = 2 p q and A = N / 2, or S = 2 sqrt(p q) and A = N with `normalize_std`; for
    p >= 1/2 it gets none. A re-weighting of prompts by design, not a variance minimisation.

    Changed: the source ignores any budget; here the second round is fitted to it, and both rounds to [low, high].

    Parameters
    ----------
    schedule : `equal` (equal treatment) or `hardness` (hardness-weighted).
    normalize_std : Whether the advantages are divided by the standard deviation; off in the released scripts.
    pilot : Rollouts of the first round, at least 1.
    max_rollouts : Most rollouts of a prompt; the released scripts have 32 for `equal` and 64 for `hardness`.

    Examples
    --------
    >>> def observe(counts):
    ...     return counts // [8, 4, 2]
    >>> Dars().spend(Problem([0, 0, 0], [0, 0, 0], 48, 4, 32), observe, np.random.default_rng(0)).tolist()
    [19, 11, 8]
    """

    name: ClassVar[str] = "dars"
    schedule: str = "equal"
    normalize_std: bool = False
    pilot: int = 8
    max_rollouts: int = 32

    def __post_init__(self) -> None:
        require.one_of("schedule", self.schedule, ("equal", "hardness"))
        require.one_of("normalize_std", self.normalize_std, (True, False))
        pilot = require.count("pilot", self.pilot, 1, MAX_BUDGET)
        require.count("max_rollouts", self.max_rollouts, pilot, MAX_BUDGET)

    def spend(self, problem: Problem, observe: Observe, rng: np.random.Generator) -> IntArray:
        rounds = Rounds(problem, observe)
        rounds.roll_out(self.pilot)
        num = np.maximum(rounds.spent, 1)
        more = np.minimum(self._more(rounds.success_rates, num), self.max_rollouts - rounds.spent)
        rounds.roll_out(np.maximum(more, 0).astype(np.int64))
        return rounds.spent

    def _more(self, rates: FloatArray, num: FloatArray) -> FloatArray:
        p = np.clip(rates, 0.5 / num, 0.5)  # From 1/2 on, both schedules give exactly 0.
        if self.normalize_std:
            current, peak = 2 * np.sqrt(p * (1 - p)), 1.0 * num
        else:
            current, peak = 2 * p * (1 - p), 0.5 * num
        target = peak if self.schedule == "equal" else 2 * (1 - p) * peak
        # The subtrahend keeps a whole number from being rounded up by a rounding error.
        more: FloatArray = np.ceil((target - num * current) / current - 1e-9)
        return more


@dataclass(frozen=True)
class ReinforceAda:
    """Reinforce-Ada (2510.04996): rounds of rollouts for every prompt whose outcomes are not yet good enough.

    Up to `max_rounds` rounds of `round_size` rollouts; a prompt leaves after the round in which it has

        balanced:          keep // 2 successes and keep - keep // 2 failures
        positive_focused:  1 success

    Changed: the budget may end the rounds early (the source's cost is random, up to max_rounds * round_size each), and
    rounds are fitted to [low, high]. Which `keep` of the rollouts then enter the update is not a matter of allocation;
    all are charged. The rule stops on rewards, hence biases pooled success rates: see `theory.estimators.StoppingRule`.

    Parameters
    ----------
    stop : `balanced` (the released script) or `positive_focused`.
    round_size : Rollouts per round, at least 1.
    max_rounds : Rounds at most, at least 1.
    keep : Rollouts per prompt that enter the update, at least 2.

    Examples
    --------
    >>> def observe(counts):
    ...     return counts // [16, 8, 2]
    >>> ReinforceAda().spend(Problem([0, 0, 0], [0, 0, 0], 96, 4, 32), observe, np.random.default_rng(0)).tolist()
    [32, 16, 8]
    """

    name: ClassVar[str] = "reinforce-ada"
    stop: str = "balanced"
    round_size: int = 8
    max_rounds: int = 4
    keep: int = 4

    def __post_init__(self) -> None:
        require.one_of("stop", self.stop, ("balanced", "positive_focused"))
        require.count("round_size", self.round_size, 1, MAX_BUDGET)
        require.count("max_rounds", self.max_rounds, 1, MAX_BUDGET)
        require.count("keep", self.keep, 2, MAX_BUDGET)

    def spend(self, problem: Problem, observe: Observe, rng: np.random.Generator) -> IntArray:
        rounds = Rounds(problem, observe)
        positive = self.keep // 2 if self.stop == "balanced" else 1
        negative = self.keep - positive if self.stop == "balanced" else 0
        for _ in range(self.max_rounds):
            done = (rounds.successes >= positive) & (rounds.spent - rounds.successes >= negative)
            rounds.roll_out(np.where(done, 0, self.round_size))
        return rounds.spent


@dataclass(frozen=True)
class PilotCommit:
    """Pilot-Commit (2605.26606): a pilot for all prompts, and the full group for those of middling difficulty only.

    After `pilot` rollouts, prompts with min_rate <= p <= 1 - margin get `commit` more. If none is informative the pilot
    is all that is spent, and the batch goes on without a commit round (the source draws further batches).

    Changed: the source holds a constant group size and draws prompts until the batch is full; here the prompts are
    given, and the commit round is fitted to the budget and to [low, high]. Its buffer for prompts that are too hard and
    its list of prompts solved for good are state of a sampler of prompts, not of an allocation, and are left out. The
    sizes are those of its configuration, pilot 8, at its scripts' ratio of 1 to 3.

    Parameters
    ----------
    pilot : Rollouts of the first round, at least 1.
    commit : Rollouts of the second round, at least 0.
    min_rate : Smallest success rate of an informative prompt, in [0, 1].
    margin : Distance of the largest one from 1, in [0, 1].

    Examples
    --------
    >>> def observe(counts):
    ...     return counts // [16, 8, 1]
    >>> PilotCommit().spend(Problem([0, 0, 0], [0, 0, 0], 96, 4, 32), observe, np.random.default_rng(0)).tolist()
    [8, 32, 8]
    """

    name: ClassVar[str] = "pilot-commit"
    pilot: int = 8
    commit: int = 24
    min_rate: float = 0.125
    margin: float = 0.25

    def __post_init__(self) -> None:
        require.count("pilot", self.pilot, 1, MAX_BUDGET)
        require.count("commit", self.commit, 0, MAX_BUDGET)
        require.in_range("min_rate", self.min_rate, 0.0, 1.0)
        require.in_range("margin", self.margin, 0.0, 1.0 - self.min_rate)

    def spend(self, problem: Problem, observe: Observe, rng: np.random.Generator) -> IntArray:
        rounds = Rounds(problem, observe)
        rounds.roll_out(self.pilot)
        rates = rounds.success_rates
        kept = (rates >= self.min_rate) & (rates <= 1 - self.margin)
        rounds.roll_out(np.where(kept, self.commit, 0))
        return rounds.spent
