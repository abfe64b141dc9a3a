"""Appendix C: what allocation in proportion to sigma saves, without bounds and under the paper's."""

from __future__ import annotations

import numpy as np
from matplotlib.lines import Line2D

from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Columns, LedgerData
from paper_figs.style import COLUMN_WIDTH, GUIDE, PALETTE, POINTS, panels
from paper_figs.wording import verdict
from theory.allocation import optimal_variance_ratio
from theory.base.text import as_drawn

UNBOUNDED = "no bounds"
MARKERS = "osD^vP"
CLAIMED_RATIO = 0.5


def ratio_without_bounds(cv: float) -> float:
    """Return 1 / (1 + CV^2) (44), the optimum of a population with that CV: one prompt above the mean, others below."""
    num_others = max(1, int(np.ceil(cv**2)))
    below = cv / np.sqrt(num_others)
    return optimal_variance_ratio([1 + num_others * below, *[1 - below] * num_others])


def floors(allocations: Columns) -> list[float]:
    """Return mean / high of the bounds: sum v/n >= sum v/high, whatever the rule and the population."""
    bounded = allocations["kind"] != UNBOUNDED
    return sorted(set((allocations["mean"][bounded] / allocations["high"][bounded]).tolist()))


def _draw(allocations: Columns) -> Drawing:
    figure, (ax,) = panels(COLUMN_WIDTH, 2.8)
    right = max(1.0, 1.25 * float(allocations["cv"].max()))
    cv = np.concatenate([[0.0], np.geomspace(0.01, right, 200)])
    handles = ax.plot(cv, [ratio_without_bounds(x) for x in cv], color=GUIDE, linewidth=0.9, zorder=3)
    handles[0].set_label("$1/(1 + \\mathrm{CV}^2)$ (44)")
    colors = dict(zip(sorted(set(allocations["kind"])), PALETTE, strict=False))
    populations = sorted(set(allocations["population"]))
    if len(populations) > len(MARKERS):
        raise ValueError(f"A5: expected at most {len(MARKERS)} populations, got {len(populations)}")
    markers = dict(zip(populations, MARKERS, strict=False))
    for kind, color in colors.items():
        for population, marker in markers.items():
            rows = (allocations["kind"] == kind) & (allocations["population"] == population)
            ax.plot(allocations["cv"][rows], allocations["ratio"][rows], marker=marker, color=color, **POINTS)
        handles.append(Line2D([], [], marker="o", color=color, label=as_drawn(kind), **POINTS))
    handles += [Line2D([], [], marker=m, color=GUIDE, label=as_drawn(name), **POINTS) for name, m in markers.items()]
    lines = [(floor, f"floor of the bounds, {floor:.2f}", "--") for floor in floors(allocations)]
    for ratio, label, linestyle in (*lines, (CLAIMED_RATIO, 'claim "by up to 50 %"', ":")):
        ax.axhline(ratio, color=GUIDE, linewidth=0.8, linestyle=linestyle, zorder=0)
        ax.text(0.0, ratio + 0.01, f"  {label}", ha="left", va="bottom", fontsize=7, color=GUIDE)
    ax.set_xscale("symlog", linthresh=0.1, linscale=0.3)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(
        xlabel="coefficient of variation of $\\sigma$", ylabel="variance relative to uniform allocation",
        xlim=(0.0, right), ylim=(0, 1.03),
    )  # fmt: skip
    figure.legend(handles=handles, loc="outside upper right", ncols=2, columnspacing=1.0)
    return figure


def _caption(allocations: Columns) -> str:
    floor = " and ".join(f"{100 * (1 - floor):.0f} %" for floor in floors(allocations))
    return (
        f"Variance of the optimal allocation over that of the uniform one for {len(allocations['cv'])} allocations of "
        f"prompt populations (ledger row A5, exact): without bounds it is 1/(1 + CV^2), and bounds cap any reduction "
        f"at {floor}, so that 50 % is out of reach."
    )


def _reading(allocations: Columns) -> str:
    free = allocations["kind"] == UNBOUNDED
    halved = allocations["cv"][free & (allocations["ratio"] <= CLAIMED_RATIO)]
    from_cv = f"where the CV is {halved.min():.2f} or more" if len(halved) else "nowhere"
    return (
        f"Without bounds half of the variance goes {from_cv}; within the bounds at most "
        f"{100 * (1 - allocations['ratio'][~free].min()):.0f} % goes. "
        + verdict(
            "allocation lowers the variance by up to 50 %",
            [bool((allocations["ratio"][~free] <= CLAIMED_RATIO).any())],
            "settings of the bounds",
            who="A summary of the paper says",
        )
    )


FIGURE = Figure(
    name="variance_ratio",
    title="Variance ratio against the spread of deviations",
    inputs=(LedgerData("A5", ("cv", "ratio", "high", "mean"), ("kind", "population")),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
