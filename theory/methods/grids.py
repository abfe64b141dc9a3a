"""The grid of the paper's experiments: what its tables compare, and which values its figures try.

`toy.experiments.sweeps` trains it in tabular worlds and `scale.launch.experiments` on language models, with the same
methods, budgets and values. The paper gives the methods, the average rollouts and alpha = 0; the other values are ours.
"""

from __future__ import annotations

from typing import NamedTuple


class Budget(NamedTuple):
    """Rollouts of a prompt: on average, at least, at most.

    Attributes
    ----------
    mean, low, high : 0 <= low <= mean <= high.
    """

    mean: int
    low: int
    high: int


METHODS_OF_TABLE_1 = (
    "grpo",
    "clip-higher",
    "entropy-loss",
    "fork-tokens",
    "entropy-advantages",
    "clip-cov",
    "kl-cov",
    "w-reinforce",
    "dynamo",
)
"""Names of the methods of table 1, in its order; every baseline, and DynaMO."""

METHODS_OF_TABLE_2 = (
    "dynamo",
    "dynamo-no-gc",
    "dynamo-no-ums",
    "dynamo-no-dra",
    "dynamo-only-ums",
    "dynamo-only-dra",
    "dynamo-only-gc",
    "grpo",
)
"""Names of the methods of table 2, in its order: DynaMO, without each part and each two of them, and with none."""

STOCK, STOCK_TITLE = "stock", "GRPO (stock)"
"""What GRPO by a trainer's own code, without anything of this project, is called among the methods; it is none."""

BUDGETS = (Budget(8, 4, 12), Budget(16, 8, 24), Budget(24, 12, 36), Budget(32, 16, 48))
"""Figure 2: average rollouts, with bounds of half and one and a half of them, as the paper's [8, 24] is to 16."""

WITH_AND_WITHOUT_ALLOCATION = ("dynamo", "dynamo-no-dra")
"""The methods that figure 2 compares at every budget."""

# Figure 3: one factor of DynaMO at a time; the others stay at alpha .4, [8, 24], sharpness 50 and threshold .9.

ALPHAS = (0.0, 0.2, 0.6, 1.0)
"""Strengths of the modulation; 0 is none."""

BOUNDS = (Budget(16, 4, 28), Budget(16, 12, 20), Budget(16, 16, 16))
"""Bounds on the rollouts of a prompt; the last leave no choice."""

SHARPNESSES = (5.0, 200.0)
"""Sharpness of the stabilisation."""

THRESHOLDS = (0.5, 0.7, 0.99)
"""Threshold of the stabilisation."""
