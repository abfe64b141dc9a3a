"""What is said of results: names of methods, and sentences that follow from the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paper_figs.findings.words import signed
from theory.base.tables import Column, Estimate
from theory.methods import METHODS, STOCK, STOCK_TITLE


def title(method: str) -> str:
    """Return a method's name in the paper; its own where the paper has none."""
    return STOCK_TITLE if method == STOCK else METHODS[method].title if method in METHODS else method


def verdict(statement: str, holds: Sequence[bool], of: str, who: str = "The paper says") -> str:
    """Say of how many exact comparisons a statement is true; what was trained is told by its numbers instead.

    Examples
    --------
    >>> verdict("it helps", [True, False], "worlds")
    'The paper says that it helps; here this appears in 1 of 2 worlds.'
    """
    count, total = sum(holds), len(holds)
    share = f"all {total} {of}" if count == total > 1 else f"{count or 'none'} of {total} {of}"
    if total == 1:
        return f"{who} that {statement}; here this {'appears' if count else 'does not appear'}."
    return f"{who} that {statement}; here this appears in {share}."


TABULAR = "A tabular world is no evidence about language models."
"""What every reading of the toy ends with."""


def points(gain: Estimate) -> str:
    """Return a difference in points, with its interval.

    Examples
    --------
    >>> points(Estimate(0.0187, 0.0178, 0.0194))
    '+1.87 [+1.78, +1.94]'
    """
    return Column("", signed=True).text(gain.scaled(100))


def counted(gains: Iterable[Estimate]) -> str:
    """Say how many differences of a family are above 0, below, or undecided (`Estimate.sign`).

    Examples
    --------
    >>> counted([Estimate(2.0, 1.0, 3.0, p=0.01), Estimate(-2.0, -3.0, -1.0, p=0.04), Estimate(0.5, 0.1, 0.9, p=0.2)])
    'ahead in 1, behind in 1, undecided in 1'
    """
    signs = [gain.sign for gain in gains]
    return f"ahead in {signs.count(1)}, behind in {signs.count(-1)}, undecided in {signs.count(0)}"


def span(values: Sequence[float], spec: str = "+.2f") -> str:
    """Return the least and largest of some numbers.

    Examples
    --------
    >>> span([0.5, -0.25])
    '−0.25 to +0.50'
    >>> span([0.5]), span([-0.001])
    ('+0.50', '0.00')
    """
    ends = [signed(x, spec) for x in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
