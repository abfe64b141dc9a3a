"""What the differences between the paper and its public code do, one at a time."""

from __future__ import annotations

from collections.abc import Sequence

from paper_figs import horizons
from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about, settings
from paper_figs.figure import Table
from paper_figs.table1_methods import columns, level
from paper_figs.wording import TABULAR, counted, points
from theory.base.tables import Column, TextTable

TOGETHER = ("row-both", "all-of-the-code", "as-released")
CONTROLS = ("prompt-mean", "grpo")
VARIANTS = {
    "paper": ("DynaMO as in the paper", ""),
    "root-of-p": ("root of P as weight", "rollouts go by the root of k (G - k) / (G (G - 1)), not by itself"),
    "code-allocation": (
        "the code's allocation",
        "a floor for all, the rest by weight, little for prompts nearly solved",
    ),
    "clip-0.28": ("upper clip 0.28", "the code's clip range is wider than stated"),
    "sequence-mean": ("mean over the response", "the expectation over the vocabulary becomes a mean over the response"),
    "micro-batch": (
        "extremes per micro-batch",
        "normalizers of the modulation over each micro-batch; the mean stays the vocabulary's, which the code has not",
    ),
    "prompt-mean": ("mean over prompts", "a control, not in the code: each prompt's loss is averaged first"),
    "script-settings": ("the script's modulation", "alpha .2 to compensate and .4 to stabilise, threshold .99"),
    "row-expansion": ("rows by two counts", "a defect: rollouts go by their counts, their ground truth by the mean"),
    "row-history": ("history of other rows", "a defect: outcomes are recorded in another order than their prompts"),
    "row-both": ("both defects", "of the two rows above"),
    "all-of-the-code": ("all of the code", "allocation, clip, mean over the response and micro-batches together"),
    "as-released": ("as released", "all of the code with the script's modulation and both defects"),
    "grpo": ("GRPO", "a control"),
}
"""Variants of the sweep: a name, and what differs."""


def _fill(cells: Sequence[CellResult]) -> TextTable:
    measures = [*horizons.shown(cells), "pass_at_32"]
    groups = []
    for setting in settings(cells):
        rows = []
        for cell in cells:
            if cell.setting == setting:
                name, what = VARIANTS.get(cell.axes["variant"], (cell.axes["variant"], ""))
                rows.append((name, what, level(cell), *horizons.differences(cell, measures)))
        groups.append((horizons.conditions(cells, setting), tuple(rows)))
    return TextTable(
        (Column("variant"), Column("what differs"), *columns(measures, "change")), tuple(groups), highest=(2,)
    )


def _caption(cells: Sequence[CellResult]) -> str:
    return (
        "DynaMO as in the paper, with one choice or defect of its public code at a time, with several together, and "
        "two controls: pass@1 at the end in percent; changes of pass@1 after equal numbers of visits and at the end, "
        "and of pass@32 at the end: minus the paper's, in points; a micro-batch has 64 responses here, of one token in "
        "a bandit, and the mean is that of the vocabulary except where a row says otherwise; a dash: not reached; "
        f"bold: the highest of a group; {horizons.CHOSEN}; {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts = []
    for setting in settings(cells):
        of = {c.axes["variant"]: c for c in cells if c.setting == setting and c.differences}
        alone = {n: c.differences[horizons.END] for n, c in of.items() if n not in (*CONTROLS, *TOGETHER)}
        ends = sorted(alone, key=lambda n: alone[n].value)
        named = [f"{VARIANTS.get(n, (n,))[0]} {points(alone[n])}" for n in dict.fromkeys((ends[0], ends[-1]))]
        there = horizons.shown(list(of.values()))
        together = "".join(f"; {VARIANTS[n][0]} {horizons.told(of[n], there)}" for n in TOGETHER if n in of)
        parts.append(
            f"{horizons.conditions(cells, setting)}: one choice or defect alone at the end from {' to '.join(named)} "
            f"({counted(alone.values())} of {len(alone)}){together}."
        )
    return (
        f"Change of pass@1, in points. {' '.join(parts)} Which of these choices the paper's numbers come from is not "
        f"stated. {TABULAR}"
    )


TABLE = Table(
    name="paper_vs_code",
    title="Differences between paper and public code, and their effect",
    inputs=(
        ExperimentResults(
            name="paper-vs-code",
            axes=("variant",),
            measures=(horizons.END, "pass_at_32"),
            where_reached=horizons.HORIZONS,
        ),
    ),
    fill=_fill,
    caption=_caption,
    reading=_reading,
    made_by="python -m toy sweep paper-vs-code",
)
