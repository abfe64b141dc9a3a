"""A row of the ledger: a claim of the paper, and the computation that judges it.

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
    """A row of the ledger: the claim and its source, the recorded verdict, and the judge."""

    id: str
    statement: str
    source: str
    recorded: Verdict
    judge: Callable[[], Finding]


def claim(id: str, statement: str, source: str, recorded: Verdict) -> Callable[[Callable[[], Finding]], Claim]:
    """Make the decorated judge a row of the ledger."""
    return lambda judge: Claim(id, statement, source, recorded, judge)


def by_column(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Turn rows of numbers and words into named columns, the `data` of a finding."""
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
