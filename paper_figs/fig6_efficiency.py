"""Figure 6: what a training step costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paper_figs.experiments import CellResult, ExperimentResults, seeds_and_intervals, settings
from paper_figs.figure import Drawing, Figure
from paper_figs.style import GUIDE, METHODS, PALETTE, TEXT_WIDTH, panels
from paper_figs.wording import span, title
from theory import methods
from theory.base.text import as_drawn

MEASURE, BASELINE, METHOD = "seconds_per_step", "grpo", "dynamo"


def _in(cells: Sequence[CellResult], setting: str) -> dict[str, CellResult]:
    """Return the cells of a setting by method, in the order of the table of methods."""
    by_method = {cell.axes["method"]: cell for cell in cells if cell.setting == setting}
    return {name: by_method[name] for name in (*methods.METHODS, *by_method) if name in by_method}


def _extra(cells: Sequence[CellResult], setting: str) -> dict[str, float]:
    """Return by how many percent a step of every other method takes longer than GRPO's; none without GRPO."""
    by_method = _in(cells, setting)
    base = by_method[BASELINE].values[MEASURE].value if BASELINE in by_method else np.nan
    return {
        name: 100 * (cell.values[MEASURE].value / base - 1)
        for name, cell in by_method.items()
        if name != BASELINE and not np.isnan(base)
    }


def _draw(cells: Sequence[CellResult]) -> Drawing:
    rows = settings(cells)
    num_bars = max(len(_in(cells, setting)) for setting in rows)
    num_columns = min(2, len(rows))
    num_rows = -(-len(rows) // num_columns)
    figure, axes = panels(TEXT_WIDTH, num_rows * (0.55 + 0.17 * num_bars), num_rows, num_columns, len(rows))
    for setting, ax in zip(rows, axes, strict=True):
        by_method, extra = _in(cells, setting), _extra(cells, setting)
        seconds = [cell.values[MEASURE] for cell in by_method.values()]
        looks: list[dict[str, Any]] = [
            {"color": METHODS[name].color if name in METHODS else PALETTE[7], "hatch": "///" * (name == METHOD)}
            for name in by_method
        ]
        heights = range(len(by_method))
        for y, value, look in zip(heights, seconds, looks, strict=True):
            ax.barh(y, value.value, height=0.7, edgecolor="white", linewidth=0, **look)
            if not np.isnan(value.low):
                ends = [[value.value - value.low], [value.high - value.value]]
                ax.errorbar(value.value, y, xerr=ends, fmt="none", ecolor=GUIDE, elinewidth=0.8, capsize=1.5)
        for y, name, value in zip(heights, by_method, seconds, strict=True):
            text = span([extra[name]], "+.0f") + " %" if name in extra else ""
            ax.text(np.nanmax([value.value, value.high]), y, f" {text}", va="center", fontsize=7, color=GUIDE)
        ax.set_yticks(heights, [as_drawn(title(name)) for name in by_method])
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set(xlabel=f"seconds per step, {as_drawn(setting)}")
    return figure


def _caption(cells: Sequence[CellResult]) -> str:
    toy = settings([cell for cell in cells if cell.is_toy])
    models = settings([cell for cell in cells if not cell.is_toy])
    parts = []
    if toy:
        counts = {cell.num_seeds for cell in cells if cell.is_toy}
        parts.append(
            f"tabular world{'s' * (len(toy) > 1)} {', '.join(toy)}: one run of {' or '.join(map(str, sorted(counts)))} "
            "seeds together, so that there is no interval"
        )
    for model in models:
        counts = {cell.num_seeds for cell in cells if cell.setting == model}
        parts.append(f"{model} in verl: {seeds_and_intervals(counts)}")
    return (
        f"Wall time of a training step by method, and what it takes more than GRPO's; {'; '.join(parts)}; times are of "
        "one machine and not reproducible."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts = []
    for setting in settings(cells):
        extra = _extra(cells, setting)
        ours = f"DynaMO {span([extra[METHOD]], '+.0f')} %" if METHOD in extra else "DynaMO is not there"
        others = [x for name, x in extra.items() if name != METHOD]
        compared = f", the other methods {span(others, '+.0f')} %" if others else ""
        parts.append(f"{setting}: {ours}{compared}")
    return (
        f"Time per step against GRPO's: {'; '.join(parts)}. The paper says that DynaMO's time is comparable, beside "
        "that of a language model; a tabular step has no model to run, so that these are times only and no verdict."
    )


FIGURE = Figure(
    name="fig6_efficiency",
    title="Figure 6: time per step",
    inputs=(
        ExperimentResults(
            name="fig6", axes=("method",), measures=(MEASURE,), scale=("method",), reference={"method": BASELINE}
        ),
    ),
    draw=_draw,
    caption=_caption,
    reading=_reading,
    made_by="python -m toy sweep fig6 --jobs 1",
)
