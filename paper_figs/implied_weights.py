"""Section 4.2: how many rollouts a prompt gets changes how much it counts, not only how noisy it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Columns, LedgerData
from paper_figs.style import GUIDE, PALETTE, TEXT_WIDTH, legend_above, panels
from paper_figs.wording import span

LOW, HIGH = 8, 24
"""The paper's range of rollouts per prompt (Table 3)."""

ESTIMATORS = {"rloo": "RLOO", "grpo": "GRPO"}
SHOWN = (0.02, 0.05, 0.1, 0.5)
LOOKS = (("-", "o"), ("--", "s"), (":", "D"), ("-.", "^"))
SAME = 1e-9
KINDS = {"prompt_mean": "mean over prompts", "token_mean": "mean over tokens"}


def _curve(weights: Columns, estimator: str, p: float, kind: str) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero((weights["estimator"] == estimator) & np.isclose(weights["p"], p))
    rows = rows[np.argsort(weights["num_rollouts"][rows])]
    return weights["num_rollouts"][rows], weights[kind][rows]


def gains(weights: Columns, estimator: str, kind: str) -> list[float]:
    """Return, for every p, the weight at the upper bound over that at the lower one."""
    ratios = []
    for p in np.unique(weights["p"]):
        sizes, weight = _curve(weights, estimator, p, kind)
        ends = [weight[sizes == size] for size in (LOW, HIGH)]
        if any(len(end) != 1 for end in ends):
            raise ValueError(f"A10: expected one weight of {estimator} at p = {p:g} and n = {LOW}, {HIGH}, got others")
        ratios.append(float(ends[1][0] / ends[0][0]))
    return ratios


def _draw(weights: Columns) -> Drawing:
    figure, axes = panels(TEXT_WIDTH, 4.0, 2, 2)
    for row, (estimator, title) in enumerate(ESTIMATORS.items()):
        for column, (kind, of) in enumerate(KINDS.items()):
            ax = axes[2 * row + column]
            ax.axvspan(LOW, HIGH, color="0.93", linewidth=0, zorder=-2)
            ax.axhline(1.0, color=GUIDE, linewidth=0.8, linestyle=":", zorder=-1)
            for p, color, (line, marker) in zip(SHOWN, PALETTE, LOOKS, strict=False):
                sizes, weight = _curve(weights, estimator, p, kind)
                look: dict[str, Any] = {"color": color, "linestyle": line, "marker": marker, "markevery": 5}
                ax.plot(sizes, weight, label=f"$p = {p:g}$", **look)
            ax.set(xlabel=f"rollouts of the prompt ({of})", ylabel=f"implied weight, {title}")
            ax.set_ylim(0, 1.06 * ax.get_ylim()[1])
            if np.ptp(gains(weights, estimator, kind)) < SAME:
                ax.text(20, 0.1 * ax.get_ylim()[1], "the same for every $p$", fontsize=7, ha="center", color=GUIDE)
    legend_above(axes[1], 4, handlelength=1.8)
    return figure


def _caption(weights: Columns) -> str:
    return (
        f"Weight w of a prompt's gradient in the expected update, E[g] = w grad J, over the rollouts that it gets, for "
        f"success probabilities {', '.join(f'{p:g}' for p in SHOWN)} (ledger row A10, exact moments; 1 keeps the "
        f"objective; under a mean over tokens relative to 16 rollouts); grey: the paper's range [{LOW}, {HIGH}]."
    )


def _reading(weights: Columns) -> str:
    factors = {(e, k): gains(weights, e, k) for e in ESTIMATORS for k in KINDS}
    parts = [f"{ESTIMATORS[e]} under a {KINDS[k]} {span(values, '.2f')}" for (e, k), values in factors.items()]
    stay = [
        f"{ESTIMATORS[e]} under a {KINDS[k]}" for (e, k), values in factors.items() if max(map(_off, values)) < SAME
    ]
    return (
        f"From {LOW} to {HIGH} rollouts a prompt's weight is multiplied by: {'; '.join(parts)}. The paper derives "
        f"allocation from the variance of the gradient alone, as if weights stayed; so they do for "
        f"{', '.join(stay) or 'none of these'}."
    )


def _off(factor: float) -> float:
    return abs(factor - 1)


FIGURE = Figure(
    name="implied_weights",
    title="Allocation re-weights prompts",
    inputs=(LedgerData("A10", ("num_rollouts", "p", "prompt_mean", "token_mean"), ("estimator",)),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
