"""Samples to a table in the shape of the paper's Table 1: pass@k with intervals, next to the published values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table as RichTable
from rich.text import Text

from scale.evaluation.exports import Checkpoint
from scale.evaluation.problems import BenchmarkProblem
from theory.base.arrays import FloatArray, IntArray
from theory.base.tables import Column, Estimate, TextTable
from theory.claims.published import BENCHMARKS, TABLE_1, TABLE_2
from theory.statistics import crossed_interval, pass_at_k

AVERAGE = "average"

PUBLISHED = "published"

ESTIMATE_NOTE = (
    "pass@k is the unbiased estimate 1 - C(n-c, k)/C(n, k) from n samples a problem, in percent, a mean over problems "
    "and runs. Brackets are 95 % intervals with Student's t for runs and problems, both sampled, on the scale of the "
    "logit; each end is of the problems and one more that is all wrong, or all right, so an interval is wide where few "
    "problems were asked. Samples drawn with several sampling seeds are averaged within a run. With one run an "
    "interval is for the problems only and tells nothing of training seeds. In simulations it holds the truth in 94 to "
    "100 % of cases, also near 0 and 100 %. The average weighs every benchmark alike. No interval is adjusted for the "
    "others."
)

PUBLISHED_NOTE = (
    'Rows marked "published" are copied from Tables 1 and 2 of arXiv 2602.19208 (means of three runs, without '
    "intervals); nothing of them was measured here, and the number of samples behind its pass@32 is not stated."
)


@dataclass(frozen=True)
class Counts:
    """Counts of the samples of a checkpoint on a benchmark, with one sampling seed.

    Attributes
    ----------
    samples : n, the samples of every problem.
    correct, unverified, truncated : How many of them were correct, could not be checked, or ended at the longest
        response, [num_problems].
    tokens : Tokens of all responses.
    """

    samples: int
    correct: IntArray
    unverified: IntArray
    truncated: IntArray
    tokens: int


def count(drawn: Iterable[Mapping[str, Any]], problems: Sequence[BenchmarkProblem], samples: int) -> dict[str, Counts]:
    """Count the first `samples` samples of every problem (`read_samples`), by benchmark; none may be missing."""
    place = {x.key: number for number, x in enumerate(problems)}
    values = np.zeros((5, len(problems)), np.int64)
    for x in drawn:
        if x["sample"] < samples:
            one = (1, x["correct"], x["unverified"], x["finish"] == "length", x["tokens"])
            values[:, place[x["key"]]] += one
    if np.any(values[0] != samples):
        raise ValueError(f"samples: expected {samples} of every problem, got {values[0].min()} of some")
    counts = {}
    for name in dict.fromkeys(x.benchmark for x in problems):
        rows = [number for number, x in enumerate(problems) if x.benchmark == name]
        _, correct, unverified, truncated, tokens = values[:, rows]
        counts[name] = Counts(samples, correct, unverified, truncated, int(tokens.sum()))
    return counts


# Rows

CountsByBenchmark = Mapping[str, Sequence[Counts]]
"""Counts of one checkpoint: benchmark -> counts for each sampling seed."""


def measured(
    method: str, checkpoints: Sequence[Checkpoint], runs: Sequence[CountsByBenchmark], k: Sequence[int]
) -> dict[str, Any]:
    """Return the row of runs that differ in their training seed alone, called `method`: pass@k for every `k`."""
    first = checkpoints[0]
    names = list(runs[0])
    scores = [np.stack([_pass(run[name], k, "correct") for run in runs]) for name in names]
    interval = crossed_interval(scores, shares=True)
    # Of a benchmark with one problem nothing is known: its interval is all there is.
    ends = np.nan_to_num(interval.low, nan=0.0), np.nan_to_num(interval.high, nan=1.0)
    point, low, high = (100 * x for x in (interval.point, *ends))
    cells: dict[str, Any] = {}
    for number, name in enumerate([*names, AVERAGE]):
        cells[name] = {
            f"pass@{each}": {"value": point[number, i], "low": low[number, i], "high": high[number, i]}
            for i, each in enumerate(k)
        }
    for name in names:
        every = [x for run in runs for x in run[name]]
        total = sum(x.samples * len(x.correct) for x in every)
        unverified = sum(int(x.unverified.sum()) for x in every)
        cells[name] |= {
            "problems": len(every[0].correct),
            "samples": every[0].samples,
            "responses": total,
            "unverified": unverified,
            "truncated": sum(int(x.truncated.sum()) for x in every),
            "tokens": sum(x.tokens for x in every),
        }
        if unverified:
            best = np.mean([_pass(run[name], k, "not wrong") for run in runs], axis=(0, 1))
            cells[name]["if_unverified_were_correct"] = {
                f"pass@{each}": 100 * value for each, value in zip(k, best.tolist(), strict=True)
            }
    return {
        "model": first.model,
        "method": method,
        "source": "measured",
        "step": first.step,
        "seeds": [x.seed for x in checkpoints],
        "runs": [x.name for x in checkpoints],
        "cells": _plain(cells),
    }


def _pass(counts: Sequence[Counts], k: Sequence[int], of: str) -> FloatArray:
    """Return pass@k of every problem, a mean over sampling seeds, [num_problems, len(k)]."""
    right = [x.correct if of == "correct" else x.correct + x.unverified for x in counts]
    by_seed = [pass_at_k(x.samples, c[:, None], np.array(k)) for x, c in zip(counts, right, strict=True)]
    return np.asarray(np.mean(by_seed, axis=0))


def _plain(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _plain(x) for name, x in values.items()}
    return round(float(values), 6) if isinstance(values, (float, np.floating)) else values


def published(rows: Sequence[Mapping[str, Any]], k: Sequence[int]) -> list[dict[str, Any]]:
    """Return the paper's rows for the models and benchmarks of measured ones: Table 1, and Table 2 if ablations ran."""
    columns = {name: published_name(name) for name in rows[0]["cells"] if name != AVERAGE}
    published_rows = []
    for model in dict.fromkeys(row["model"] for row in rows):
        table = {name: dict(zip((1, 32), row, strict=True)) for name, (*row, _) in TABLE_1.get(model, {}).items()}
        averages = {name: dict(zip((1, 32), row[2], strict=True)) for name, row in TABLE_1.get(model, {}).items()}
        if model == "Qwen2.5-Math-7B" and any(row["model"] == model and row["method"][:2] == "- " for row in rows):
            for name, (row, average) in TABLE_2.items():
                if f"- {name}" not in table and name not in (*table, "ALL"):
                    table[f"- {name}"], averages[f"- {name}"] = {1: row}, {1: average}
        for method, values in table.items():
            cells: dict[str, Any] = {
                column: {
                    f"pass@{each}": {"value": values[each][BENCHMARKS.index(name)]} for each in k if each in values
                }
                for column, name in columns.items()
                if name is not None
            }
            if set(columns.values()) == set(BENCHMARKS):
                cells[AVERAGE] = {f"pass@{x}": {"value": averages[method][x]} for x in k if x in averages[method]}
            if any(cells.values()):
                published_rows.append({"model": model, "method": method, "source": PUBLISHED, "cells": cells})
    return published_rows


