"""Tables as text: Markdown to read, LaTeX (booktabs) to print, CSV with every digit. No file is read or written.

Names and other strings are text in all three, whatever is in them. In CSV they are exact: a spreadsheet may take one
that begins with = for a formula, as it may a number that begins with a minus.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from theory.base.text import latex, markdown, plain

SIGN_LEVEL = 0.05
"""Largest p-value of a difference that is called ahead or behind."""


class Estimate(NamedTuple):
    """A number and its 95 % interval; NaN where there is no interval, as with one seed.

    Attributes
    ----------
    p : Of a difference: its p-value, adjusted for the comparisons beside it (`theory.statistics.in_family`). NaN where
        nothing is decided, as with fewer than three seeds.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    @property
    def sign(self) -> int:
        """1 or -1 where a difference is above or below 0: by its p-value, and by its whole interval; else 0."""
        return (int(self.low > 0) - int(self.high < 0)) * int(self.p <= SIGN_LEVEL)

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate in another unit."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high, self.p)


Value = Estimate | float | str | None
"""Content of a cell; None: there is no number."""


@dataclass(frozen=True)
class Column:
    """A column: its heading, and the form of its numbers.

    With `signed`, positive numbers carry a sign, as differences do. `blank` is the text in place of a missing number.
    `ends` are the headings of the two ends of its intervals in CSV, by default `heading` and "low" or "high".
    """

    heading: str
    decimals: int = 2
    signed: bool = False
    blank: str = "–"
    ends: tuple[str, str] | None = None

    def text(self, value: Value, between: str = " ") -> str:
        """Return a value as text: the number, `between`, and the interval in brackets.

        Examples
        --------
        >>> Column("gain", signed=True).text(Estimate(0.5, -0.25, 1.0))
        '+0.50 [−0.25, +1.00]'
        """
        if value is None:
            return self.blank
        if isinstance(value, str):
            return plain(value)
        point, low, high, _ = value if isinstance(value, Estimate) else Estimate(value)
        interval = "" if math.isnan(low) else f"{between}[{self._number(low)}, {self._number(high)}]"
        return self._number(point) + interval

    def _number(self, number: float) -> str:
        text = f"{number:{'+' * self.signed}.{self.decimals}f}"
        return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


@dataclass(frozen=True)
class TextTable:
    """A table: columns, the first of names, and groups of rows, each with a heading.

    Without any heading there is no column for them. `highest` are the numbers of the columns in which the largest value
    of a group is set in bold.
    """

    columns: tuple[Column, ...]
    groups: tuple[tuple[str, tuple[tuple[Value, ...], ...]], ...]
    highest: tuple[int, ...] = ()

    @property
    def headings(self) -> list[str]:
        """Headings, first that of the column of groups."""
        return [*self._of_group(""), *(plain(column.heading) for column in self.columns)]

    def texts(self, between: str = " ") -> list[list[str]]:
        """Return every row as text, the group's heading before its first one."""
        return [
            [
                *self._of_group(plain(heading) * (i == 0)),
                *(column.text(value, between) for column, value in zip(self.columns, row, strict=True)),
            ]
            for heading, rows in self.groups
            for i, row in enumerate(rows)
        ]

    def _of_group(self, text: str) -> list[str]:
        """Return the cell of the column of groups; none if no group has a heading."""
        return [text] if any(heading for heading, _ in self.groups) else []

    def bold(self) -> list[list[bool]]:
        """Return, row by row, which values are set in bold: the highest as printed, unless more than half tie."""
        marks = []
        for _, rows in self.groups:
            columns = [[False] * len(rows) for _ in self.columns]
            for i in self.highest:
                points = [round(number(row[i]), self.columns[i].decimals) for row in rows]
                if 2 * points.count(max(points)) <= len(rows):
                    columns[i] = [point == max(points) for point in points]
            marks += [list(row) for row in zip(*columns, strict=True)]
        return marks

    def markdown(self, title: str = "", caption: str = "", rule: str = " --- ") -> str:
        """Return the table for a Markdown page: title above, caption below, and a rule under every heading."""
        lines = [_row(map(markdown, self.headings)), f"|{'|'.join([rule] * len(self.headings))}|"]
        for texts, bold in zip(self.texts(), self.bold(), strict=True):
            marks = [False] * (len(texts) - len(bold)) + bold
            cells = map(markdown, texts)
            lines.append(_row(f"**{text}**" if mark else text for text, mark in zip(cells, marks, strict=True)))
        above = [f"**{markdown(title)}**", ""] if title else []
        below = ["", *map(markdown, caption.split("\n"))] if caption else []
        return "\n".join([*above, *lines, *below, ""])

    def latex(self, name: str, title: str, caption: str) -> str:
        """Return the table for a LaTeX document; `name` is its label."""
        columns = len(self.columns)
        lines = [
            "% Needs \\usepackage{booktabs,graphicx}.",
            "\\begin{table*}",
            "\\centering\\small",
            "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * (columns - 1)}}}",
            "\\toprule",
            " & ".join(latex(column.heading) for column in self.columns) + " \\\\",
        ]
        marks = iter(self.bold())
        for heading, rows in self.groups:
            lines.append("\\midrule")
            if heading:
                lines.append(f"\\multicolumn{{{columns}}}{{l}}{{\\emph{{{latex(heading)}}}}} \\\\")
            for row in rows:
                texts = [latex(column.text(value)) for column, value in zip(self.columns, row, strict=True)]
                bold = next(marks)
                cells = [f"\\textbf{{{text}}}" if mark else text for text, mark in zip(texts, bold, strict=True)]
                # After the end of a row, [ and * would belong to it.
                lines.append("{}" * cells[0].startswith(("[", "*")) + " & ".join(cells) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}}", f"\\caption{{\\textbf{{{latex(title)}.}} {latex(caption)}}}"]
        return "\n".join([*lines, f"\\label{{tab:{name}}}", "\\end{table*}", ""])

    def csv(self) -> str:
        """Return a line for every row; a column with intervals has three of its own."""
        rows = [(*self._of_group(heading), *row) for heading, group in self.groups for row in group]
        columns = [*map(Column, self._of_group("group")), *self.columns]
        written: list[Sequence[Value]] = []
        for i, column in enumerate(columns):
            values = [row[i] for row in rows]
            if any(isinstance(value, Estimate) for value in values):
                ends = column.ends or (f"{column.heading} low", f"{column.heading} high")
                parts = [value[:3] if isinstance(value, Estimate) else (value, None, None) for value in values]
                written += zip((column.heading, *ends), *parts, strict=True)
            else:
                written.append((column.heading, *values))
        return "".join(_csv([_digits(value) for value in line]) for line in zip(*written, strict=True))


def number(value: Value) -> float:
    """Return the number that a value is, or has as text; -inf if it is none."""
    if isinstance(value, Estimate):
        return value.value
    try:
        return float(str(value).replace("−", "-"))
    except ValueError:
        return -math.inf


def _digits(value: Value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value) if isinstance(value, (str, int)) else repr(float(value))  # type: ignore[arg-type]


def _csv(cells: Sequence[str]) -> str:
    """Return a line; csv quotes a carriage return only where lines end with one."""
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
