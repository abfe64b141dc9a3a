"""Figure 2: what dynamic rollout allocation is worth at several budgets."""

from __future__ import annotations

from collections.abc import Sequence

from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Drawing, Figure
from paper_figs.style import METHODS, SERIES, TEXT_WIDTH, legend_above, panels, plot_estimates, zero_line
from paper_figs.wording import counted, span, verdict
from theory.base.tables import number
from theory.base.text import as_drawn

WITH, WITHOUT = "dynamo", "dynamo-no-dra"
LOOKS = {
    WITH: {**METHODS["dynamo"]._asdict(), "label": "DynaMO"},
    WITHOUT: {**METHODS["grpo"]._asdict(), "label": "without dynamic allocation"},
}


def _of(cells: Sequence[CellResult], setting: str, method: str) -> list[CellResult]:
    chosen = [cell for cell in cells if cell.setting == setting and cell.axes["method"] == method]
    return sorted(chosen, key=lambda cell: number(cell.axes["rollouts"]))


def _draw(cells: Sequence[CellResult]) -> Drawing:
    rows = settings(cells)
    figure, axes = panels(TEXT_WIDTH, 2.3 * len(rows), len(rows), 2)
    for setting, left, right in zip(rows, axes[::2], axes[1::2], strict=True):
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
    return figure


def _caption(cells: Sequence[CellResult]) -> str:
    budgets = sorted({int(number(cell.axes["rollouts"])) for cell in cells})
    return (
        f"DynaMO with dynamic rollout allocation and without it (- DRA in Table 2) at {', '.join(map(str, budgets))} "
        "rollouts per prompt on average, bounds half and one and a half of it; end: after the last step, mean: over "
        f"all steps, points of (b) set apart sideways; {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    gains = [cell.differences["pass_at_1"] for cell in cells if "pass_at_1" in cell.differences]
    over_run = [cell.differences["pass_at_1_mean"] for cell in cells if "pass_at_1_mean" in cell.differences]
    return (
        f"With allocation, pass@1 at the end changes by {span([100 * gain.value for gain in gains])} points "
        f"({counted(gains)} of {len(gains)} budgets), and its mean over the run by "
        f"{span([100 * gain.value for gain in over_run])} points ({counted(over_run)}). "
        + verdict("dynamic allocation gains at every budget", [gain.sign > 0 for gain in gains], "budgets at the end")
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
        ),
    ),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
