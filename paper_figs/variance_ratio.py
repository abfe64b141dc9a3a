"""Section 4.2: what the paper's allocation does to the variance of a batch of which half is hopeless."""

from __future__ import annotations

from typing import Any

import numpy as np

from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Columns, LedgerData
from paper_figs.style import GUIDE, PALETTE, TEXT_WIDTH, panels
from paper_figs.wording import span
from theory.base.text import as_drawn

CLAIMED_RATIO = 0.5
ESTIMATORS = {"reinforce": "REINFORCE", "rloo": "RLOO", "dr_grpo": "Dr.GRPO", "grpo": "GRPO"}
POPULATIONS = {"binary": "two answers", "peaked": "peaked answers", "diffuse": "diffuse answers"}
LOOKS = (("-", "o"), ("--", "s"), (":", "D"), ("-.", "^"), ((0, (1, 2)), "v"))


def names(allocations: Columns, column: str, most: int) -> list[str]:
    """Return the texts of a column in their order."""
    found = list(dict.fromkeys(allocations[column]))
    if len(found) > most:
        raise ValueError(f"A5: expected at most {most} in {column}, got {len(found)}")
    return found


def model_floor(allocations: Columns) -> float:
    """Return mean / high of the bounds: what sum sigma^2/n keeps at least of uniform's, whatever the population."""
    floors = allocations["mean"] / allocations["high"]
    if np.ptp(floors) > 0:
        raise ValueError("A5: expected one pair of bounds and one mean, got several")
    return float(floors[0])


def halved_up_to(allocations: Columns, population: str, estimator: str) -> float:
    """Return the largest p of the hopeless half at which half of the variance is gone; 0 where it never is."""
    chosen = (allocations["population"] == population) & (allocations["estimator"] == estimator)
    return float(allocations["p"][chosen & (allocations["ratio"] <= CLAIMED_RATIO)].max(initial=0.0))


def _draw(allocations: Columns) -> Drawing:
    populations = names(allocations, "population", 3)
    estimators = names(allocations, "estimator", len(LOOKS))
    floor = model_floor(allocations)
    lines = (
        (1.0, "uniform allocation", "-"),
        (floor, f"least if the variance were $\\sigma^2/n$, {floor:.2f}", "--"),
        (CLAIMED_RATIO, 'claim "by up to 50 %"', ":"),
    )
    figure, axes = panels(TEXT_WIDTH, 2.7, 1, len(populations), sharey=True)
    for ax, population in zip(axes, populations, strict=True):
        for estimator, color, (line, marker) in zip(estimators, PALETTE, LOOKS, strict=False):
            rows = np.flatnonzero((allocations["population"] == population) & (allocations["estimator"] == estimator))
            rows = rows[np.argsort(allocations["p"][rows])]
            look: dict[str, Any] = {"color": color, "linestyle": line, "marker": marker, "markevery": 5}
            label = ESTIMATORS.get(estimator, as_drawn(estimator))
            ax.plot(allocations["p"][rows], allocations["ratio"][rows], label=label, **look)
        for ratio, label, linestyle in lines:
            ax.axhline(ratio, label=label, color=GUIDE, linewidth=0.8, linestyle=linestyle, zorder=0)
        ax.set_title(POPULATIONS.get(population, as_drawn(population)))
        ax.set(xscale="log", xlabel="success probability of the hopeless")
    axes[0].set(ylabel="variance relative to uniform", ylim=(0, None))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=4, columnspacing=1.0)
    return figure


def _caption(allocations: Columns) -> str:
    low, high, mean = (f"{allocations[name][0]:g}" for name in ("low", "high", "mean"))
    return (
        f"Exact variance of a batch's gradient under the paper's rule (p known, bounds {low} to {high} at a mean of "
        f"{mean}) over that of uniform allocation, over the success probability of the hopeless half of the batch; "
        f"the other half has p = .5 (ledger row A5, exact moments, mean over prompts)."
    )


def _reading(allocations: Columns) -> str:
    reached = []
    least = {}
    for population in names(allocations, "population", 3):
        rows = allocations["population"] == population
        least[population] = float(allocations["ratio"][rows].min())
        for estimator in names(allocations, "estimator", len(LOOKS)):
            if limit := halved_up_to(allocations, population, estimator):
                reached.append(f"{ESTIMATORS.get(estimator, estimator)} with {_of(population)} up to p = {limit:.1e}")
    where = "; ".join(reached) or "no estimator and no kind of answers here"
    left = "; ".join(f"{_of(population)} {span([value], '.2f')}" for population, value in least.items())
    return (
        f"A summary of the paper says that allocation lowers the variance by up to 50 %; so it is for {where}. The "
        f"least that is left: {left}. Were the variance sigma^2/n, the bounds would leave "
        f"{model_floor(allocations):.2f} or more."
    )


def _of(population: str) -> str:
    return POPULATIONS.get(population, population)


FIGURE = Figure(
    name="variance_ratio",
    title="Variance under the paper's allocation",
    inputs=(LedgerData("A5", ("p", "ratio", "low", "high", "mean"), ("population", "estimator")),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
