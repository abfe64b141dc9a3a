"""Table 2: DynaMO without each of its parts."""

from __future__ import annotations

from collections.abc import Sequence

from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Table
from paper_figs.table1_methods import PUBLISHED, kind, printed, rows_of
from paper_figs.wording import span, verdict
from theory.base.tables import Column, TextTable, Value
from theory.claims.published import TABLE_2

FULL, NONE = "dynamo", "grpo"
SINGLE = ("dynamo-no-gc", "dynamo-no-ums", "dynamo-no-dra")
PAIR, ITS_PARTS = "dynamo-only-dra", ("dynamo-no-gc", "dynamo-no-ums")
"""The paper says that removing this pair costs more than removing its parts one by one."""

COLUMN_MEASURES = ("pass_at_1", "pass_at_1_mean", "pass_at_32")
COLUMNS = (
    Column("variant"),
    Column("pass@1 (%)"),
    Column("change", signed=True),
    Column("mean pass@1 (%)"),
    Column("change of mean", signed=True),
    Column("pass@32 (%)"),
    Column("change of pass@32", signed=True),
)


def _published() -> tuple[tuple[Value, ...], ...]:
    full = TABLE_2["DynaMO"][1]
    rows = []
    for name, (_, average) in TABLE_2.items():
        change = None if name == "DynaMO" else printed(average - full, "+")
        rows.append((name if name == "DynaMO" else f"- {name}", printed(average), change, None, None, None, None))
    return tuple(rows)


def _fill(cells: Sequence[CellResult]) -> TextTable:
    groups = []
    for setting in settings(cells):
        rows = rows_of(cells, setting, COLUMN_MEASURES)
        named = tuple(("- ALL (GRPO)" if row[0] == "GRPO" else row[0], *row[1:]) for row in rows)
        groups.append((kind(cells, setting), named))
    return TextTable(COLUMNS, (*groups, ("Qwen2.5-Math-7B (published)", _published())), highest=(1, 3, 5))


def _caption(cells: Sequence[CellResult]) -> str:
    return (
        "DynaMO without gradient compensation (GC), update magnitude stabilization (UMS) and dynamic rollout "
        "allocation (DRA), one and two at a time; without all three it is GRPO. pass@1 and pass@32 at the end and the "
        "mean of pass@1 over all steps, in percent; changes: minus DynaMO, in points; bold: the highest of a group; "
        f"{about(cells)}; {INTERVALS}. {PUBLISHED.format(table=2)}"
    )


def _reading(cells: Sequence[CellResult]) -> str:
    worse, synergy, parts = [], [], []
    for setting in settings(cells):
        changes = {c.axes["method"]: c.differences for c in cells if c.setting == setting}
        costs = {n: d["pass_at_1"] for n, d in changes.items() if "pass_at_1" in d}
        worse += [costs[name].sign < 0 for name in SINGLE if name in costs]
        there = {name: costs[name] for name in SINGLE if name in costs}
        texts = [f"{n.removeprefix('dynamo-no-').upper()} {span([100 * cost.value])}" for n, cost in there.items()]
        parts += [f"{setting}: {', '.join(texts)}"] if texts else []
        if {PAIR, *ITS_PARTS} <= set(costs):
            synergy.append(costs[PAIR].value < sum(costs[name].value for name in ITS_PARTS))
    return (
        f"Change of final pass@1 without one part, in points ({'; '.join(parts)}); removing GC and UMS together costs "
        f"more than the sum of both in {sum(synergy) or 'none'} of {len(synergy)} settings, as in the paper's average. "
        + verdict("removing any part lowers the result", worse, "removals of one part")
    )


TABLE = Table(
    name="table2_ablations",
    title="Table 2: ablations",
    inputs=(
        ExperimentResults(
            name="table2",
            axes=("method",),
            measures=COLUMN_MEASURES,
            scale=("method",),
            reference={"method": FULL},
            methods=(FULL, NONE, PAIR, *SINGLE, "dynamo-only-gc", "dynamo-only-ums"),
        ),
    ),
    fill=_fill,
    caption=_caption,
    reading=_reading,
)
