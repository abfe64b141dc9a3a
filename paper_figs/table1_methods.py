"""Table 1: nine methods, at several horizons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paper_figs import horizons
from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Table
from paper_figs.result_files import Input
from paper_figs.wording import TABULAR, title
from theory.base.tables import Column, TextTable, Value

METHOD, REFERENCE = "dynamo", "grpo"
NORM_MATCHED = "norm-matched/table1"
"""The sweep at learning rates with which early steps, rate times gradient norm, are GRPO's: `sweep norms`, then `sweep
table1 --tuned` with its chosen.json and `--out results/toy/norm-matched`."""


@dataclass(frozen=True)
class Methods(Input):
    """The cells of the sweep `table1`, and those of its norm-matched version if it was run."""

    def read(self, source: Path) -> list[CellResult]:
        """Read the cells of both; the settings of the second say what they are."""
        matched = _sweep(NORM_MATCHED, scale=False)
        more = matched.read(source) if matched.exists(source) else []
        return [
            *_sweep("table1", scale=True).read(source),
            *(replace(cell, setting=f"{cell.setting}, norm-matched") for cell in more),
        ]


def _sweep(name: str, *, scale: bool) -> ExperimentResults:
    return ExperimentResults(
        name=name,
        axes=("method",),
        measures=("pass_at_1", "pass_at_32"),
        scale=("method",) if scale else (),
        reference={"method": REFERENCE},
        where_reached=horizons.HORIZONS,
    )


def rows_of(cells: Sequence[CellResult], setting: str, measures: Sequence[str]) -> list[tuple[Value, ...]]:
    """Return a row per method of a setting: pass@1 at the end in percent, and gains over the reference in points."""
    of = [cell for cell in cells if cell.setting == setting]
    return [(title(cell.axes["method"]), level(cell), *horizons.differences(cell, measures)) for cell in of]


def level(cell: CellResult) -> Value:
    """Return pass@1 at the end in percent, if it was measured; without interval, which would be that of the world."""
    value = cell.values.get(horizons.END)
    return value and 100 * value.value


def columns(measures: Sequence[str], of: str) -> tuple[Column, ...]:
    """Return the columns of `rows_of` after the first."""
    return (Column("pass@1 (%)"), *horizons.columns(measures, of))


def _measures(cells: Sequence[CellResult]) -> list[str]:
    return [*horizons.shown(cells), "pass_at_32"]


def _fill(cells: Sequence[CellResult]) -> TextTable:
    measures = _measures(cells)
    groups = [
        (horizons.conditions(cells, setting), tuple(rows_of(cells, setting, measures))) for setting in settings(cells)
    ]
    return TextTable((Column("method"), *columns(measures, "gain")), tuple(groups), highest=(1,))


def _caption(cells: Sequence[CellResult]) -> str:
    matched = "norm-matched: at learning rates divided by the ratio of early gradient norms to GRPO's; "
    return (
        "pass@1 at the end in percent; gains in pass@1 after equal numbers of visits and at the end, and in pass@32 at "
        f"the end: minus GRPO, in points; a dash: not reached; bold: the highest of a group; "
        f"{matched * any('norm-matched' in cell.setting for cell in cells)}{horizons.CHOSEN}; "
        f"{about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts = []
    for setting in settings(cells):
        of = [cell for cell in cells if cell.setting == setting]
        ours = next((cell for cell in of if cell.axes["method"] == METHOD and cell.differences), None)
        if ours is not None:
            there = [measure for measure in horizons.shown(of) if measure in ours.values]
            above = [f"{horizons.WHEN[measure]} {', '.join(_above(of, ours, measure)) or 'none'}" for measure in there]
            parts.append(
                f"{horizons.conditions(cells, setting)}: DynaMO minus GRPO in points of pass@1 "
                f"{horizons.told(ours, there)}; methods whose point estimate is higher: {'; '.join(above)}."
            )
    return f"{' '.join(parts)} The paper says that DynaMO is above all baselines. {TABULAR}"


def _above(cells: Sequence[CellResult], ours: CellResult, measure: str) -> list[str]:
    """Return the methods whose value is above ours, the highest first."""
    higher = [c for c in cells if measure in c.values and c.values[measure].value > ours.values[measure].value]
    return [title(c.axes["method"]) for c in sorted(higher, key=lambda c: -c.values[measure].value)]


TABLE = Table(
    name="table1_methods",
    title="Table 1: nine methods",
    inputs=(Methods(),),
    fill=_fill,
    caption=_caption,
    reading=_reading,
)
