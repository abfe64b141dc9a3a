"""theory.base.tables: numbers, intervals, bold and the three formats."""

from __future__ import annotations

import csv
import doctest
import io
import math

import numpy as np
import pytest

from theory.base import tables
from theory.base.tables import Column, Estimate, TextTable

TABLE = TextTable(
    (Column("name"), Column("a_b (%)"), Column("gain", signed=True)),
    (
        ("ours & theirs", (("x", Estimate(1.004, 0.5, 1.5), None), ("y", Estimate(1.0), Estimate(-0.004, -0.2, 0.1)))),
        ("published", (("x|y", "12.5", "−0.4"), ("z", "9.0", None), ("w", None, "+0.1"))),
    ),
    highest=(1,),
)


def test_cells() -> None:
    assert TABLE.headings == ["", "name", "a_b (%)", "gain"]
    assert TABLE.texts() == [
        ["ours & theirs", "x", "1.00 [0.50, 1.50]", "–"],
        ["", "y", "1.00", "0.00 [−0.20, +0.10]"],
        ["published", "x|y", "12.5", "−0.4"],
        ["", "z", "9.0", "–"],
        ["", "w", "–", "+0.1"],
    ]


def test_bold_marks_the_highest_as_printed_and_nothing_where_all_tie() -> None:
    assert TABLE.bold() == [[False] * 3, [False] * 3, [False, True, False], [False] * 3, [False] * 3]
    one = TextTable(TABLE.columns, (("", (("x", 1.0, None), ("y", 2.0, None), ("z", 2.001, None))),), highest=(1,))
    assert [row[1] for row in one.bold()] == [False, False, False]  # two of three tie as printed
    three = TextTable(TABLE.columns, (("", (("x", 1.0, None), ("y", 2.0, None), ("z", 1.5, None))),), highest=(1,))
    assert [row[1] for row in three.bold()] == [False, True, False]


def test_of_two_the_higher_is_bold_and_of_four_two_that_tie() -> None:
    for points, bold in (((1.0, 2.0), [False, True]), ((2.0, 1.0, 2.0, 1.0), [True, False, True, False])):
        table = TextTable((Column("name"), Column("x")), (("", tuple(("row", x) for x in points)),), highest=(1,))
        assert [row[1] for row in table.bold()] == bold


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.3, 1), (-0.3, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.3, 0), (-0.3, 0.0, 0), (math.nan, math.nan, 0)],
)
def test_an_interval_that_ends_at_zero_holds_it(low: float, high: float, sign: int) -> None:
    assert Estimate(0.2, low, high).sign == sign


def test_formats() -> None:
    texts = {
        "md": TABLE.markdown("A title", "Said & done."),
        "tex": TABLE.latex("name", "A title", "Said & done."),
        "csv": TABLE.csv(),
    }
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


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.00"), (-0.001, "0.00"), (0.005001, "+0.01"), (-1.0, "−1.00")])
def test_signs(value: float, text: str) -> None:
    assert Column("c", signed=True).text(value) == text


def test_a_table_without_groups_has_no_column_for_them() -> None:
    scores = Column("value", 1, blank="", ends=("low", "high"))
    table = TextTable(
        (Column("method"), Column("seeds", blank=""), scores),
        (("", (("GRPO", "1 2", Estimate(61.25, 60.0, 62.5)), ("base", None, 40.0), ("none", "3", None))),),
    )
    assert table.headings == ["method", "seeds", "value"]
    assert table.texts() == [["GRPO", "1 2", "61.2 [60.0, 62.5]"], ["base", "", "40.0"], ["none", "3", ""]]
    assert table.texts(between="\n")[0][2] == "61.2\n[60.0, 62.5]"
    assert table.markdown() == (
        "| method | seeds | value |\n| --- | --- | --- |\n"
        "| GRPO | 1 2 | 61.2 [60.0, 62.5] |\n| base |  | 40.0 |\n| none | 3 |  |\n"
    )
    assert table.csv() == "method,seeds,value,low,high\nGRPO,1 2,61.25,60.0,62.5\nbase,,40.0,,\nnone,3,,,\n"


def test_csv_keeps_every_digit() -> None:
    columns = (Column("n"), Column("x", 0), Column("y"))
    rows = ((512, 0.1 + 0.2, np.float64(1) / 3), (0, math.nan, Estimate(-1.0)))
    assert TextTable(columns, (("", rows),)).csv() == (
        "n,x,y,y low,y high\n512,0.30000000000000004,0.3333333333333333,,\n0,,-1.0,,\n"
    )


def test_doctests() -> None:
    assert doctest.testmod(tables).failed == 0