def published_name(benchmark: str) -> str | None:
    """Return the paper's name of a benchmark.

    Examples
    --------
    >>> published_name("math-500"), published_name("olympiadbench"), published_name("gsm8k")
    ('MATH500', 'Olympiad', None)
    """
    letters = re.sub(r"[^a-z0-9]", "", benchmark.lower())
    return next((name for name in BENCHMARKS if letters.startswith(name.lower())), None)


# Writing

COUNTS = ("problems", "samples", "unverified", "truncated")
"""What is counted of a row on a benchmark, besides the estimates."""


def to_csv(rows: Sequence[Mapping[str, Any]], k: Sequence[int]) -> str:
    """Return one line for each row, benchmark and k."""
    of_row = ("model", "method", "source", "step")
    lines = [
        (
            *(row.get(x) for x in of_row),
            _seeds(row),
            name,
            each,
            _estimate(cell[f"pass@{each}"]),
            *(cell.get(x) for x in COUNTS),
        )
        for row in rows
        for name, cell in row["cells"].items()
        for each in k
        if f"pass@{each}" in cell
    ]
    before, after = (map(Column, names) for names in ((*of_row, "seeds", "benchmark", "k"), COUNTS))
    columns = (*before, Column("value", ends=("low", "high")), *after)
    return TextTable(columns, (("", tuple(lines)),)).csv()


