"""Table 1: nine methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Table
from paper_figs.result_files import Input, made_by, read_json
from paper_figs.wording import counted, title, verdict
from theory.base.files import check_fields
from theory.base.tables import Column, Estimate, TextTable, Value
from theory.claims.published import TABLE_1

METHOD, REFERENCE = "dynamo", "grpo"
COLUMN_MEASURES = ("pass_at_1", "pass_at_32", "pass_at_1_mean")
COLUMNS = (
    Column("method"),
    Column("pass@1 (%)"),
    Column("gain", signed=True),
    Column("pass@32 (%)"),
    Column("gain in pass@32", signed=True),
    Column("mean pass@1 (%)"),
    Column("gain in mean", signed=True),
)


PUBLISHED = (
    "Rows marked published are copied from Table {table} of arXiv 2602.19208 for reference, averages of six benchmarks "
    "and three seeds; nothing of them was measured here, and they have no intervals."
)


@dataclass(frozen=True)
class Evaluation(Input):
    """Rows of `scale/evaluation/table.json`, as `python -m scale evaluate` writes it; none if it is not there."""

    def read(self, source: Path) -> Sequence[Mapping[str, Any]]:
        """Read the measured rows."""
        path, command = source / "scale" / "evaluation" / "table.json", "python -m scale evaluate"
        if not path.exists():
            return []
        rows = read_json(path, {"rows": (list,)}, command)["rows"]
        kinds = {"source": (str,), "model": (str,), "method": (str,), "cells": (dict,)}
        with made_by(command):
            measured = [row for row in rows if check_fields(row, kinds, f"{path}: row")["source"] == "measured"]
            for row in measured:
                check_fields(row, {"seeds": (list,)}, f"{path}: row {row['method']}")
                for k in (1, 32):
                    _require_score(row, k, f"{path}: row {row['method']}")
        return measured


def _require_score(row: Mapping[str, Any], k: int, where: str) -> None:
    average = check_fields(row["cells"], {"average": (dict,)}, where)["average"]
    if f"pass@{k}" in average:
        cell = check_fields(average[f"pass@{k}"], dict.fromkeys(("value", "low", "high"), (int, float)), where)
        if not 0 <= cell["low"] <= cell["high"] <= 100 or not 0 <= cell["value"] <= 100:
            raise ValueError(f"{where}: expected percents, low to high, got {cell!r:.200}")


def _score(row: Mapping[str, Any], k: int) -> Estimate | None:
    """Return the average pass@k of a row in percent, if it was measured."""
    cell = row["cells"]["average"].get(f"pass@{k}")
    return Estimate(*(float(cell[x]) for x in ("value", "low", "high"))) if cell else None


def rows_of(cells: Sequence[CellResult], setting: str, measures: Sequence[str]) -> list[tuple[Value, ...]]:
    """Return a row per method of a setting: every measure in percent, and its difference to the reference in points."""
    rows = []
    for cell in cells:
        if cell.setting == setting:
            values: list[Value] = [title(cell.axes["method"])]
            for measure in measures:
                value, difference = cell.values.get(measure), cell.differences.get(measure)
                values += [value and value.scaled(100), difference and difference.scaled(100)]
            rows.append(tuple(values))
    return rows


def kind(cells: Sequence[CellResult], setting: str) -> str:
    """Return what a setting is, as a heading of its rows."""
    of = [cell for cell in cells if cell.setting == setting]
    seeds = max(cell.num_seeds for cell in of)
    return f"{setting} ({'tabular world' if of[0].is_toy else 'verl'}, {seeds} seed{'s' * (seeds > 1)})"


def published() -> list[tuple[str, tuple[tuple[Value, ...], ...]]]:
    """Return the averages over six benchmarks that the paper prints, as groups of rows."""
    groups: list[tuple[str, tuple[tuple[Value, ...], ...]]] = []
    for model, of_model in TABLE_1.items():
        base = of_model["GRPO"][2]
        rows: list[tuple[Value, ...]] = []
        for name, (_, _, average) in of_model.items():
            values = [
                (printed(x), None if name == "GRPO" else printed(x - y, "+"))
                for x, y in zip(average, base, strict=True)
            ]
            rows.append((name, *values[0], *values[1], None, None))
        groups.append((f"{model} (published)", tuple(rows)))
    return groups


def printed(value: float, sign: str = "") -> str:
    """Return a published number with the one decimal that it is printed with."""
    return f"{value:{sign}.1f}".replace("-", "−")


def _fill(cells: Sequence[CellResult], evaluation: Sequence[Mapping[str, Any]]) -> TextTable:
    groups = [(kind(cells, setting), tuple(rows_of(cells, setting, COLUMN_MEASURES))) for setting in settings(cells)]
    for model in dict.fromkeys(str(row["model"]) for row in evaluation):
        rows = tuple(
            (str(row["method"]), _score(row, 1), None, _score(row, 32), None, None, None)
            for row in evaluation
            if row["model"] == model
        )
        seeds = max(len(row["seeds"]) for row in evaluation if row["model"] == model)
        groups.append((f"{model} (scale evaluate, {seeds} seed{'s' * (seeds > 1)})", rows))
    return TextTable(COLUMNS, (*groups, *published()), highest=(1, 3, 5))


def _caption(cells: Sequence[CellResult], evaluation: Sequence[Mapping[str, Any]]) -> str:
    evaluated = (
        " Rows of scale evaluate: averages over benchmarks, intervals over problems and seeds." if evaluation else ""
    )
    return (
        "pass@1 and pass@32 at the end and the mean of pass@1 over all steps, in percent; gains: minus GRPO, in "
        f"points; bold: the highest of a group; {about(cells)}; {INTERVALS}.{evaluated} {PUBLISHED.format(table=1)}"
    )


def _reading(cells: Sequence[CellResult], evaluation: Sequence[Mapping[str, Any]]) -> str:
    names = settings(cells)
    best, gains = [], []
    for setting in names:
        by_method = {c.axes["method"]: c for c in cells if c.setting == setting and "pass_at_1" in c.values}
        if METHOD in by_method:
            top = max(by_method, key=lambda name: by_method[name].values["pass_at_1"].value)
            best.append((setting, top))
            gains += [by_method[METHOD].differences["pass_at_1"]] if by_method[METHOD].differences else []
    return (
        f"Highest final pass@1: {', '.join(f'{title(name)} in {setting}' for setting, name in best)}; DynaMO against "
        f"GRPO: {counted(gains)} of {len(gains)} settings. "
        + verdict(
            "DynaMO is above all baselines (here: those that were run)",
            [name == METHOD for _, name in best],
            "settings",
        )
    )


TABLE = Table(
    name="table1_methods",
    title="Table 1: nine methods",
    inputs=(
        ExperimentResults(
            name="table1",
            axes=("method",),
            measures=COLUMN_MEASURES,
            scale=("method",),
            reference={"method": REFERENCE},
        ),
        Evaluation(),
    ),
    fill=_fill,
    caption=_caption,
    reading=_reading,
)
