"""Figure 2: what dynamic rollout allocation is worth at several budgets, and when in the training."""

from __future__ import annotations

from collections.abc import Sequence

import seaborn as sns
from matplotlib.axes import Axes

from paper_figs import horizons
from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Drawing, Figure
from paper_figs.style import METHODS, SERIES, TEXT_WIDTH, legend_above, panels, plot_estimates, zero_line
from paper_figs.wording import TABULAR, counted
from theory.base.tables import number
from theory.base.text import as_drawn

WITH, WITHOUT = "dynamo", "dynamo-no-dra"
LOOKS = {
    WITH: {**METHODS["dynamo"]._asdict(), "label": "DynaMO"},
    WITHOUT: {**METHODS["grpo"]._asdict(), "label": "without dynamic allocation"},
}

PAPER = "16"
"""Rollouts per prompt in the paper's main results: the budget whose numbers are told."""


def _of(cells: Sequence[CellResult], setting: str, method: str) -> list[CellResult]:
    chosen = [cell for cell in cells if cell.setting == setting and cell.axes["method"] == method]
    return sorted(chosen, key=lambda cell: number(cell.axes["rollouts"]))


def _has_horizons(cells: Sequence[CellResult], setting: str) -> bool:
    return any(name in cell.differences for cell in cells if cell.setting == setting for name in horizons.HORIZONS)


def _draw(cells: Sequence[CellResult]) -> Drawing:
    rows = [(setting, False) for setting in settings(cells)]
    rows += [(setting, True) for setting in settings(cells) if _has_horizons(cells, setting)]
    rows.sort(key=lambda row: settings(cells).index(row[0]))
    figure, axes = panels(TEXT_WIDTH, 2.2 * len(rows), len(rows), 2)
    for (setting, over_time), left, right in zip(rows, axes[::2], axes[1::2], strict=True):
        (_draw_horizons if over_time else _draw_end)(cells, setting, left, right)
    return figure


def _draw_end(cells: Sequence[CellResult], setting: str, left: Axes, right: Axes) -> None:
    for method, look in LOOKS.items():
        of_method = _of(cells, setting, method)
        budgets = [number(cell.axes["rollouts"]) for cell in of_method]
        plot_estimates(left, budgets, [cell.values["pass_at_1"].scaled(100) for cell in of_method], **look)
        left.set_xticks(budgets)
    left.set(xlabel="average rollouts per prompt", ylabel=f"pass@1 at the end (%), {as_drawn(setting)}")
    legend_above(left, 2)
    zero_line(right)
    for i, (measure, look) in enumerate(SERIES.items()):
        there = [cell for cell in _of(cells, setting, WITH) if measure in cell.differences]
        budgets = [number(cell.axes["rollouts"]) for cell in there]
        gains = [cell.differences[measure].scaled(100) for cell in there]
        apart = [x + 0.35 * (i - 1) for x in budgets]  # so that intervals do not cover each other
        if there:
            plot_estimates(right, apart, gains, **look)
            right.set_xticks(budgets)
    right.set(xlabel="average rollouts per prompt", ylabel="gain by allocation (points)")
    legend_above(right, 3, handlelength=1.8)


def _draw_horizons(cells: Sequence[CellResult], setting: str, left: Axes, right: Axes) -> None:
    ours = _of(cells, setting, WITH)
    end = horizons.end_of(cells, setting)
    shades = sns.color_palette("crest", len(ours)).as_hex()
    for i, (cell, color) in enumerate(zip(ours, shades, strict=True)):
        look = {"color": color, "marker": "osD^vP"[i % 6], "linestyle": ("-", "--", "-.", ":")[i % 4]}
        shift = i - (len(ours) - 1) / 2
        horizons.plot_visits(left, cell, end, shift, label=cell.axes["rollouts"], **look)
        horizons.plot_matched(right, cell, shift, **look)
    horizons.set_visits(left, ours, end)
    right.set_xlabel("pass@1 without allocation (%)")
    for ax in (left, right):
        zero_line(ax)
        ax.set_ylabel(f"gain by allocation (points), {as_drawn(setting)}")
    legend_above(left, 4, handlelength=1.8, title="rollouts per prompt")
    right.set_visible(bool(horizons.matched(ours)))


def _caption(cells: Sequence[CellResult]) -> str:
    budgets = sorted({int(number(cell.axes["rollouts"])) for cell in cells})
    return (
        f"DynaMO with dynamic rollout allocation and without it (- DRA in Table 2) at {', '.join(map(str, budgets))} "
        "rollouts per prompt on average, bounds half and one and a half of it. First row: at the end, and as a mean "
        "over all steps; second row: what allocation gains in pass@1 after equal numbers of visits, and at the step at "
        "which the runs without it have so much; points are set apart sideways. "
        f"{horizons.CHOSEN[0].upper()}{horizons.CHOSEN[1:]}; {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts = []
    for setting in settings(cells):
        ours = _of(cells, setting, WITH)
        there = horizons.shown([cell for cell in cells if cell.setting == setting])
        typical = next((cell for cell in ours if cell.axes["rollouts"] == PAPER), ours[0])
        signs = [
            f"{horizons.WHEN[measure]} {counted(gains)}"
            for measure in there
            if (gains := horizons.gains_of(ours, measure))
        ]
        parts.append(
            f"{horizons.conditions(cells, setting)}: with allocation minus without, in points of pass@1 at "
            f"{typical.axes['rollouts']} rollouts: {horizons.told(typical, there)}; of {len(ours)} budgets, "
            f"{'; '.join(signs)}."
        )
    return (
        f"{' '.join(parts)} The paper says that dynamic allocation gains at every budget; its numbers are of language "
        f"models at the end of their training. {TABULAR}"
    )


FIGURE = Figure(
    name="fig2_budgets",
    title="Figure 2: dynamic rollout allocation across budgets",
    inputs=(
        ExperimentResults(
            name="fig2",
            axes=("rollouts", "method"),
            measures=tuple(SERIES),
            worlds=False,
            scale=("rollouts", "method"),
            reference={"method": WITHOUT},
            methods=(WITH, WITHOUT),
            where_reached=horizons.HORIZONS,
        ),
    ),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
