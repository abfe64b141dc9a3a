"""What the differences between the paper and its public code do, one at a time."""

from __future__ import annotations

from collections.abc import Sequence

from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Table
from paper_figs.table1_methods import kind
from paper_figs.wording import counted, span
from theory.base.tables import Column, TextTable

ALL = "all-of-the-code"
CONTROLS = ("prompt-mean", "grpo")
COLUMN_MEASURES = ("pass_at_1", "pass_at_1_mean", "pass_at_32")
VARIANTS = {
    "paper": ("DynaMO as in the paper", ""),
    "root-of-p": ("root of P as weight", "rollouts go by the root of k (G - k) / (G (G - 1)), not by itself"),
    "code-allocation": (
        "the code's allocation",
        "a floor for all, the rest by weight, little for prompts nearly solved",
    ),
    "clip-0.28": ("upper clip 0.28", "the code's clip range is wider than stated"),
    "sequence-mean": ("mean over the response", "the expectation over the vocabulary becomes a mean over the response"),
    "micro-batch": ("extremes per micro-batch", "normalizers of the modulation over each micro-batch, not the batch"),
    "prompt-mean": ("mean over prompts", "a control, not in the code: each prompt's loss is averaged first"),
    "all-of-the-code": ("all of the code", "allocation, clip, mean over the response and micro-batches together"),
    "grpo": ("GRPO", "a control"),
}
"""Variants of the sweep: a name, and what differs."""

COLUMNS = (
    Column("variant"),
    Column("what differs"),
    Column("pass@1 (%)"),
    Column("change", signed=True),
    Column("change of mean", signed=True),
    Column("change of pass@32", signed=True),
)


def _fill(cells: Sequence[CellResult]) -> TextTable:
    groups = []
    for setting in settings(cells):
        rows = []
        for cell in cells:
            if cell.setting == setting:
                name, what = VARIANTS.get(cell.axes["variant"], (cell.axes["variant"], ""))
                changes = [(d := cell.differences.get(m)) and d.scaled(100) for m in COLUMN_MEASURES]
                rows.append((name, what, cell.values["pass_at_1"].scaled(100), *changes))
        groups.append((kind(cells, setting), tuple(rows)))
    return TextTable(COLUMNS, tuple(groups), highest=(2,))


def _caption(cells: Sequence[CellResult]) -> str:
    return (
        "DynaMO as in the paper, with one choice of its public code at a time, with all of them, and two controls: "
        "pass@1 at the end in percent, and changes to the paper's of that, of the mean of pass@1 over all steps, and "
        f"of pass@32 at the end, in points; bold: the highest of a group; {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts, together = [], []
    for setting in settings(cells):
        changes = {
            c.axes["variant"]: c.differences["pass_at_1"]
            for c in cells
            if c.setting == setting and c.axes["variant"] not in CONTROLS and c.differences
        }
        all_of_it = changes.pop(ALL, None)
        ends = [min(changes, key=lambda n: changes[n].value), max(changes, key=lambda n: changes[n].value)]
        texts = [f"{VARIANTS.get(n, (n,))[0]} ({span([100 * changes[n].value])})" for n in ends]
        signs = f"{counted(changes.values())} of {len(changes)} variants"
        parts.append(f"in {setting} from {texts[0]} to {texts[1]} ({signs})")
        if all_of_it is not None:
            together.append(f"{span([100 * all_of_it.value])} in {setting}")
    return (
        f"One choice alone changes final pass@1, in points, {'; '.join(parts)}. Taken together they are worth "
        f"{', '.join(together) or 'what was not run'}; which of them the paper's numbers come from is not stated."
    )


TABLE = Table(
    name="paper_vs_code",
    title="Differences between paper and public code, and their effect",
    inputs=(ExperimentResults(name="paper-vs-code", axes=("variant",), measures=COLUMN_MEASURES),),
    fill=_fill,
    caption=_caption,
    reading=_reading,
    made_by="python -m toy sweep paper-vs-code",
)
