"""When DynaMO is ahead of GRPO, and which part of it: in every world, over visits and over GRPO's accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from paper_figs import horizons
from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Drawing, Figure
from paper_figs.style import METHODS, PALETTE, TEXT_WIDTH, panels, zero_line
from paper_figs.wording import TABULAR
from theory.base.text import as_drawn

METHOD = "dynamo"
PARTS = {
    METHOD: {**METHODS[METHOD]._asdict(), "label": "DynaMO"},
    "dynamo-only-dra": {"color": PALETTE[2], "linestyle": "--", "marker": "^", "label": "its allocation alone"},
    "dynamo-no-dra": {"color": PALETTE[3], "linestyle": ":", "marker": "D", "label": "its modulation alone"},
}


def _draw(cells: Sequence[CellResult]) -> Drawing:
    worlds = settings(cells)
    num_columns = min(3, len(worlds))
    num_rows = -(-len(worlds) // num_columns)
    over = [False, True] if horizons.matched(cells) else [False]
    figure, axes = panels(TEXT_WIDTH, 1.75 * num_rows * len(over), num_rows * len(over), num_columns)
    for is_matched in over:
        here = axes[num_rows * num_columns * is_matched :][: num_rows * num_columns]
        for ax in here[len(worlds) :]:
            ax.set_visible(False)
        for world, ax in zip(worlds, here, strict=False):
            _plot(ax, [cell for cell in cells if cell.setting == world], is_matched)
            ax.set_ylabel(f"gain (points), {as_drawn(world)}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(handles))
    return figure


def _plot(ax: Axes, cells: Sequence[CellResult], is_matched: bool) -> None:
    zero_line(ax)
    of = {cell.axes["method"]: cell for cell in cells if cell.differences}
    end = horizons.end_of(cells, cells[0].setting)
    for i, (method, look) in enumerate(PARTS.items()):
        if method in of and is_matched:
            horizons.plot_matched(ax, of[method], 0.7 * (i - 1), **look)
        elif method in of:
            horizons.plot_visits(ax, of[method], end, 0.7 * (i - 1), **look)
    if is_matched:
        ax.set_xlabel("pass@1 of GRPO (%)")
        ax.set_visible(bool(horizons.matched(list(of.values()))))
    else:
        horizons.set_visits(ax, list(of.values()), end)


def _caption(cells: Sequence[CellResult]) -> str:
    return (
        "DynaMO, its allocation alone and its modulation alone, minus GRPO in pass@1: first after equal numbers of "
        "visits, then at the first step at which GRPO has so much of it (mean over seeds); points are set apart "
        f"sideways; {horizons.CHOSEN}; {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts = []
    for world in settings(cells):
        of = [cell for cell in cells if cell.setting == world]
        ours = [cell for cell in of if cell.axes["method"] == METHOD]
        parts.append(f"{horizons.conditions(cells, world)}: {horizons.told(ours[0], horizons.shown(of))}.")
    return (
        f"DynaMO minus GRPO in points of pass@1. {' '.join(parts)} The paper says that DynaMO is above GRPO; its "
        f"numbers are of language models after one number of steps. {TABULAR}"
    )


FIGURE = Figure(
    name="when_ahead",
    title="When DynaMO is ahead of GRPO",
    inputs=(
        ExperimentResults(name="horizons", axes=("method",), measures=(horizons.END,), where_reached=horizons.HORIZONS),
    ),
    draw=_draw,
    caption=_caption,
    reading=_reading,
    made_by="python -m toy sweep horizons",
)
