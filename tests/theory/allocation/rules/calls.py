"""Calls of rules: every rule and its variants, batches, and observers that keep account."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from theory import allocation
from theory.allocation.rules import (
    ALLOCATORS,
    Dars,
    Knowledge,
    LogProgress,
    Problem,
    ReinforceAda,
    Vip,
    spends_in_rounds,
)

ONE_SHOT = [name for name, rule in ALLOCATORS.items() if not spends_in_rounds(rule)]
IN_ROUNDS = [name for name, rule in ALLOCATORS.items() if spends_in_rounds(rule)]
VARIANTS = [
    *ALLOCATORS.values(),
    Vip(estimator="dr_grpo"),
    LogProgress("maxrl", "prompt-mean", "success", prior=(0.5, 2.0)),
    Dars(schedule="hardness", max_rollouts=64),
    Dars(normalize_std=True),
    ReinforceAda(stop="positive_focused"),
]
every_rule = pytest.mark.parametrize("rule", VARIANTS, ids=repr)


@dataclass
class Recorder:
    """Rolls out Bernoulli(p) responses, each prompt from its own stream, and keeps account of what it was asked for."""

    rates: np.ndarray
    asked: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self):
        self.streams = [np.random.default_rng(int(p * 2**32)) for p in self.rates]

    def __call__(self, counts):
        """Return the successes among `counts` new responses."""
        self.asked.append(counts.copy())
        rolls = zip(self.streams, self.rates, counts, strict=True)
        return np.array([stream.binomial(n, p) for stream, p, n in rolls], dtype=np.int64)

    @property
    def charged(self):
        """Everything that was rolled out, per prompt."""
        return np.sum(self.asked, axis=0) if self.asked else np.zeros(len(self.rates), dtype=np.int64)


def scripted(*successes):
    """Return a function that observes the given successes round after round, whatever the counts."""
    rounds = iter(successes)
    return lambda counts: np.minimum(next(rounds), counts)


def allocate(rule, budget, low, high, *, successes=None, attempts=None, num=None, observe=None, seed=0, **knowledge):
    """Call the rule; success rates or other knowledge by keyword, no history unless given."""
    fields = {name: np.asarray(value, dtype=np.float64) for name, value in knowledge.items()}
    num = num or len(next(iter([attempts] if attempts is not None else fields.values())))
    past = (np.zeros(num) if x is None else x for x in (successes, attempts))
    problem = Problem(*past, budget, low, high, Knowledge(**fields))
    return allocation.allocate(rule, problem, np.random.default_rng(seed), observe)


def batch(rng, num=12, high=24):
    """Return a random history, and knowledge that serves every rule."""
    attempts = rng.integers(0, 40, size=num)
    p = rng.uniform(0.02, 0.98, size=num)
    knowledge = {
        "success_rates": p,
        "gradient_norms": rng.uniform(0.5, 2.0, size=num),
        "correct_norms": rng.uniform(0.5, 2.0, size=num),
        "wrong_norms": rng.uniform(0.5, 2.0, size=num),
        "variances": rng.uniform(size=num),
        "gains": np.cumsum(rng.uniform(size=(num, high + 1)), axis=1),
    }
    return rng.integers(attempts + 1), attempts, knowledge


def call(rule, rng, observe, **problem):
    """Ask the rule, with the fields of a problem by name."""
    return allocation.allocate(rule, Problem(**problem), rng, observe)


def good_call(rule):
    """Return arguments of `call` that serve every rule."""
    knowledge = Knowledge(variances=np.ones(2), gains=np.tile(np.sqrt(np.arange(17.0)), (2, 1)))
    return {
        "successes": [3.0, 4.0],
        "attempts": [8.0, 8.0],
        "budget": 16,
        "low": 3,
        "high": 16,
        "rng": np.random.default_rng(0),
        "observe": Recorder(np.array([0.3, 0.6])) if spends_in_rounds(rule) else None,
        "knowledge": knowledge,
    }
