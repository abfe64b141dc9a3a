"""Every allocation rule by name, behind one protocol: published rules, the public code's, ours, and oracles.

A rule is an object with a `name` and one of two methods. One-shot rules have `counts`: they decide before the first
rollout and spend the budget exactly. Rules in rounds have `spend`: they roll out while they decide; whatever they roll
out is in the counts they return, so that rules are compared at the same total cost. Both keep every prompt within
[low, high]. `allocate` asks any rule, and checks what comes back.

The rules here are frozen dataclasses with their published defaults. `ALLOCATORS` holds one of each; a variant is
another instance, such as `Vip(estimator="dr_grpo")`. Permuting the prompts permutes their counts, except that equal
claims to one rollout go to the lower index.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from theory.allocation.rules.dynamo import Dynamo, DynamoCode, Neyman, Uniform
from theory.allocation.rules.in_rounds import Dars, PilotCommit, ReinforceAda
from theory.allocation.rules.oracles import LogProgress, OracleProgress, OracleVariance
from theory.allocation.rules.problem import Knowledge, Problem
from theory.allocation.rules.protocol import (
    Allocator,
    InRounds,
    Observe,
    OneShot,
    Rounds,
    allocate,
    spends_in_rounds,
)
from theory.allocation.rules.published import Cures, Gvm, Knapsack, Vip
from theory.base import require

__all__ = [
    "ALLOCATORS",
    "ORACLES",
    "Allocator",
    "Cures",
    "Dars",
    "Dynamo",
    "DynamoCode",
    "Gvm",
    "InRounds",
    "Knapsack",
    "Knowledge",
    "LogProgress",
    "Neyman",
    "Observe",
    "OneShot",
    "OracleProgress",
    "OracleVariance",
    "PilotCommit",
    "Problem",
    "ReinforceAda",
    "Rounds",
    "Uniform",
    "Vip",
    "allocate",
    "get_allocator",
    "register",
    "spends_in_rounds",
]

_RULES: tuple[Allocator, ...] = (
    Uniform(),
    Dynamo(),
    DynamoCode(),
    Neyman(),
    Gvm(),
    Vip(),
    Knapsack(),
    Cures(),
    Dars(),
    ReinforceAda(),
    PilotCommit(),
    LogProgress(),
    OracleVariance(),
    OracleProgress(),
)
_OURS = frozenset(rule.name for rule in _RULES)
_REGISTERED: dict[str, Allocator] = {rule.name: rule for rule in _RULES}

ALLOCATORS: Mapping[str, Allocator] = MappingProxyType(_REGISTERED)
"""The rules with their default parameters, by name; `register` adds to them."""

ORACLES = ("oracle-variance", "oracle-progress")
"""Rules that need exact moments of the policy gradient, which only a tabular world has."""


def get_allocator(name: str) -> Allocator:
    """Return the rule of a name, with its default parameters.

    Parameters
    ----------
    name : One of `ALLOCATORS`.

    Returns
    -------
    Allocator : The rule; another instance of its class has other parameters.

    Examples
    --------
    >>> get_allocator("dynamo")
    Dynamo(min_history=4)
    """
    require.one_of("name", name, ALLOCATORS)
    return ALLOCATORS[name]


def register(rule: Allocator) -> Allocator:
    """Add a rule of one's own to `ALLOCATORS`, so that a method can name it; a later one of the same name replaces it.

    Parameters
    ----------
    rule : Any object with a `name`, which is none of the names here, and one of `counts` and `spend`.

    Returns
    -------
    Allocator : `rule` itself, which `ALLOCATORS` now holds.

    Examples
    --------
    >>> import numpy as np
    >>> from theory.allocation import water_level
    >>> class Unsolved:
    ...     name = "unsolved"
    ...
    ...     def counts(self, problem, rng):
    ...         weights = np.where(problem.successes < problem.attempts, 1.0, 0.0)
    ...         return water_level(weights, problem.budget, problem.low, problem.high)
    >>> rule = register(Unsolved())
    >>> allocate(get_allocator("unsolved"), Problem([4, 2], [4, 4], 8, 2, 6), np.random.default_rng(0)).tolist()
    [2, 6]
    """
    spends_in_rounds(rule)  # checks the rule
    if rule.name in _OURS:
        raise ValueError(f"rule: expected another name than those of the rules here, got {rule.name}")
    _REGISTERED[rule.name] = rule
    return rule
