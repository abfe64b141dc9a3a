"""Which allocation rule is best where and when, at equal cost: GRPO with every rule, pilots included in the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from paper_figs import horizons
from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Input
from paper_figs.style import GUIDE, TEXT_WIDTH, panels
from paper_figs.wording import TABULAR
from theory.base.text import as_drawn

UNIFORM, PAPER = "uniform", "dynamo"
COST = "rollouts"
CHEAP = 0.99
"""Share of the uniform rule's rollouts below which a rule's cost is written next to it."""


@dataclass(frozen=True)
class Sweeps(Input):
    """The cells of the sweep `allocation-map`, and those of `allocation-map-more` if it was run."""

    def read(self, source: Path) -> list[CellResult]:
        """Read the cells of both."""
        more = _sweep("allocation-map-more")
        return [*_sweep("allocation-map").read(source), *(more.read(source) if more.exists(source) else ())]


def _sweep(name: str) -> ExperimentResults:
    return ExperimentResults(name=name, axes=("rule",), measures=(horizons.END, COST), where_reached=horizons.HORIZONS)


def _rules(cells: Sequence[CellResult]) -> list[str]:
    """Return the rules other than uniform, in order."""
    return [rule for rule in dict.fromkeys(cell.axes["rule"] for cell in cells) if rule != UNIFORM]


def _cost(cells: Sequence[CellResult], cell: CellResult) -> float:
    """Return what a rule spends, as a share of what the uniform rule spends in that world."""
    uniform = next(c for c in cells if c.setting == cell.setting and c.axes["rule"] == UNIFORM)
    return cell.values[COST].value / uniform.values[COST].value


def _draw(cells: Sequence[CellResult]) -> Drawing:
    rules, worlds = _rules(cells), settings(cells)
    num_columns = min(3, len(worlds))
    num_rows = -(-len(worlds) // num_columns)
    measures = horizons.shown(cells)
    height = num_rows * (0.6 + (0.1 + 0.04 * len(measures)) * len(rules))
    figure, axes = panels(TEXT_WIDTH, height, num_rows, num_columns, len(worlds), sharey=True)
    for world, ax in zip(worlds, axes, strict=True):
        by_rule = {cell.axes["rule"]: cell for cell in cells if cell.setting == world}
        _plot(ax, cells, [by_rule.get(rule) for rule in rules], measures)
        ax.set(xlabel=f"change of pass@1 (points), {as_drawn(world)}")
    for ax in axes[::num_columns]:
        ax.set_yticks(range(len(rules)), [as_drawn(rule) for rule in rules])
    axes[0].invert_yaxis()
    handles, _ = axes[0].get_legend_handles_labels()
    spent: dict[str, Any] = {
        "marker": "$70\\,\\%$",
        "markersize": 14,
        "linestyle": "none",
        "color": GUIDE,
        "markeredgewidth": 0,
    }
    handles.append(Line2D([], [], label="spent of the budget, if not all", **spent))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), handletextpad=0.8)
    return figure


def _plot(
    ax: Axes, cells: Sequence[CellResult], of_rules: Sequence[CellResult | None], measures: Sequence[str]
) -> None:
    ax.axvline(0.0, color=GUIDE, linewidth=0.8, linestyle=":", zorder=0)
    there = [(y, cell) for y, cell in enumerate(of_rules) if cell is not None]
    for i, measure in enumerate(measures):
        look = horizons.LOOKS[measure]
        having = [(y, cell.differences[measure].scaled(100)) for y, cell in there if measure in cell.differences]
        heights = np.array([y for y, _ in having]) + 0.7 * ((i + 0.5) / len(measures) - 0.5)
        for height, gain in zip(heights, (gain for _, gain in having), strict=True):
            if not np.isnan(gain.low):
                ax.plot([gain.low, gain.high], [height] * 2, color=look["color"], linewidth=0.8)
        ax.plot(
            [gain.value for _, gain in having], heights, linestyle="none", marker=look["marker"], color=look["color"],
            label=look["label"], markersize=3,
        )  # fmt: skip
    for y, cell in there:
        share = _cost(cells, cell)
        if share < CHEAP:
            ax.annotate(
                f"{100 * share:.0f} %", (1.0, y), xycoords=("axes fraction", "data"), ha="right", va="center",
                fontsize=6, color=GUIDE,
            )  # fmt: skip
    low, high = ax.get_xlim()
    ax.set_xlim(low, high + 0.16 * (high - low))  # room for the costs
    ax.grid(axis="y", color="0.92", linewidth=0.5)


def _caption(cells: Sequence[CellResult]) -> str:
    return (
        "GRPO with every allocation rule minus GRPO with equal rollouts, in pass@1 after equal numbers of visits and "
        "at the end, at one budget with pilots included; percentages: what rules that stop early spend of it; "
        f"{horizons.CHOSEN}; {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts = []
    for world in settings(cells):
        of = [cell for cell in cells if cell.setting == world]
        there = horizons.shown(of)
        ours = [cell for cell in of if cell.axes["rule"] == PAPER and cell.differences]
        highest = []
        for measure in (there[0], there[-1]):
            having = [cell for cell in of if measure in cell.values]
            best = max(having, key=lambda cell: cell.values[measure].value)
            highest.append(f"{best.axes['rule']} {horizons.WHEN[measure]}")
        told = f"the paper's rule {horizons.told(ours[0], there)}; " if ours else ""
        parts.append(f"{horizons.conditions(cells, world)}: {told}highest {', '.join(dict.fromkeys(highest))}.")
    return (
        f"Against equal rollouts, in points of pass@1. {' '.join(parts)} The paper says that its allocation is better "
        f"than an equal one. {TABULAR}"
    )


FIGURE = Figure(
    name="allocation_rules",
    title="Allocation rules at one budget",
    inputs=(Sweeps(),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
