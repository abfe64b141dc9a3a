"""Table 1 at equal progress: the methods at the steps at which GRPO has so much of pass@1."""

from __future__ import annotations

from collections.abc import Sequence

from paper_figs import horizons
from paper_figs.experiments import INTERVALS, CellResult, about, settings
from paper_figs.figure import Table
from paper_figs.table1_methods import METHOD, Methods
from paper_figs.wording import TABULAR, title
from theory.base.tables import Column, TextTable


def _fill(cells: Sequence[CellResult]) -> TextTable:
    measures = horizons.matched(cells)
    groups = []
    for setting in settings(cells):
        of = [c for c in cells if c.setting == setting and any(name in c.differences for name in measures)]
        rows = tuple((title(cell.axes["method"]), *horizons.differences(cell, measures)) for cell in of)
        groups += [(horizons.conditions(cells, setting), rows)] if rows else []
    return TextTable((Column("method"), *horizons.columns(measures, "gain")), tuple(groups))


def _caption(cells: Sequence[CellResult]) -> str:
    toy = [cell for cell in cells if cell.is_toy]
    return (
        "Gain in pass@1 over GRPO, in points, at the first step at which GRPO has that much of pass@1 (mean over "
        f"seeds); a dash: GRPO starts above it, or does not get there; {about(toy)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts = []
    for setting in settings(cells):
        ours = [c for c in cells if c.setting == setting and c.axes["method"] == METHOD and horizons.matched([c])]
        parts += [f"{horizons.conditions(cells, setting)}: {horizons.told(c, horizons.matched([c]))}" for c in ours]
    told = "; ".join(parts) or "GRPO gets to none of these"
    return (
        f"DynaMO minus GRPO in points of pass@1, where GRPO has so much. {told}. The paper has no such comparison. "
        f"{TABULAR}"
    )


TABLE = Table(
    name="table1_matched",
    title="Table 1 at equal progress of GRPO",
    inputs=(Methods(),),
    fill=_fill,
    caption=_caption,
    reading=_reading,
)
