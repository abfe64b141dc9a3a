"""A row of the ledger: a claim, who made it, and the computation that judges it in a stated regime.

A judge computes numbers and derives its verdict from them, so a broken formula turns its row red. The claim also holds
the verdict that this project has recorded for the row; `python -m theory` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

ROUNDING = 1e-12
"""Largest error of an identity that counts as rounding."""


class Author(str, Enum):
    """Who made a claim; the documentation shows the text under each."""

    PAPER = "paper"
    """The paper says it, in the place that the row names."""
    CODE = "public code"
    """The authors' released code does it; the paper does not say so."""
    SUMMARY = "summary"
    """A machine-made summary, review or rebuttal of the paper says it, not its authors."""
    OURS = "this project"
    """A theorem of this project."""


class Verdict(str, Enum):
    """The verdict on a claim; the documentation shows the text under each."""

    EXACT = "exact"
    """True to rounding."""
    BOUND = "bound holds"
    """An inequality without exception; the evidence says where it is tight and how loose it gets."""
    APPROXIMATE = "approximate"
    """Not an identity; the evidence gives the error and its range."""
    CONDITIONAL = "conditional"
    """True under the stated condition and false otherwise; the evidence gives both."""
    FAILS = "fails"
    """A counter-example is given."""
    UNDECIDED = "undecided"
    """The computation contradicts an identity that it must satisfy: our formulas are broken, not the claim."""


@dataclass(frozen=True)
class Finding:
    """The result of a judge.

    The evidence is a sentence with the numbers that support the verdict; `numbers` has them by name. A claim that fails,
    or holds under a condition only, has its smallest counter-example. Where a claim is a curve, `data` has columns of
    one length for a figure.
    """

    verdict: Verdict
    evidence: str
    numbers: Mapping[str, float]
    counterexample: str | None = None
    data: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A row of the ledger.

    Attributes
    ----------
    id, statement, source : The claim, in the words of its author as far as we have them, and where they stand.
    recorded : The verdict that this project has recorded.
    judge : Computes the finding.
    said_by : Who made the claim.
    regime : Where the verdict holds: what the computation assumes of the estimator, the loss, the policy, the budget.
    by_construction : True for a row that tests our own code or copies of numbers, and could hardly come out otherwise.
    """

    id: str
    statement: str
    source: str
    recorded: Verdict
    judge: Callable[[], Finding]
    said_by: Author = Author.PAPER
    regime: str = ""
    by_construction: bool = False


def claim(
    id: str,
    statement: str,
    source: str,
    recorded: Verdict,
    *,
    said_by: Author = Author.PAPER,
    regime: str = "",
    by_construction: bool = False,
) -> Callable[[Callable[[], Finding]], Claim]:
    """Make the decorated judge a row of the ledger."""
    return lambda judge: Claim(id, statement, source, recorded, judge, said_by, regime, by_construction)


def by_column(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Turn rows of numbers and words into named columns, the `data` of a finding."""
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
