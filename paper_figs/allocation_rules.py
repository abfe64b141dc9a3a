"""Which allocation rule is best where, at equal cost: GRPO with every rule, pilots included in the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Input
from paper_figs.style import GUIDE, PALETTE, TEXT_WIDTH, panels
from paper_figs.wording import counted, span, verdict
from theory.base.text import as_drawn

UNIFORM, PAPER = "uniform", "dynamo"
COST = "rollouts"
SERIES = {
    "pass_at_1": ("at the end", PALETTE[0], "o"),
    "pass_at_1_mean": ("mean over steps", PALETTE[2], "^"),
}
"""What is drawn, by measure: its label, colour and marker."""

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
    return ExperimentResults(name=name, axes=("rule",), measures=(*SERIES, COST))


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
    height = num_rows * (0.6 + 0.16 * len(rules))
    figure, axes = panels(TEXT_WIDTH, height, num_rows, num_columns, len(worlds), sharey=True)
    for world, ax in zip(worlds, axes, strict=True):
        by_rule = {cell.axes["rule"]: cell for cell in cells if cell.setting == world}
        _plot(ax, cells, [by_rule.get(rule) for rule in rules])
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


def _plot(ax: Axes, cells: Sequence[CellResult], of_rules: Sequence[CellResult | None]) -> None:
    ax.axvline(0.0, color=GUIDE, linewidth=0.8, linestyle=":", zorder=0)
    there = [(y, cell) for y, cell in enumerate(of_rules) if cell is not None]
    for i, (measure, (label, color, marker)) in enumerate(SERIES.items()):
        gains = np.array([cell.differences[measure].scaled(100)[:3] for _, cell in there])
        heights = np.array([y for y, _ in there]) + 0.3 * (i - 0.5)
        ends = np.nan_to_num(np.abs(gains[:, 1:].T - gains[:, 0]))
        ax.errorbar(gains[:, 0], heights, xerr=ends, fmt="none", ecolor=color, elinewidth=0.8)
        ax.plot(gains[:, 0], heights, linestyle="none", marker=marker, color=color, label=label, markersize=3)
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
        "GRPO with every allocation rule minus GRPO with equal rollouts, in pass@1, at one budget with pilots "
        f"included; percentages: what rules that stop early spend of it; {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    worlds = settings(cells)
    leaders = {}
    for world in worlds:
        final = {c.axes["rule"]: c.values["pass_at_1"].value for c in cells if c.setting == world}
        leaders[world] = max(final, key=final.__getitem__)
    gains = [cell.differences["pass_at_1"] for cell in cells if cell.axes["rule"] == PAPER and cell.differences]
    return (
        f"Highest pass@1 at the end: {', '.join(f'{rule} in {world}' for world, rule in leaders.items())}; the "
        f"paper's rule changes it by {span([100 * gain.value for gain in gains])} points "
        f"({counted(gains)} of {len(gains)} worlds). "
        + verdict("its allocation beats equal rollouts", [gain.sign > 0 for gain in gains], "worlds at the end")
    )


FIGURE = Figure(
    name="allocation_rules",
    title="Allocation rules at one budget",
    inputs=(Sweeps(),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
