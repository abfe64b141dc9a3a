"""Table 1, language models: what the paper publishes of them, and what `python -m scale evaluate` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_figs.figure import Table
from paper_figs.result_files import Input, made_by, read_json
from theory.base.files import check_fields
from theory.base.tables import Column, Estimate, TextTable, Value
from theory.claims.published import TABLE_1, TABLE_2

COLUMNS = (
    Column("method"),
    Column("pass@1 (%)"),
    Column("change", signed=True),
    Column("pass@32 (%)"),
    Column("change of pass@32", signed=True),
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


def _published() -> list[tuple[str, tuple[tuple[Value, ...], ...]]]:
    """Return the averages over six benchmarks that the paper prints, as groups of rows."""
    groups: list[tuple[str, tuple[tuple[Value, ...], ...]]] = []
    for model, of_model in TABLE_1.items():
        base = of_model["GRPO"][2]
        rows: list[tuple[Value, ...]] = []
        for name, (_, _, average) in of_model.items():
            changes = [None if name == "GRPO" else _printed(x - y, "+") for x, y in zip(average, base, strict=True)]
            rows.append((name, _printed(average[0]), changes[0], _printed(average[1]), changes[1]))
        groups.append((f"{model} (published, Table 1; changes: minus GRPO)", tuple(rows)))
    full = TABLE_2["DynaMO"][1]
    without: list[tuple[Value, ...]] = []
    for name, (_, mean) in TABLE_2.items():
        is_full = name == "DynaMO"
        change = None if is_full else _printed(mean - full, "+")
        without.append((name if is_full else f"- {name}", _printed(mean), change, None, None))
    return [*groups, ("Qwen2.5-Math-7B (published, Table 2; changes: minus DynaMO)", tuple(without))]


def _printed(value: float, sign: str = "") -> str:
    """Return a published number with the one decimal that it is printed with."""
    return f"{value:{sign}.1f}".replace("-", "−")


def _fill(evaluation: Sequence[Mapping[str, Any]]) -> TextTable:
    groups: list[tuple[str, tuple[tuple[Value, ...], ...]]] = []
    for model in dict.fromkeys(str(row["model"]) for row in evaluation):
        of_model = [row for row in evaluation if row["model"] == model]
        rows = tuple((str(row["method"]), _score(row, 1), None, _score(row, 32), None) for row in of_model)
        seeds = max(len(row["seeds"]) for row in of_model)
        groups.append((f"{model} (scale evaluate, {seeds} seed{'s' * (seeds > 1)})", rows))
    return TextTable(COLUMNS, (*groups, *_published()), highest=(1, 3))


def _caption(evaluation: Sequence[Mapping[str, Any]]) -> str:
    measured = ""
    if evaluation:
        several = any(len(row["seeds"]) > 1 for row in evaluation)
        alone = any(len(row["seeds"]) == 1 for row in evaluation)
        sampled = "problems and seeds" if several else "problems"
        measured = (
            f"Rows of scale evaluate: averages over benchmarks; 95 % intervals with Student's t for {sampled}, on the "
            f"scale of the logit{', of one seed for problems only' * (several and alone)}"
            f"{', which tells nothing of other seeds' * alone}; no correction for many comparisons. "
        )
    return (
        f"Averages of pass@1 and pass@32 over benchmarks, of language models. {measured}Rows marked published are "
        "copied from Tables 1 and 2 of arXiv 2602.19208 for reference, averages of six benchmarks and 3 seeds; nothing "
        "of them was measured here, and they have no interval; bold: the highest of a group."
    )


def _reading(evaluation: Sequence[Mapping[str, Any]]) -> str:
    models = ", ".join(dict.fromkeys(str(row["model"]) for row in evaluation))
    return (
        f"The paper prints numbers of Qwen2.5-Math-1.5B and 7B; measured here: {models or 'no language model'}. "
        "Nothing of the tabular worlds can be compared with them."
    )


TABLE = Table(
    name="table1_models",
    title="Tables 1 and 2, language models: published, and measured here",
    inputs=(Evaluation(),),
    fill=_fill,
    caption=_caption,
    reading=_reading,
)
