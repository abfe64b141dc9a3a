"""Which comparisons show an effect, where a table makes many: Holm's correction, and the sign.

`Estimate.sign` is the only thing that says "ahead" or "behind". It looks at the p-value of an estimate, which
`in_family` adjusts for the comparisons beside it. Intervals are not adjusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from theory.base import require
from theory.base.arrays import FloatArray
from theory.base.tables import Estimate

SIGNS = "Student's t-test, Holm's correction"
"""How ahead and behind are decided, in words."""

MARGIN = 0.002
"""Default margin of `is_level`: two thousandths of pass@1."""


def holm(p_values: Any) -> FloatArray:
    """Adjust the p-values of a family by Holm's step-down method (Scand. J. Statist. 1979).

    The i-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1. Whatever the dependence of
    the comparisons, all adjusted values stay above .05 with probability .95 at least if there is no effect and the
    p-values are valid. Those of `paired_p_value` are, if the differences are normal; for other symmetric, continuous
    differences nearly so, and for skewed ones not (docs/statistics.md has rates).

    Parameters
    ----------
    p_values : In [0, 1], or NaN for comparisons that cannot be decided; of any shape.

    Returns
    -------
    FloatArray : The adjusted values in the same shape. NaN stays NaN and does not count.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03, np.nan]).round(3).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    p = np.asarray(p_values)
    decided = ~np.isnan(p) if p.dtype.kind == "f" else np.ones(p.shape, bool)
    known = require.numbers("p_values", p[decided], low=0.0, high=1.0)
    order = np.argsort(known, kind="stable")
    adjusted = np.empty(known.shape)
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(known.size, 0, -1) * known[order]), 1.0)
    result = np.full(p.shape, np.nan)
    result[decided] = adjusted
    return result


def in_family(estimates: Iterable[Estimate]) -> list[Estimate]:
    """Return comparisons with their p-values adjusted for one another, so that their signs may be counted.

    Parameters
    ----------
    estimates : Differences, each with the p-value of its own (`theory.statistics.paired_p_value`).

    Returns
    -------
    list of Estimate : In the same order; values and intervals stay as they are.

    Examples
    --------
    >>> [gain.p for gain in in_family([Estimate(0.1, 0.01, 0.2, 0.03), Estimate(0.2, 0.1, 0.3, 0.001)])]
    [0.03, 0.002]
    """
    family = list(estimates) if np.iterable(estimates) else [estimates]
    for gain in family:
        if not isinstance(gain, Estimate):
            raise ValueError(f"estimates: expected a list of estimates, got {type(gain).__name__}")
    adjusted = holm([gain.p for gain in family]) if family else np.zeros(0)
    return [gain._replace(p=float(p)) for gain, p in zip(family, adjusted, strict=True)]


def is_level(gain: Estimate, margin: float = MARGIN) -> bool:
    """Return whether the whole interval is within the margin on both sides of 0; an undecided gain need not be.

    Parameters
    ----------
    gain : One without interval is never level.
    margin : At least 0, in the unit of the gain.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_level(Estimate(0.0005, -0.001, 0.002)), is_level(Estimate(0.0005, -0.01, 0.011)), is_level(Estimate(0.0))
    (True, False, False)
    """
    margin = require.in_range("margin", margin, 0.0, np.inf)
    return bool(abs(gain.low) <= margin and abs(gain.high) <= margin)
