"""Table 2: DynaMO without each of its parts, at several horizons."""

from __future__ import annotations

from collections.abc import Sequence

from paper_figs import horizons
from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Table
from paper_figs.table1_methods import columns, rows_of
from paper_figs.wording import TABULAR, span
from theory.base.tables import Column, TextTable

FULL, NONE = "dynamo", "grpo"
SINGLE = ("dynamo-no-gc", "dynamo-no-ums", "dynamo-no-dra")
PAIR, ITS_PARTS = "dynamo-only-dra", ("dynamo-no-gc", "dynamo-no-ums")
"""The paper says that removing this pair costs more than removing its parts one by one."""


def _fill(cells: Sequence[CellResult]) -> TextTable:
    measures = [*horizons.shown(cells), "pass_at_32"]
    groups = []
    for setting in settings(cells):
        rows = rows_of(cells, setting, measures)
        named = tuple(("- ALL (GRPO)" if row[0] == "GRPO" else row[0], *row[1:]) for row in rows)
        groups.append((horizons.conditions(cells, setting), named))
    return TextTable((Column("variant"), *columns(measures, "change")), tuple(groups), highest=(1,))


def _caption(cells: Sequence[CellResult]) -> str:
    return (
        "DynaMO without gradient compensation (GC), update magnitude stabilization (UMS) and dynamic rollout "
        "allocation (DRA), one and two at a time; without all three it is GRPO. pass@1 at the end in percent; changes "
        "of pass@1 after equal numbers of visits and at the end, and of pass@32 at the end: minus DynaMO, in points; a "
        f"dash: not reached; bold: the highest of a group; {horizons.CHOSEN}; {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts = []
    for setting in settings(cells):
        of = {cell.axes["method"]: cell for cell in cells if cell.setting == setting}
        first_and_end = list(dict.fromkeys(horizons.shown(list(of.values()))[i] for i in (0, -1)))
        told = [
            f"{name.removeprefix('dynamo-no-').upper()} {horizons.told(of[name], first_and_end)}"
            for name in SINGLE
            if name in of
        ]
        costs = {name: cell.differences[horizons.END].value for name, cell in of.items() if cell.differences}
        both = ""
        if {PAIR, *ITS_PARTS} <= set(costs):
            values = [100 * costs[PAIR], 100 * sum(costs[name] for name in ITS_PARTS)]
            both = (
                f"; GC and UMS together {span(values[:1])} at the end, the sum of both {span(values[1:])} (no interval)"
            )
        parts.append(f"{horizons.conditions(cells, setting)}: {'; '.join(told) or 'no part was left out alone'}{both}.")
    return (
        f"Change of pass@1 without one part, in points. {' '.join(parts)} The paper says that removing any part lowers "
        f"the average over benchmarks, and that GC and UMS together cost more than the sum of both. {TABULAR}"
    )


TABLE = Table(
    name="table2_ablations",
    title="Table 2: ablations",
    inputs=(
        ExperimentResults(
            name="table2",
            axes=("method",),
            measures=(horizons.END, "pass_at_32"),
            where_reached=horizons.HORIZONS,
            scale=("method",),
            reference={"method": FULL},
            methods=(FULL, NONE, PAIR, *SINGLE, "dynamo-only-gc", "dynamo-only-ums"),
        ),
    ),
    fill=_fill,
    caption=_caption,
    reading=_reading,
)
