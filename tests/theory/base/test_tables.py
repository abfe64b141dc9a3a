"""theory.base.tables: numbers, intervals, bold and the three formats."""

from __future__ import annotations

import csv
import doctest
import io
import math
import re

import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from theory.base import tables, text
from theory.base.tables import Column, Estimate, TextTable
from theory.base.text import plain

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
    assert Estimate(0.2, low, high, p=0.01).sign == sign
    assert Estimate(0.2, low, high, p=0.051).sign == 0
    assert Estimate(0.2, low, high).sign == 0


def test_another_unit_is_one_for_the_interval_too() -> None:
    assert Estimate(0.5, 0.25, 0.75, 0.5).scaled(100.0) == Estimate(50.0, 25.0, 75.0, 0.5)
    assert math.isnan(Estimate(0.5).scaled(100.0).low)


def test_signs_and_dashes_of_latex() -> None:
    assert text.latex("−1 – 2 ± 3 ≤ 4 → 5") == "$-$1 -- 2 $\\pm$ 3 $\\le$ 4 $\\to$ 5"
    assert text.latex("a^b~c<d>e|f") == (
        "a\\textasciicircum{}b\\textasciitilde{}c\\textless{}d\\textgreater{}e\\textbar{}f"
    )


def test_formats() -> None:
    texts = {
        "md": TABLE.markdown("A title", "Said & done."),
        "tex": TABLE.latex("name", "A title", "Said & done."),
        "csv": TABLE.csv(),
    }
    assert texts["md"].startswith("**A title**\n\n|  | name | a\\_b (%) | gain |\n| --- | --- | --- | --- |\n")
    assert "| published | x\\|y | **12.5** | −0.4 |\n" in texts["md"]
    assert texts["md"].endswith("\n\nSaid \\& done.\n")
    assert "\\multicolumn{3}{l}{\\emph{ours \\& theirs}} \\\\" in texts["tex"]
    assert "name & a\\_b (\\%) & gain \\\\" in texts["tex"]
    assert "x\\textbar{}y & \\textbf{12.5} & $-$0.4 \\\\" in texts["tex"]
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


def named(name: str) -> TextTable:
    """Return a table with a name in every place that takes one; the first column is of groups."""
    return TextTable((Column(name), Column("x")), ((name, ((name, 1.0), ("", name))),))


NAMES = st.text(st.sampled_from("ab \\`*_~[]()<>&|$%#{}^\"',=\n\r\t\x1b\u202e"), min_size=1).filter(str.strip)


@given(name=NAMES)
@example(name="*a*")
@example(name="~~a~~")
@example(name="\\")
@example(name="<!-- a -->")
@example(name="&lt;")
@example(name="![a](javascript:b)")
def test_fuzz_names_are_text_in_markdown(name: str) -> None:
    """A Markdown parser finds nothing but text: no link, code, emphasis, markup, or other cell."""
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(named(name).markdown())
    cells = [token.children or [] for token in page if token.type == "inline"]
    assert {part.type for cell in cells for part in cell} <= {"text", "text_special"}
    shown, one = plain(name).strip(), "1.00"
    texts = ["".join(part.content for part in cell).strip() for cell in cells]
    assert texts == ["", shown, "x", shown, shown, one, "", "", shown]


def read_latex(text: str) -> str:
    """Return the text that LaTeX prints; a command or a special character that is not for text is an error."""
    commands = {"textbackslash": "\\", "textasciicircum": "^", "textasciitilde": "~", "textless": "<",
                "textgreater": ">", "textbar": "|"}  # fmt: skip
    tokens = re.findall(r"\\([a-z]+)\{\}|\\([&%$#_{}])|([^\\&%$#_{}^~<>|])|(.)", text)
    assert not any(wrong for *_, wrong in tokens), text
    return "".join(commands.get(name, "") or character or plain for name, character, plain, _ in tokens)


@given(name=NAMES)
def test_fuzz_names_are_text_in_latex(name: str) -> None:
    lines = named(name).latex("label", name, name).splitlines()
    at = lines.index("\\toprule")
    group = lines[at + 3].removeprefix("\\multicolumn{2}{l}{\\emph{").removesuffix("}} \\\\")
    first, second = lines[at + 4], lines[at + 5]
    assert not first.startswith(("[", "*"))  # they would belong to the end of the row before
    first, second = first.removeprefix("{}").removesuffix(" & 1.00 \\\\"), second[3:].removesuffix(" \\\\")
    assert [read_latex(cell) for cell in (group, first, second)] == [plain(name)] * 3
    title, caption = re.fullmatch(r"\\caption\{\\textbf\{(.*)\.\} (.*)\}", lines[-3]).groups()
    assert read_latex(title) == read_latex(caption) == plain(name)


def test_names_have_one_line() -> None:
    assert named("a\nb").headings == ["", "a\\nb", "x"]
    assert named("a\nb").texts() == [["a\\nb", "a\\nb", "1.00"], ["", "", "a\\nb"]]


@given(name=st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_fuzz_names_are_exact_in_csv(name: str) -> None:
    rows = list(csv.reader(io.StringIO(named(name).csv(), newline="")))
    assert rows == [["group", name, "x"], [name, name, "1.0"], [name, "", name]]


@pytest.mark.parametrize("name", ["$x$", "a$b", "$\\frac$", "\\$", "$$", "a\nb", "\udcff"])
def test_names_are_text_in_a_drawing(name: str) -> None:
    figure = Figure(figsize=(1, 1))
    shown = figure.text(0, 0, text.as_drawn(name))
    figure.text(0, 0, f"$p$ {text.as_drawn(name)}")  # beside mathematics of our own
    figure.draw_without_rendering()
    assert shown._preprocess_math(shown.get_text()) == (plain(name), False)


@pytest.mark.parametrize("module", [tables, text])
def test_doctests(module) -> None:
    assert doctest.testmod(module).failed == 0
