"""Tables: numbers, intervals, bold and the three formats; and sentences that follow from numbers."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from paper_figs.experiments import Estimate, aggregate, number, seeds_of
from paper_figs.sheet import Column, Sheet
from paper_figs.wording import counted, span, verdict
from theory.base.arrays import FloatArray

SHEET = Sheet(
    (Column("name"), Column("a_b (%)"), Column("gain", signed=True)),
    (
        ("ours & theirs", (("x", Estimate(1.004, 0.5, 1.5), None), ("y", Estimate(1.0), Estimate(-0.004, -0.2, 0.1)))),
        ("published", (("x|y", "12.5", "−0.4"), ("z", "9.0", None), ("w", None, "+0.1"))),
    ),
    highest=(1,),
)


def test_cells() -> None:
    assert SHEET.headings == ["", "name", "a_b (%)", "gain"]
    assert SHEET.texts() == [
        ["ours & theirs", "x", "1.00 [0.50, 1.50]", "–"],
        ["", "y", "1.00", "0.00 [−0.20, +0.10]"],
        ["published", "x|y", "12.5", "−0.4"],
        ["", "z", "9.0", "–"],
        ["", "w", "–", "+0.1"],
    ]


def test_bold_marks_the_highest_as_printed_and_nothing_where_all_tie() -> None:
    assert SHEET.bold() == [[False] * 3, [False] * 3, [False, True, False], [False] * 3, [False] * 3]
    one = Sheet(SHEET.columns, (("", (("x", 1.0, None), ("y", 2.0, None), ("z", 2.001, None))),), highest=(1,))
    assert [row[1] for row in one.bold()] == [False, False, False]  # two of three tie as printed
    three = Sheet(SHEET.columns, (("", (("x", 1.0, None), ("y", 2.0, None), ("z", 1.5, None))),), highest=(1,))
    assert [row[1] for row in three.bold()] == [False, True, False]


def test_formats() -> None:
    texts = SHEET.render("name", "A title", "Said & done.")
    assert texts["md"].startswith("**A title**\n\n|  | name | a_b (%) | gain |\n| --- | --- | --- | --- |\n")
    assert "| published | x\\|y | **12.5** | −0.4 |\n" in texts["md"]
    assert texts["md"].endswith("\n\nSaid & done.\n")
    assert "\\multicolumn{3}{l}{\\emph{ours \\& theirs}} \\\\" in texts["tex"]
    assert "name & a\\_b (\\%) & gain \\\\" in texts["tex"]
    assert "x|y & \\textbf{12.5} & $-$0.4 \\\\" in texts["tex"]
    assert "\\label{tab:name}" in texts["tex"]
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert [float(rows[0][f"a_b (%){end}"]) for end in ("", " low", " high")] == [1.004, 0.5, 1.5]
    assert rows[1]["a_b (%) low"] == rows[0]["gain"] == ""
    assert [row["group"] for row in rows] == ["ours & theirs"] * 2 + ["published"] * 3


def test_intervals_of_seeds() -> None:
    alone = aggregate(_array(0.25))
    assert alone.value == 0.25
    assert math.isnan(alone.low)
    assert alone.sign == 0
    assert aggregate(_array(1.0, 2.0, 3.0, 4.0)).value == 2.5
    assert aggregate(_array(1.0, 1.5, 2.0)).sign == 1
    assert aggregate(_array(-1.0, -1.5, -2.0)).sign == -1
    assert aggregate(_array(-1.0, 0.1, 1.0)).sign == 0
    assert aggregate(_array(1.0, 2.0)).scaled(100).value == 150


def _array(*values: float) -> FloatArray:
    return np.array(values)


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_verdict_counts(holds: list[bool]) -> None:
    told = verdict("it helps", holds, "worlds")
    assert told.startswith("The paper says that it helps; here this ")
    if len(holds) > 1:
        count = sum(holds)
        wanted = f"all {len(holds)} worlds" if count == len(holds) else f"{count or 'none'} of {len(holds)} worlds"
        assert told.endswith(f" appears in {wanted}.")
    else:
        assert told.endswith("appears." if holds[0] else "does not appear.")


def test_words_for_numbers() -> None:
    assert verdict("it is so", [False], "w", who="A review says") == (
        "A review says that it is so; here this does not appear."
    )
    assert counted([1, 1, -1, 0]) == "ahead in 2, behind in 1, undecided in 1"
    assert span([-0.2, 3.0], "+.0f") == "0 to +3"
    assert span([0.0, 0.001]) == "0.00"
    assert span([10.0], ".1f") == "10.0"
    assert seeds_of({1, 3}) == "1 to 3 seeds"
    assert sorted(["8", "none", "32", "16"], key=number) == ["none", "8", "16", "32"]


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.00"), (-0.001, "0.00"), (0.005001, "+0.01"), (-1.0, "−1.00")])
def test_signs(value: float, text: str) -> None:
    assert Column("c", signed=True).text(value) == text
