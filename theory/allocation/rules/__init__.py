"""Every allocation rule by name, behind one protocol: published rules, the public code's, ours, and oracles.

A rule is a frozen dataclass with its published defaults. `ALLOCATORS` holds one of each; a variant is another
instance, such as `Vip(estimator="dr_grpo")`. One-shot rules (`in_rounds` false) decide before the first rollout and
spend the budget exactly. Rules in rounds roll out while they decide, through `observe`; whatever they roll out is in
the counts they return, so that rules are compared at the same total cost. The round that would overdraw the budget is
scaled down in proportion to what it asked for, by largest remainder, ties to the lower index; it is the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from theory.allocation.rules.dynamo import Dynamo, DynamoCode, Neyman, Uniform
from theory.allocation.rules.in_rounds import Dars, PilotCommit, ReinforceAda
from theory.allocation.rules.oracles import LogProgress, OracleProgress, OracleVariance
from theory.allocation.rules.protocol import Allocator, Knowledge, Observe
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
    "Knapsack",
    "Knowledge",
    "LogProgress",
    "Neyman",
    "Observe",
    "OracleProgress",
    "OracleVariance",
    "PilotCommit",
    "ReinforceAda",
    "Uniform",
    "Vip",
    "get_allocator",
    "register",
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
    name
        One of `ALLOCATORS`.

    Returns
    -------
    Allocator
        The rule.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the known names.

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
    rule
        Anything with `name`, `in_rounds` and `allocate` (see `Allocator`).

    Returns
    -------
    Allocator
        The rule.

    Raises
    ------
    ValueError
        If it is no such object, or its name is one of the rules here.

    Examples
    --------
    >>> import numpy as np
    >>> from theory.allocation import water_level
    >>> class Unsolved:
    ...     name, in_rounds = "unsolved", False
    ...
    ...     def allocate(self, successes, attempts, budget, low, high, rng, *, observe=None, knowledge=None):
    ...         return water_level(np.where(successes < attempts, 1.0, 0.0), budget, low, high)
    >>> rule = register(Unsolved())
    >>> get_allocator("unsolved").allocate(np.array([4, 2]), np.array([4, 4]), 8, 2, 6, None).tolist()
    [2, 6]
    """
    name = getattr(rule, "name", None)
    fits = isinstance(name, str) and isinstance(getattr(rule, "in_rounds", None), bool)
    if not fits or not callable(getattr(rule, "allocate", None)):
        raise ValueError(f"rule: expected an object with name, in_rounds and allocate, got {rule!r}")
    if name in _OURS:
        raise ValueError(f"rule: expected another name than those of the rules here, got {name}")
    _REGISTERED[rule.name] = rule
    return rule