def _seeds(row: Mapping[str, Any]) -> str:
    return " ".join(str(x) for x in row.get("seeds", ()) if x is not None)


def _benchmarks(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the benchmarks of a table, and their titles, in the paper's order, the average last."""
    titles = {name: published_name(name) or name for name in rows[0]["cells"] if name != AVERAGE}
    place = {name: BENCHMARKS.index(title) if title in BENCHMARKS else 99 for name, title in titles.items()}
    ordered = {name: titles[name] for name in sorted(titles, key=place.__getitem__)}
    return ordered if len(ordered) == 1 else ordered | {AVERAGE: "Average"}


def _name(row: Mapping[str, Any], several_steps: bool) -> str:
    if row["source"] == PUBLISHED:
        return f"{row['method']} ({PUBLISHED})"
    step = f", step {row['step']}" if several_steps and row["step"] is not None else ""
    return f"{row['method']}{step}"


def to_markdown(rows: Sequence[Mapping[str, Any]], k: Sequence[int]) -> str:
    """Return the table, with the notes below it."""
    return _text_table(rows, k).markdown(caption="\n\n".join(notes(rows)), rule="---")


def _text_table(rows: Sequence[Mapping[str, Any]], k: Sequence[int]) -> TextTable:
    """Return a line for each row, a column for each benchmark and k."""
    benchmarks = _benchmarks(rows)
    several = len({row["step"] for row in rows if row.get("step") is not None}) > 1
    scores = [Column(f"{title} pass@{each}", decimals=1, blank="") for title in benchmarks.values() for each in k]
    lines = [
        (
            row["model"],
            _name(row, several),
            _seeds(row),
            *(_estimate(row["cells"].get(name, {}).get(f"pass@{each}")) for name in benchmarks for each in k),
        )
        for row in rows
    ]
    return TextTable((Column("model"), Column("method"), Column("seeds"), *scores), (("", tuple(lines)),))


def _estimate(cell: Mapping[str, float] | None) -> Estimate | None:
    return None if cell is None else Estimate(**cell)


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a reader of the table must know."""
    lines = [ESTIMATE_NOTE]
    if any(row["source"] == PUBLISHED for row in rows):
        lines.append(PUBLISHED_NOTE)
    for row in rows:
        for name, cell in row["cells"].items():
            if cell.get("unverified"):
                most = ", ".join(f"{k} {x:.1f}" for k, x in cell["if_unverified_were_correct"].items())
                lines.append(
                    f"{row['method']}, {name}: {cell['unverified']} of {cell['responses']} responses could not be "
                    f"checked and do not count as correct; if all of them were: {most}."
                )
            if cell.get("truncated"):
                share = cell["truncated"] / cell["responses"]
                lines.append(f"{row['method']}, {name}: {share:.1%} of the responses end at the longest length.")
    return lines


def to_rich(rows: Sequence[Mapping[str, Any]], k: int) -> RichTable:
    """Return the table of one k for a terminal."""
    table = RichTable("model", "method", "seeds", title=f"pass@{k}, %")
    for title in _benchmarks(rows).values():
        table.add_column(title, justify="right")
    for row, texts in zip(rows, _text_table(rows, [k]).texts("\n"), strict=True):
        # An estimate has its interval on a second line; a name has one line.
        style = "dim" if row["source"] == PUBLISHED else None
        table.add_row(*texts[:3], *map(Text, texts[3:]), style=style)
    return table
