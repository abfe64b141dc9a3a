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

from theory import _checks
from theory.rules._in_rounds import Dars, PilotCommit, ReinforceAda
from theory.rules._one_shot import (
    Cures,
    Dynamo,
    DynamoCode,
    Gvm,
    Knapsack,
    LogProgress,
    Neyman,
    OracleProgress,
    OracleVariance,
    Uniform,
    Vip,
)
from theory.rules._protocol import Allocator, Knowledge, Observe

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
ALLOCATORS: Mapping[str, Allocator] = MappingProxyType({rule.name: rule for rule in _RULES})
"""The rules with their default parameters, by name."""

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
    _checks.one_of("name", name, ALLOCATORS)
    return ALLOCATORS[name]
