"""Figure 4: DynaMO against GRPO as problems, or models, grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_figs import horizons
from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Drawing, Figure
from paper_figs.style import TEXT_WIDTH, panels, plot_estimates, zero_line
from paper_figs.wording import TABULAR
from theory.base.text import as_drawn

METHOD = "dynamo"

SERIES = {
    name: horizons.LOOKS[name] for name in ("pass_at_1_after_4_visits", "pass_at_1_after_16_visits", horizons.END)
}
"""What is drawn: horizons, the end among them, and their looks."""

# Sizes of a world: its fields, of which the first is drawn, and what it counts.
SIZES = {
    "answers": (("num_answers",), "answers of a prompt"),
    "prompts": (("num_prompts",), "prompts"),
    "length": (("length_low", "length_high"), "tokens of a chain"),
    "skills": (("num_skills", "num_decisions"), "skills"),
}


def _rest(config: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in config["world"].items() if name not in fields}


def _along(cells: Sequence[CellResult], size: str) -> list[tuple[float, CellResult]]:
    """Return the toy cells of DynaMO that differ in that size alone, ascending; also of sweeps of another size."""
    fields, _ = SIZES[size]
    ours = [cell for cell in cells if cell.is_toy and cell.axes["method"] == METHOD]
    first = next((cell for cell in ours if cell.axes["size"] == size), None)
    if first is None:
        return []
    alike = [
        cell
        for cell in ours
        if cell.setting == first.setting and _rest(cell.config, fields) == _rest(first.config, fields)
    ]
    by_size = {float(cell.config["world"][fields[0]]): cell for cell in alike}
    return sorted(by_size.items())


def _models(cells: Sequence[CellResult]) -> list[CellResult]:
    return [cell for cell in cells if not cell.is_toy and cell.axes["method"] == METHOD and cell.differences]


def _drawn(cells: Sequence[CellResult]) -> dict[str, list[tuple[float, CellResult]]]:
    """Return the series that are drawn: by size of the tabular worlds, then models."""
    by_size = {size: series for size in SIZES if (series := _along(cells, size))}
    models = _models(cells)
    return {**by_size, **({"models": list(enumerate(models))} if models else {})}


def _draw(cells: Sequence[CellResult]) -> Drawing:
    drawn = _drawn(cells)
    num_rows = -(-len(drawn) // 2)
    figure, axes = panels(TEXT_WIDTH, 2.0 * num_rows, num_rows, 2, len(drawn))
    for (size, series), ax in zip(drawn.items(), axes, strict=True):
        zero_line(ax)
        x = np.array([value for value, _ in series])
        for i, (measure, look) in enumerate(SERIES.items()):
            there = [(value, cell.differences[measure]) for value, cell in series if measure in cell.differences]
            if there:
                apart = [v + 0.06 * (i - 1) if size == "models" else v * 1.04 ** (i - 1) for v, _ in there]
                plot_estimates(ax, apart, [gain.scaled(100) for _, gain in there], **look)
        if size == "models":
            ax.set_xticks(x, [as_drawn(cell.setting) for _, cell in series])
            ax.set(xlim=(-0.5, len(x) - 0.5), xlabel="model")
        else:
            ax.set_xscale("log", base=2)
            ax.set_xticks(x, [f"{value:g}" for value in x])
            ax.minorticks_off()
            ax.set_xlabel(f"{SIZES[size][1]} (world {as_drawn(series[0][1].setting)})")
        ax.set_ylabel("DynaMO minus GRPO (points)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, handlelength=1.8)
    return figure


def _caption(cells: Sequence[CellResult]) -> str:
    toy = any(cell.is_toy for cell in cells)
    what = " as worlds grow, one size at a time and the rest as in their world (a table has no model size)" * toy
    models = " for every model" * bool(_models(cells))
    return (
        f"DynaMO minus GRPO{what}{' and' * (toy and bool(models))}{models}; more prompts in as many steps mean fewer "
        f"visits to each; {horizons.CHOSEN}; {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts = []
    for size, series in _drawn(cells).items():
        there = [(value, cell) for value, cell in series if horizons.END in cell.differences]
        ends = there if size == "models" else [there[i] for i in sorted({0, len(there) - 1})]
        told = [
            f"{cell.setting if size == 'models' else f'{value:g}'}: {horizons.told(cell, tuple(SERIES))}"
            for value, cell in ends
        ]
        parts.append(f"{size} {'; '.join(told)}")
    where = "; ".join(horizons.conditions(cells, setting) for setting in settings(cells))
    return (
        f"{where}: DynaMO minus GRPO in points of pass@1, for the smallest and the largest size: {'. '.join(parts)}. "
        "The paper says that the lead over GRPO widens from models of 1.5B to 14B parameters: premise absent, for a "
        f"table has no model size, so that there is no verdict. {TABULAR}"
    )


FIGURE = Figure(
    name="fig4_scaling",
    title="Figure 4: growing problems",
    inputs=(
        ExperimentResults(
            name="fig4",
            axes=("size", "setting", "method"),
            measures=(horizons.END,),
            worlds=False,
            scale=("method",),
            reference={"method": "grpo"},
            methods=("grpo", METHOD),
            where_reached=horizons.HORIZONS,
        ),
    ),
    draw=_draw,
    caption=_caption,
    reading=_reading,
    made_by="python -m toy sweep fig4",
)
